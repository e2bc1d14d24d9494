"""Feeding a dump to psql, as one transaction: the database is the old one, or the new one.

psql gets our own ``\\restrict`` first, so that nothing in a dump is a command of psql's (CVE-2025-8714); the one
that pg_dump wrote is taken out (:mod:`fitting`), because they do not nest. The COMMIT is the last line of what psql
reads, and not psql's own: ``--single-transaction`` commits at any end of its input, also where whoever wrote it was killed midway.
The transactions that pg_dump writes around large objects are taken out, which would commit before the end (:mod:`transactions`).
"""

from __future__ import annotations

import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avalanche_backup.errors import RestoreFailed
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import error_line, tail
from avalanche_backup.sources.postgresql.target import remedy_for

CHUNK = 1024 * 1024
_AT_LINE = re.compile(r"<stdin>:(\d+):")
_CONNECTION_LOST = re.compile(
    r"server closed the connection|terminating connection|connection to (the )?server was lost|"
    r"could not (send|receive) data|SSL SYSCALL|no connection to the server"
)


def sql_of_archive(clients: Clients, environment: dict[str, str], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the SQL of a Custom archive, as pg_restore writes it."""
    failures: list[BaseException] = []
    with _pg_restore(clients, environment, "-", subprocess.PIPE) as process:
        feeder = threading.Thread(
            target=_feed_archive, args=(process, chunks, failures), name="archive", daemon=True
        )
        feeder.start()
        try:
            yield from _output_of(process, feeder, failures)
        finally:
            process.kill()
            feeder.join()


def sql_of_directory(clients: Clients, environment: dict[str, str], folder: Path) -> Iterator[bytes]:
    """Give the SQL of a Directory archive."""
    with _pg_restore(clients, environment, str(folder), subprocess.DEVNULL) as process:
        yield from _output_of(process, None, [])


def run_psql(
    clients: Clients, environment: dict[str, str], sql: Iterator[bytes], *, preamble: str, scratch: Path
) -> None:
    """Run ``preamble`` and ``sql`` (of :func:`fitting.fitted`) in one transaction.

    :raises RestoreFailed: the server refused something, and everything was rolled back; or it went away before it said
        whether it had committed.
    """
    errors = scratch / "psql.errors"
    token = secrets.token_hex(16)
    command = [clients.tool("psql"), "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1",
               "--file=-"]  # fmt: skip
    lines = _Lines(_wrapped(sql, preamble, token))
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
        )
        whole = False
        try:
            with suppress(BrokenPipeError):
                _feed(process, iter(lines))
                whole = True
            status = process.wait()
        finally:
            if process.poll() is None:  # a damaged dump: psql must not see its end
                process.kill()
                process.wait()
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
    if status:
        raise _failed(status, tail(errors), lines.count if whole else None)


class _Lines:
    """Chunks, and how many lines they were."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.count = chunks, 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.count += chunk.count(b"\n")
            yield chunk


def _failed(status: int, said: str, lines: int | None) -> RestoreFailed:
    """Say what is known: psql commits at the last of ``lines``; until then, whatever ends it rolls back.

    ``lines`` is absent where psql did not get all of them.
    """
    line = error_line(said) if status > 0 else f"it was killed by signal {-status}"
    whole = lines is not None
    at = _AT_LINE.search(said.strip().rpartition("\n")[2])
    committing = at is None or int(at[1]) == lines
    if whole and (status < 0 or (committing and _CONNECTION_LOST.search(said))):
        return RestoreFailed(
            f"psql stopped: {line}. The server did not say whether it had committed: the database is wholly what it was, "
            "or wholly the backup; look at it, or restore again",
            reason="OutcomeUnknown",
        )
    return RestoreFailed(
        f"psql stopped: {line}{remedy_for(line)}. Everything was rolled back: the database is as it was",
        reason="RestoreRolledBack",
    )


def _wrapped(sql: Iterator[bytes], preamble: str, token: str) -> Iterator[bytes]:
    yield f"BEGIN;\n{preamble}\\restrict {token}\n".encode()
    yield from sql
    yield f"\n\\unrestrict {token}\nCOMMIT;\n".encode()


def _feed(process: subprocess.Popen[bytes], sql: Iterator[bytes]) -> None:
    if process.stdin is None:
        return
    for chunk in sql:
        process.stdin.write(chunk)
    process.stdin.close()


@contextmanager
def _pg_restore(
    clients: Clients, environment: dict[str, str], archive: str, stdin: int
) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        clients.tool("pg_restore"),
        "--exit-on-error",
        "--file=-",
        *([archive] if archive != "-" else []),
    ]
    process = subprocess.Popen(
        command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _output_of(
    process: subprocess.Popen[bytes], feeder: threading.Thread | None, failures: list[BaseException]
) -> Iterator[bytes]:
    while process.stdout is not None and (chunk := process.stdout.read(CHUNK)):
        yield chunk
    said = process.stderr.read().decode(errors="replace") if process.stderr is not None else ""
    status = process.wait()
    if feeder is not None:
        feeder.join()
    if failures:
        raise failures[0]
    if status:
        raise RestoreFailed(
            f"pg_restore stopped: {error_line(said)}. Everything was rolled back: the database is as it was",
            reason="RestoreRolledBack",
        )


def _feed_archive(
    process: subprocess.Popen[bytes], chunks: Iterator[bytes], failures: list[BaseException]
) -> None:
    try:
        with suppress(BrokenPipeError):
            _feed(process, chunks)
        for _ in chunks:  # what pg_restore did not need is read all the same: its checksum counts
            if process.poll():  # it failed, or was killed because nobody wants its output any more
                break
    except BaseException as error:
        failures.append(error)
        process.kill()
