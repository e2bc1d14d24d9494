"""Reaching a server with psql: the environment that carries the connection, queries, and what errors mean.

Everything travels in the environment of libpq and the password in a file of its own, so that no argument list ever
holds one, and a database name that looks like a connection string is only a name.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import CredentialsMissing, Failure, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_contract.source import PostgresqlSource

CONNECT_SECONDS = 10
QUERY_SECONDS = 120
STDERR_TAIL = 4096
SERVICE = """\
[avalanche-backup]
keepalives_idle=30
keepalives_interval=10
keepalives_count=6
tcp_user_timeout=90000
"""
"""A server that falls silent without a word (its node is gone, a firewall forgot the connection) is given up after a minute and a
half; the kernel's own patience is two hours. There are no variables of the environment for these."""
_INVALID = (
    (r"authentication failed|no password supplied|no pg_hba\.conf entry|role .* does not exist", "AuthenticationFailed", ""),
    (r"not currently accepting connections|cannot connect to invalid database", "ConnectionsNotAllowed", "see ALTER DATABASE … ALLOW_CONNECTIONS"),
    (r"database .* does not exist", "DatabaseMissing", ""),
    (r"row-level security policy", "RowSecurity", "give the role BYPASSRLS, or dump as the owner of the table"),
    (r"permission denied|must be owner", "PermissionDenied", "docs/postgresql.md has the least rights: pg_read_all_data and its likes"),
    (r"server does not support SSL|certificate|SSL error|root certificate", "TLSFailed", ""),
    (r"server version mismatch|aborting because of server version", "ServerTooNew", ""),
    (r"no matching (schemas|tables|extensions) were found", "SourceEmpty", ""),
    (r"invalid regular expression", "PatternInvalid", "write excludeTables as pg_dump's patterns"),
)  # fmt: skip
"""(what the tool says, our reason, what to do)."""
_PASSING = (
    (r"due to (statement|lock) timeout|could not obtain lock", "LockNotObtained", "somebody holds a lock on a table, or waits for one"),
    (r"conflict with recovery", "RecoveryConflict", "raise the standby's max_standby_streaming_delay, or set hot_standby_feedback"),
)  # fmt: skip
"""The same, for what another try may do."""


_FROM_SERVER = re.compile(r"Error message from server:\s*(.+)")


def connection_environment(source: PostgresqlSource, scratch: Path) -> dict[str, str]:
    """Give the environment for libpq's tools, and write the password and service files that it names.

    :raises CredentialsMissing: the user name or the password is not where the request says.
    """
    username = source.username if isinstance(source.username, str) else read_credential(source.username)
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(scratch),
        "LC_ALL": "C.UTF-8",
        "PGHOST": source.host,
        "PGPORT": str(source.port),
        "PGDATABASE": source.database,
        "PGUSER": username,
        "PGPASSFILE": str(_write_password(source, scratch)),
        "PGSERVICEFILE": str(_write_service(scratch)),
        "PGSERVICE": "avalanche-backup",
        "PGSSLMODE": source.ssl_mode,
        "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS),
        "PGAPPNAME": "avalanche-backup",
        "PGCLIENTENCODING": "UTF8",
    }
    return environment | ({"PGSSLROOTCERT": source.ca_file} if source.ca_file else {})


def query(clients: Clients, environment: dict[str, str], sql: str) -> Any:
    """Run one statement that gives one JSON value. It goes by standard input: an argument holds 128 KiB at most.

    :raises SourceUnavailable: no answer. :raises SourceInvalid: refused.
    """
    return query_all(clients, environment, sql)[0]


def query_all(clients: Clients, environment: dict[str, str], *sql: str) -> list[Any]:
    """Run several statements, each as :func:`query` does, by one connection: making one takes longer than most answers."""
    try:
        ended = subprocess.run(
            command_of_psql(clients),
            env=environment,
            input="".join(f"SET statement_timeout = 0\\;\n{each};\n" for each in sql),
            capture_output=True,
            text=True,
            check=False,
            timeout=QUERY_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise SourceUnavailable(f"the database did not answer within {QUERY_SECONDS} seconds") from None
    if ended.returncode:
        raise explain(ended.stderr, "the database refused a question")
    try:
        return _values(ended.stdout, len(sql))
    except ValueError:
        raise SourceUnavailable("the server's answer cannot be read: is this a PostgreSQL server?") from None


def _values(text: str, count: int) -> list[Any]:
    """Read JSON values that follow each other; the server breaks lines within them."""
    decoder, found, at = json.JSONDecoder(), list[Any](), 0
    for _ in range(count):
        at += len(text[at:]) - len(text[at:].lstrip())
        value, at = decoder.raw_decode(text, at)
        found.append(value)
    if text[at:].strip():
        raise ValueError(text[at:])
    return found


def execute(clients: Clients, environment: dict[str, str], sql: str) -> None:
    """Run statements one after the other, each as a transaction of its own where they name none, for as long as they take.

    :raises SourceUnavailable: no answer. :raises SourceInvalid: refused.
    """
    ended = subprocess.run(
        command_of_psql(clients),
        env=environment,
        input=f"SET statement_timeout = 0;\n{sql};\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise explain(ended.stderr, "the server refused a statement")


def command_of_psql(clients: Clients) -> list[str]:
    """Give the command that runs statements from standard input, and stops at the first that fails."""
    return [clients.tool("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet",
            "--set=ON_ERROR_STOP=1", "--file=-"]  # fmt: skip


def explain(stderr: str, what: str) -> Failure:
    """Turn what a tool wrote into a failure of ours: only its line of error, never the data that follows it."""
    line = error_line(stderr)
    for kind, known in ((SourceInvalid, _INVALID), (SourceUnavailable, _PASSING)):
        for pattern, reason, remedy in known:
            if re.search(pattern, line):
                return kind(f"{what}: {line}" + (f" ({remedy})" if remedy else ""), reason=reason)
    return SourceUnavailable(f"{what}: {line}")


def error_line(stderr: str) -> str:
    """Give the first line that says what went wrong, without the tool's name and position.

    pg_dump says first that something failed, and what the server said in a line of details: both are given.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = [
        line for line in lines if re.search(r"\b(ERROR|FATAL|PANIC):", line) and not _FROM_SERVER.search(line)
    ]
    telling = [
        line for line in lines if re.search(r"error|fatal|failed|refused|could not", line, re.IGNORECASE)
    ]
    line = (said or telling or lines or ["it ended without a word"])[0]
    line = re.sub(r"^(psql|pg_dump|pg_dumpall|pg_restore)(:\S*)?:\s*", "", line)
    line = re.sub(r"^(?i:error|fatal):\s*", "", line)
    from_server = next((found[1] for each in lines if (found := _FROM_SERVER.search(each))), "")
    return f"{line} {from_server}".strip()[:300]


def tail(path: Path) -> str:
    """Read the end of a tool's standard error."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - STDERR_TAIL))
        return file.read().decode(errors="replace")


def _write_service(scratch: Path) -> Path:
    path = scratch / "pg_service.conf"
    path.write_text(SERVICE)
    return path


def _write_password(source: PostgresqlSource, scratch: Path) -> Path:
    path = scratch / "pgpass"
    password = read_credential(source.password) if source.password else ""
    if "\n" in password:
        raise CredentialsMissing("the password of the database has more than one line")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        if password:
            file.write(f"*:*:*:*:{escaped}\n")
    return path
