"""Feeding a dump to psql, as one transaction: the database is the old one, or the new one.

psql gets our own ``\\restrict`` first, so that nothing in a dump is a command of psql's (CVE-2025-8714); the one
that pg_dump wrote is taken out, because they do not nest; so is a setting that an older server does not know. psql is
killed before it sees the end of a dump that turned out to be damaged, and a transaction without its COMMIT is rolled back.
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
from avalanche_backup.sources.postgresql.questions import MARKER
from avalanche_backup.sources.postgresql.target import KNOWS_TRANSACTION_TIMEOUT, remedy_for

HEAD = 4096
"""Within so many bytes at either end stand the lines that pg_dump wrote for psql."""
CHUNK = 1024 * 1024
_RESTRICT = re.compile(rb"^\\restrict [A-Za-z0-9]+\r?\n", re.MULTILINE)
_TIMEOUT = b"SET transaction_timeout = 0;\n"
"""Written by pg_dump and pg_restore since 17 for whatever server, and unknown to servers before 17."""
_UNRESTRICT = re.compile(rb"^\\unrestrict [A-Za-z0-9]+\r?\n", re.MULTILINE)

FIRST_OWN_OID = 16384
"""PostgreSQL gives lower numbers to what it brings along (``FirstNormalObjectId``)."""
_OUTSIDE_SCHEMAS = ("publication", "event_trigger", "foreign_server", "foreign_data_wrapper", "cast", "transform",
                    "language", "am")  # fmt: skip
"""Catalogs of what pg_dump writes and no schema holds. Subscriptions are neither dumped nor dropped."""

CLEAR = """\
SET statement_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET lock_timeout = '60s';
DO $avalanche$
DECLARE found record;
BEGIN
  FOR found IN
    SELECT o.type, o.identity FROM ({outside}) AS c, LATERAL pg_identify_object(c.classid, c.oid, 0) AS o
    WHERE {everything} AND o.identity IS NOT NULL AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = c.classid AND e.objid = c.oid AND e.deptype IN ('e', 'i'))
  LOOP EXECUTE format('DROP %s IF EXISTS %s CASCADE', replace(found.type, '-', ' '), found.identity); END LOOP;
  FOR found IN
    SELECT nspname FROM pg_namespace AS n
    WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') AND {chosen}
      AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = 'pg_namespace'::regclass AND e.objid = n.oid AND e.deptype = 'e')
  LOOP EXECUTE format('DROP SCHEMA %I CASCADE', found.nspname); END LOOP;
  -- What a CASCADE took along has no identity any more.
  -- A partitioned table depends internally on its own columns (objsubid): that must not hide it.
  FOR found IN
    SELECT CASE o.type WHEN 'statistics object' THEN 'statistics' ELSE o.type END AS type, o.identity
    FROM pg_depend AS d, pg_namespace AS n, LATERAL pg_identify_object(d.classid, d.objid, 0) AS o
    WHERE n.nspname = 'public' AND {chosen} AND d.refclassid = 'pg_namespace'::regclass AND d.refobjid = n.oid AND d.deptype = 'n'
      AND o.type <> 'default acl' AND o.identity IS NOT NULL
      -- An extension of somebody else's stays: the dump asks for it only if it is not there.
      AND NOT EXISTS (SELECT FROM pg_extension AS x WHERE d.classid = 'pg_extension'::regclass AND x.oid = d.objid AND NOT pg_has_role(x.extowner, 'USAGE'))
      AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = d.classid AND e.objid = d.objid AND e.objsubid = 0 AND e.deptype IN ('e', 'i'))
  LOOP EXECUTE format('DROP %s IF EXISTS %s CASCADE', found.type, found.identity); END LOOP;
  DROP SCHEMA IF EXISTS {marker} CASCADE;
  IF {everything} THEN PERFORM lo_unlink(oid) FROM pg_largeobject_metadata; END IF;
END
$avalanche$;
RESET lock_timeout;
"""


def clearing(schemas: tuple[str, ...]) -> str:
    """Give the statement that removes what the dump brings back; what extensions own goes and stays with them."""
    quoted = ", ".join("'" + schema.replace("'", "''") + "'" for schema in schemas)
    outside = " UNION ALL ".join(
        f"SELECT 'pg_{name}'::regclass AS classid, oid FROM pg_{name} WHERE oid >= {FIRST_OWN_OID}"  # noqa: S608
        for name in _OUTSIDE_SCHEMAS
    )
    return CLEAR.format(
        chosen=f"n.nspname IN ({quoted})" if schemas else "true",
        everything="false" if schemas else "true",
        outside=outside,
        marker=MARKER,
    )


def sql_of_archive(clients: Clients, environment: dict[str, str], chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the SQL of a Custom archive, as pg_restore writes it."""
    failures: list[BaseException] = []
    with _pg_restore(clients, environment, "-", subprocess.PIPE) as process:
        feeder = threading.Thread(target=_feed_archive, args=(process, chunks, failures), name="archive")
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
    """Run ``preamble`` and ``sql`` (of :func:`prepared`) in one transaction.

    :raises RestoreFailed: the server refused something; everything was rolled back.
    """
    errors = scratch / "psql.errors"
    token = secrets.token_hex(16)
    command = [clients.tool("psql"), "--no-psqlrc", "--no-password", "--quiet", "--single-transaction",
               "--set=ON_ERROR_STOP=1", "--file=-"]  # fmt: skip
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
        )
        try:
            with suppress(BrokenPipeError):
                _feed(process, _wrapped(sql, preamble, token))
            status = process.wait()
        finally:
            if process.poll() is None:  # a damaged dump: psql must not see its end
                process.kill()
                process.wait()
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.close()
    if status:
        line = error_line(tail(errors))
        raise RestoreFailed(
            f"psql stopped: {line}{remedy_for(line)}. Everything was rolled back: the database is as it was",
            reason="RestoreRolledBack",
        )


def prepared(sql: Iterator[bytes], server_major: int) -> Iterator[bytes]:
    """Give a dump without the ``\\restrict`` of its head and the ``\\unrestrict`` of its end, fit for an older server.

    The rest is untouched.
    """
    held = b""
    headed = False
    for chunk in sql:
        held += chunk
        if not headed and len(held) >= HEAD:
            held, headed = _without_head(held, server_major), True
        if headed and len(held) > HEAD:
            yield held[:-HEAD]
            held = held[-HEAD:]
    if not headed:
        held = _without_head(held, server_major)
    yield _UNRESTRICT.sub(b"", held)


def _without_head(data: bytes, server_major: int) -> bytes:
    if server_major < KNOWS_TRANSACTION_TIMEOUT:
        data = data[:HEAD].replace(_TIMEOUT, b"", 1) + data[HEAD:]
    found = _RESTRICT.search(data, 0, HEAD)
    before = data[: found.start()] if found else b"?"
    comments_only = all(not line or line.startswith(b"--") for line in before.splitlines())
    return data[: found.start()] + data[found.end() :] if found and comments_only else data


def _wrapped(sql: Iterator[bytes], preamble: str, token: str) -> Iterator[bytes]:
    yield f"{preamble}\\restrict {token}\n".encode()
    yield from sql
    yield f"\n\\unrestrict {token}\n".encode()


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
            pass
    except BaseException as error:
        failures.append(error)
        process.kill()
