"""Running pg_dump: its output into a sink, and nothing believed before its exit code and trailer were seen."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from avalanche_backup.errors import SourceUnavailable
from avalanche_backup.sources.base import ProgressHook, Sink
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import explain, tail
from avalanche_contract.request import PostgresqlSource

CHUNK = 1024 * 1024
TRAILER = b"-- PostgreSQL database dump complete"
TRAILER_WITHIN = 512
MAGIC_CUSTOM = b"PGDMP"
LOCK_WAIT = "60s"


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
    with errors.open("wb") as stderr, _running(_command(clients, source), environment, stderr) as process:
        for chunk in _chunks(process):
            first = first or chunk[:16]
            last = (last + chunk)[-TRAILER_WITHIN:]
            sink.write(chunk)
            done += len(chunk)
            progress(done)
        status = process.wait()
    if status:
        how = (
            f"pg_dump was killed by signal {-status}"
            if status < 0
            else f"pg_dump ended with exit code {status}"
        )
        raise explain(tail(errors), how)
    whole = first.startswith(MAGIC_CUSTOM) if source.format == "Custom" else TRAILER in last
    if not whole:
        raise SourceUnavailable(
            "pg_dump ended without error, and its output lacks the closing line", reason="DumpIncomplete"
        )


def _command(clients: Clients, source: PostgresqlSource) -> list[str]:
    chosen = [f"--schema={schema}" for schema in source.schemas]
    left_out = [f"--exclude-table={table}" for table in source.exclude_tables]
    # The pipeline compresses: a Custom archive compressed by pg_dump would take one core for zlib.
    form = ["--format=custom", "--compress=0"] if source.format == "Custom" else ["--format=plain"]
    return [
        clients.tool("pg_dump"),
        "--no-password",
        f"--lock-wait-timeout={LOCK_WAIT}",
        "--no-subscriptions",  # a restored copy must not pull from the publisher
        *form,
        *chosen,
        *left_out,
    ]


def _chunks(process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    output = process.stdout
    if output is None:
        raise SourceUnavailable("pg_dump has no output")
    while chunk := output.read(CHUNK):
        yield chunk


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], stderr: object
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,  # type: ignore[call-overload]
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
