"""Restoring a Directory archive by several jobs, on request: faster, and not one transaction.

pg_restore's jobs are sessions of their own, so the database cannot be the old one or the new one at every moment. It is
plainly marked instead: the first transaction clears it and creates the schema ``avalanche_restore_incomplete``, the last
statement drops that schema. Whatever happens in between, a backup refuses the database while the schema is there, and
every restore begins by removing it. The archive was read, checked and unpacked before the first transaction.
"""

from __future__ import annotations

from pathlib import Path

from avalanche_backup.errors import RestoreFailed
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import error_line, query, tail
from avalanche_backup.sources.postgresql.dump import ended, running
from avalanche_backup.sources.postgresql.questions import MARKER
from avalanche_backup.sources.postgresql.restore import clearing, run_psql
from avalanche_backup.sources.postgresql.target import remedy_for

MARK = f"""CREATE SCHEMA {MARKER};
COMMENT ON SCHEMA {MARKER} IS 'A restore into this database did not end. Restore again.';
"""
UNMARK = f"DROP SCHEMA {MARKER}"


def restore_in_parallel(
    clients: Clients,
    environment: dict[str, str],
    folder: Path,
    *,
    jobs: int,
    schemas: tuple[str, ...],
    scratch: Path,
) -> None:
    """Clear the database, mark it, and fill it. The caller checks what came back, and then calls :func:`unmark`.

    :raises RestoreFailed: ``RestoreRolledBack`` where it is as it was, ``RestoreIncomplete`` where it is marked.
    """
    run_psql(clients, environment, iter([MARK.encode()]), preamble=clearing(schemas), scratch=scratch)
    errors = scratch / "pg_restore.errors"
    database = environment["PGDATABASE"].replace("\\", "\\\\").replace("'", "\\'")
    # A name alone would be read as a connection string where it looks like one.
    command = [clients.tool("pg_restore"), "--no-password", "--exit-on-error", f"--jobs={jobs}",
               f"--dbname=dbname='{database}'", str(folder)]  # fmt: skip
    with errors.open("wb") as stderr, running(command, environment, stderr) as process:
        status = process.wait()
    if status:
        line = error_line(tail(errors))
        raise incomplete(f"{ended('pg_restore', status)}: {line}{remedy_for(line)}")


def unmark(clients: Clients, environment: dict[str, str]) -> None:
    """Say that the database is whole."""
    query(clients, environment, f"{UNMARK}; SELECT 'true'")


def incomplete(what: str) -> RestoreFailed:
    """Give the failure that says in what state the database is."""
    return RestoreFailed(
        f"{what}. The database is NOT whole: it holds a part of the backup, and the schema {MARKER} marks it. "
        "Restore again; no backup is taken of it before that",
        reason="RestoreIncomplete",
    )
