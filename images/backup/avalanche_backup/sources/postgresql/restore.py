"""Feeding a dump to psql, as one transaction: the database is the old one, or the new one.

psql gets our own ``\\restrict`` first, so that nothing in a dump is a command of psql's (CVE-2025-8714); the one
that pg_dump wrote is taken out (:mod:`fitting`), because they do not nest. The COMMIT is the last line of what psql
reads, and not psql's own: ``--single-transaction`` commits at any end of its input, also where whoever wrote it was killed midway.
The transactions that pg_dump writes around large objects are taken out, which would commit before the end (:mod:`transactions`).
What became of the transaction is asked, not concluded (:mod:`outcome`).
"""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from avalanche_backup.errors import Failure, RestoreFailed
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import error_line, tail
from avalanche_backup.sources.postgresql.marking import marked
from avalanche_backup.sources.postgresql.outcome import Outcome, Told, outcome
from avalanche_backup.sources.postgresql.target import remedy_for

CHUNK = 1024 * 1024


class _ArchiveNotRead(RestoreFailed):
    """pg_restore stopped midway: in what state that leaves the database is said by :func:`run_psql`."""


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

    :raises RestoreFailed: ``RestoreRolledBack``; ``RestoreIncomplete``, which only a dump that ends the transaction itself
        can do; ``OutcomeUnknown`` where the server went away while it committed, and stays away.
    """
    told, errors = Told(secrets.token_hex(16)), scratch / "psql.errors"
    # Not quiet: the tag of each statement says where a transaction ends.
    command = [clients.tool("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1",
               "--file=-"]  # fmt: skip
    unread: Failure | None = None
    with errors.open("wb") as stderr, _listened(command, environment, stderr, told) as process:
        try:
            with suppress(BrokenPipeError):
                _feed(process, _wrapped(sql, preamble, told))
            process.wait()
        except Failure as failure:
            unread = failure
    what = outcome(told, clients, environment)
    if unread is None and what == "Whole":
        return
    if unread is not None and what != "Part" and not isinstance(unread, _ArchiveNotRead):
        raise unread
    line = unread.message if unread else _stopped(process.returncode, tail(errors))
    raise _failed(what, line, clients, environment)


@contextmanager
def _listened(
    command: list[str], environment: dict[str, str], stderr: IO[bytes], told: Told
) -> Iterator[subprocess.Popen[bytes]]:
    """Run psql, and hear what it says. One that still runs at the end is killed: of a damaged dump it must not see the end."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    )
    listener = threading.Thread(target=told.listen, args=(process.stdout,), name="psql", daemon=True)
    listener.start()
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        listener.join()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _stopped(status: int, said: str) -> str:
    if not status:
        return "psql stopped: the dump ends in the middle of a statement, or of rows"
    line = error_line(said) if status > 0 else f"it was killed by signal {-status}"
    return f"psql stopped: {line}{remedy_for(line)}"


def _failed(what: Outcome, line: str, clients: Clients, environment: dict[str, str]) -> RestoreFailed:
    """Say in what state the database is."""
    if what == "Part":
        return marked(
            clients, environment, f"{line}. The backup ends the transaction of its restore by itself, which pg_dump never writes"
        )  # fmt: skip
    if what == "Unknown":
        return RestoreFailed(
            f"{line}. The server did not say whether it had committed: the database is wholly what it was, "
            "or wholly the backup; look at it, or restore again",
            reason="OutcomeUnknown",
        )
    return RestoreFailed(
        f"{line}. Everything was rolled back: the database is as it was", reason="RestoreRolledBack"
    )


def _wrapped(sql: Iterator[bytes], preamble: str, told: Told) -> Iterator[bytes]:
    token = secrets.token_hex(16)
    yield f"BEGIN;\n{told.beginning}\n{preamble}\\restrict {token}\n".encode()
    yield from sql
    yield f"\n\\unrestrict {token}\n{told.end}\nCOMMIT;\n".encode()


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
        raise _ArchiveNotRead(f"pg_restore stopped: {error_line(said)}")


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
