"""Whether a server can restore so many objects in one transaction: each of them takes a place in its lock table. Pure.

The table has room for ``max_locks_per_transaction`` times the sessions, and PostgreSQL lends it some more. Source:
its manual, Lock Management, and ``LockShmemSize``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avalanche_backup.errors import RestoreRefused

CERTAIN = 2
"""So many times the room for all backends is more than the server ever lends: measured, it ends at about 1.6."""


def warnings(found: Mapping[str, Any], table: Mapping[str, Any]) -> tuple[str, ...]:
    """Warn at a backup that the way back in place needs more locks than the server surely has.

    ``found`` is the answer to :func:`questions.contents`, ``table`` to :data:`questions.LOCKS`.
    """
    wanted = int(found["dropped_locks"]) + int(found["created_locks"])
    if wanted <= table["setting"] * table["sessions"]:
        return ()
    return (f"a restore in place locks about {wanted} objects in one transaction: {_remedy(wanted, table)}",)


def check(
    artifact: Mapping[str, Any], found: Mapping[str, Any], table: Mapping[str, Any], jobs: int = 1
) -> None:
    """Compare what a restore locks in one transaction with what the target's server has room for.

    :raises RestoreRefused: it would surely end with ``out of shared memory``.
    """
    created = int((artifact.get("statistics") or {}).get("locks") or 0)
    wanted = int(found["dropped_locks"]) + (
        created if jobs == 1 else 0
    )  # jobs have transactions of their own
    if wanted > CERTAIN * table["setting"] * table["backends"]:
        raise RestoreRefused(
            f"the restore locks about {wanted} objects in one transaction, more than the server can: "
            f"{_remedy(wanted, table)} (that wants a restart), then restore",
            reason="TooManyObjects",
        )


def _remedy(wanted: int, table: Mapping[str, Any]) -> str:
    needed = -(-wanted * 11 // (10 * table["sessions"]))
    return f"set max_locks_per_transaction of the server to {needed} or more (it is {table['setting']})"
