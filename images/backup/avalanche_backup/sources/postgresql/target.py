"""Whether a dump can be restored into a database, decided before anything is touched. Pure.

A dump names the roles that own things. A restore where they do not exist, or may not be given things, would stop
midway or, elsewhere, go on past the errors (pgcopydb#5, kubeblocks-addons#3438): here it is refused, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from avalanche_backup.errors import RestoreRefused
from avalanche_backup.sources.postgresql.clients import Clients

_NAMED_MAX = 5
KNOWS_TRANSACTION_TIMEOUT = 17
"""From this major on, pg_dump and pg_restore write ``SET transaction_timeout``, and servers know it."""
_REMEDIES = (
    (r"must be owner|permission denied|must be superuser|must be able to SET ROLE|must be member",
     "restore as the owner of the objects, or as a superuser"),
    (r"role .* does not exist", "create that role there first"),
    (r"out of shared memory", "raise max_locks_per_transaction of the server, which wants a restart of it"),
    (r"lock timeout", "close the sessions that use the database, and restore again"),
    (r"No space left on device", "the server's disk is full"),
    (r"unrecognized configuration parameter|syntax error", "a dump of a newer PostgreSQL may not fit an older one"),
    (r"extension .* is not available", "install the extension's package on the server"),
)  # fmt: skip


def remedy_for(line: str) -> str:
    """Give what to do about an error of the server, to stand behind it; empty where nothing is known."""
    found = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, line, re.IGNORECASE)), "")
    return f" ({found})" if found else ""


def check_target(artifact: Mapping[str, Any], abilities: Mapping[str, Any]) -> None:
    """Compare what a dump needs with what the target has.

    ``artifact`` is its part of the metadata, ``abilities`` the answer to :data:`questions.ABILITIES`.

    :raises RestoreRefused: the target is read-only, or a role or an extension is missing.
    """
    recreate = artifact.get("recreate") or {}
    owners, granted = set(recreate.get("owners") or ()), set(recreate.get("roles") or ())
    role = abilities["role"]
    if abilities["read_only"]:
        raise RestoreRefused(
            f"role {role} can only read there: the server is a standby, or default_transaction_read_only is on",
            reason="TargetReadOnly",
        )
    if missing := (owners | granted) - set(abilities["roles"]):
        raise RestoreRefused(
            f"the backup's objects belong to, or are granted to, roles that the server does not have: {_named(missing)}. "
            "Create them there first (CREATE ROLE; a backup with includeGlobals holds the statements)",
            reason="RolesMissing",
        )
    if not abilities["superuser"] and (foreign := owners - set(abilities["becomes"])):
        raise RestoreRefused(
            f"the backup's objects belong to {_named(foreign)}, and role {role} may not give them away: "
            f"restore as a superuser, or grant those roles to {role}",
            reason="RolesNotGranted",
        )
    if not recreate.get("schemas") and (
        missing := set(recreate.get("extensions") or ()) - set(abilities["extensions"])
    ):
        raise RestoreRefused(
            f"the backup needs extensions that the server does not have: {_named(missing)}. Install their packages there",
            reason="ExtensionsMissing",
        )


def warnings(abilities: Mapping[str, Any], clients: Clients) -> tuple[str, ...]:
    """Say where a dump could do more than fill the database: by what its role may do on the server, or by old clients."""
    beyond = "a superuser" if abilities["superuser"] else f"a member of {', '.join(abilities['beyond'])}"
    told = []
    if abilities["superuser"] or abilities["beyond"]:
        told.append(
            f"role {abilities['role']} is {beyond}: SQL in the backup may run programs or reach files on the server's host "
            "(COPY … FROM PROGRAM). Restore as the owner of the database, who is neither, unless you trust whoever wrote the backup"
        )
    if not clients.patched:
        told.append(
            f"PostgreSQL's clients {clients.version} lack fixes against crafted dumps and archives (CVE-2026-18408, "
            "CVE-2026-116314): update them, unless you trust whoever wrote the backup"
        )
    return tuple(told)


def check_jobs(artifact: Mapping[str, Any], jobs: int, clients: Clients, server_major: int) -> None:
    """Say whether a restore by several jobs is possible.

    :raises RestoreRefused: the artifact is no directory, or the server does not know what pg_restore sends it.
    """
    if jobs == 1:
        return
    if artifact.get("format") != "Directory":
        raise RestoreRefused(
            f"a {artifact.get('format')} artifact is restored by one job: leave jobs out",
            reason="JobsNotPossible",
        )
    if server_major < KNOWS_TRANSACTION_TIMEOUT <= clients.major:
        raise RestoreRefused(
            f"pg_restore {clients.version} cannot restore into PostgreSQL {server_major} by several jobs "
            "(transaction_timeout): leave jobs out",
            reason="JobsNotPossible",
        )


def _named(names: Iterable[str]) -> str:
    found = sorted(names)
    more = f" and {len(found) - _NAMED_MAX} more" if len(found) > _NAMED_MAX else ""
    return ", ".join(found[:_NAMED_MAX]) + more
