"""Restoring a Directory archive by several jobs, on request: faster, and not one transaction.

pg_restore's jobs are sessions of their own, so the database cannot be the old one or the new one at every moment. It is
plainly marked instead: the first transaction clears it and creates the schema ``avalanche_restore_incomplete``, the last
statement drops that schema. Whatever happens in between, a backup refuses the database while the schema is there, and
every restore begins by removing it. The archive was read, checked and unpacked before the first transaction.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from avalanche_backup.sources.postgresql.clearing import clearing
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import error_line, query, tail
from avalanche_backup.sources.postgresql.dump import ended, running
from avalanche_backup.sources.postgresql.marking import MARK, incomplete
from avalanche_backup.sources.postgresql.questions import STAYS
from avalanche_backup.sources.postgresql.restore import run_psql
from avalanche_backup.sources.postgresql.scope import Scope
from avalanche_backup.sources.postgresql.target import remedy_for


def restore_in_parallel(
    clients: Clients,
    environment: dict[str, str],
    folder: Path,
    *,
    jobs: int,
    scope: Scope,
    scratch: Path,
) -> None:
    """Clear the database, mark it, and fill it. The caller checks what came back, and then calls :func:`marking.unmark`.

    :raises RestoreFailed: ``RestoreRolledBack`` where it is as it was, ``RestoreIncomplete`` where it is marked.
    """
    run_psql(clients, environment, iter([MARK.encode()]), preamble=clearing(scope), scratch=scratch)
    errors = scratch / "pg_restore.errors"
    chosen = _chosen(clients, environment, folder, scope)
    database = environment["PGDATABASE"].replace("\\", "\\\\").replace("'", "\\'")
    # A name alone would be read as a connection string where it looks like one.
    command = [clients.tool("pg_restore"), "--no-password", "--exit-on-error", f"--jobs={jobs}",
               f"--dbname=dbname='{database}'", f"--use-list={chosen}", str(folder)]  # fmt: skip
    with errors.open("wb") as stderr, running(command, environment, stderr) as process:
        status = process.wait()
    if status:
        line = error_line(tail(errors))
        raise incomplete(f"{ended('pg_restore', status)}: {line}{remedy_for(line)}")


def _chosen(clients: Clients, environment: dict[str, str], folder: Path, scope: Scope) -> Path:
    """Write the list of what pg_restore is to bring back: all but what is there already and what the user may not write.

    That is what :func:`fitting.fitted` mends in SQL.
    """
    stays = query(clients, environment, STAYS)
    present = [each for each in stays["schemas"] if scope.schemas or each != "public"]
    left_out = tuple(f"SCHEMA - {each} " for each in present) + (
        () if stays["superuser"] else ("COMMENT - EXTENSION ",)
    )
    command = [clients.tool("pg_restore"), "--list", str(folder)]
    listed = subprocess.run(command, env=environment, capture_output=True, check=False)
    if listed.returncode:
        raise incomplete(
            f"{ended('pg_restore', listed.returncode)}: {error_line(listed.stderr.decode(errors='replace'))}"
        )
    path = folder.with_suffix(".list")
    path.write_bytes(kept_entries(listed.stdout, left_out))
    return path


def kept_entries(listed: bytes, left_out: tuple[str, ...]) -> bytes:
    """Leave entries out of what ``pg_restore --list`` wrote, by what follows their three numbers.

    Nothing else of a line decides: the name of a table may hold any text.
    """
    lines = listed.splitlines(keepends=True)
    beginnings = tuple(each.encode() for each in left_out)
    return b"".join(line for line in lines if not line.split(b" ", 3)[-1].startswith(beginnings))
