"""Roles and tablespaces of the whole server, by pg_dumpall: SQL without any password.

A dump of globals that holds password verifiers is as good as a list of passwords to try (geolens#995), so they are left
out always; what is left out is set by hand after a restore. Role settings (``ALTER ROLE … SET``) are in it, and may hold
what an application keeps there.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from avalanche_backup.errors import SourceUnavailable
from avalanche_backup.sources.base import Sink
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import explain, tail
from avalanche_backup.sources.postgresql.dump import CHUNK, TRAILER_WITHIN, ended, running

TRAILER = b"-- PostgreSQL database cluster dump complete"


def run_pg_dumpall(clients: Clients, environment: dict[str, str], sink: Sink, scratch: Path) -> None:
    """Write the globals into ``sink``. It connects to the database ``postgres``, else to ``template1``.

    :raises SourceUnavailable: it was killed, failed, or its output lacks the end. :raises SourceInvalid: refused.
    """
    errors, last = scratch / "pg_dumpall.errors", b""
    command = [clients.tool("pg_dumpall"), "--no-password", "--globals-only", "--no-role-passwords"]
    with (
        errors.open("wb") as stderr,
        running(command, environment, stderr, stdout=subprocess.PIPE) as process,
    ):
        while process.stdout is not None and (chunk := process.stdout.read(CHUNK)):
            last = (last + chunk)[-TRAILER_WITHIN:]
            sink.write(chunk)
        status = process.wait()
    if status:
        raise explain(tail(errors), ended("pg_dumpall", status))
    if TRAILER not in last:
        raise SourceUnavailable(
            "pg_dumpall ended without error, and its output lacks the closing line", reason="DumpIncomplete"
        )
