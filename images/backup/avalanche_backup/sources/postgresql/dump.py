"""Running pg_dump: its output into a sink, and nothing believed before its exit code and trailer were seen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from avalanche_backup.errors import SourceUnavailable
from avalanche_backup.sources.base import ProgressHook, Sink
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import explain, tail
from avalanche_backup.sources.postgresql.scope import identifier
from avalanche_contract.source import PostgresqlSource

CHUNK = 1024 * 1024
TRAILER = b"-- PostgreSQL database dump complete"
TRAILER_WITHIN = 512
MAGIC_CUSTOM = b"PGDMP"
LOCK_WAIT = "60s"
GRACE_SECONDS = 2.0


def run_pg_dump(
    clients: Clients,
    environment: dict[str, str],
    source: PostgresqlSource,
    sink: Sink,
    *,
    scratch: Path,
    progress: ProgressHook,
) -> None:
    """Dump the database into ``sink``.

    :raises SourceUnavailable: pg_dump was killed, failed, or its output lacks the end.
    :raises SourceInvalid: the server refused.
    """
    errors = scratch / "pg_dump.errors"
    first, last = b"", b""
    done = 0
    # The pipeline compresses: a Custom archive compressed by pg_dump would take one core for zlib.
    form = ["--format=custom", "--compress=0"] if source.format == "Custom" else ["--format=plain"]
    command = [*pg_dump(clients, source), *form]
    with (
        errors.open("wb") as stderr,
        running(command, dumping_environment(environment), stderr, stdout=subprocess.PIPE) as process,
    ):
        for chunk in _chunks(process):
            first = first or chunk[:16]
            last = (last + chunk)[-TRAILER_WITHIN:]
            sink.write(chunk)
            done += len(chunk)
            progress(done)
        status = process.wait()
    if status:
        raise explain(tail(errors), ended("pg_dump", status))
    whole = first.startswith(MAGIC_CUSTOM) if source.format == "Custom" else TRAILER in last
    if not whole:
        raise SourceUnavailable(
            "pg_dump ended without error, and its output lacks the closing line", reason="DumpIncomplete"
        )


def pg_dump(clients: Clients, source: PostgresqlSource) -> list[str]:
    """Give the command of a dump, but for its format. ``source`` names schemas exactly, and tables as SQL writes them."""
    return [
        clients.tool("pg_dump"),
        "--no-password",
        f"--lock-wait-timeout={LOCK_WAIT}",
        "--no-subscriptions",  # a restored copy must not pull from the publisher
        "--strict-names",  # a schema that went meanwhile is no success
        *(f"--schema={identifier(schema)}" for schema in source.schemas),
        *(f"--exclude-table={table}" for table in source.exclude_tables),
    ]


def dumping_environment(environment: dict[str, str]) -> dict[str, str]:
    """Let pg_dump write in the server's own encoding: a database of SQL_ASCII may hold bytes that are no UTF-8."""
    return {name: value for name, value in environment.items() if name != "PGCLIENTENCODING"}


def ended(tool: str, status: int) -> str:
    """Say how a tool ended."""
    if status < 0:
        return f"{tool} was killed by signal {-status}"
    return f"{tool} ended with exit code {status}"


def _chunks(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    output = process.stdout
    if output is None:
        raise SourceUnavailable("pg_dump has no output")
    while chunk := output.read(CHUNK):
        yield chunk


@contextmanager
def running(
    command: list[str], environment: dict[str, str], stderr: BinaryIO, stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a tool, and leave none behind: jobs of pg_dump end with their parent, which is asked first."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_SECONDS)
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
