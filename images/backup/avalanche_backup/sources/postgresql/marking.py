"""The mark on a database that a restore left neither the old one nor the new one: a schema that no backup passes over."""

from __future__ import annotations

from avalanche_backup.errors import Failure, RestoreFailed
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import execute, query
from avalanche_backup.sources.postgresql.scope import MARKER

MARK = f"""CREATE SCHEMA {MARKER};
COMMENT ON SCHEMA {MARKER} IS 'A restore into this database did not end. Restore again.';
"""
UNMARK = f"DROP SCHEMA {MARKER}"
_NOT_WHOLE = "The database is NOT whole: it may hold a part of the backup"


def unmark(clients: Clients, environment: dict[str, str]) -> None:
    """Say that the database is whole."""
    query(clients, environment, f"{UNMARK}; SELECT 'true'")


def incomplete(what: str) -> RestoreFailed:
    """Give the failure that says in what state a marked database is."""
    return RestoreFailed(
        f"{what}. {_NOT_WHOLE}, and the schema {MARKER} marks it. Restore again; no backup is taken of it before that",
        reason="RestoreIncomplete",
    )


def marked(clients: Clients, environment: dict[str, str], what: str) -> RestoreFailed:
    """Mark a database that turned out not to be whole, and give the failure that says so."""
    try:
        execute(clients, environment, f"DROP SCHEMA IF EXISTS {MARKER}; {MARK.strip().removesuffix(';')}")
    except Failure as failure:
        return RestoreFailed(
            f"{what}. {_NOT_WHOLE}, and could not be marked ({failure.message}). Restore again before the next backup",
            reason="RestoreIncomplete",
        )
    return incomplete(what)
