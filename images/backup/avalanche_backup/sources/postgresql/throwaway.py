"""A throwaway PostgreSQL server: made for one restore, reached by a socket alone, gone afterwards whatever happens.

Nothing of it is worth keeping, so nothing is made durable (``fsync`` off). It listens on no port; its socket lies in a
folder that only its user and root can enter. A dump is restored by a role that is no superuser, so that nothing in it
can run a program (``COPY … FROM PROGRAM``, functions in C): that role is a member of the database's owner and of every
other role that the dump names. What only a superuser may make then fails, as it would for such a role on a real server.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_backup.errors import DrillFailed
from avalanche_backup.sources.postgresql.clients import Clients, folders, installed_clients
from avalanche_backup.sources.postgresql.connection import (
    connection_environment,
    error_line,
    explain,
    query,
    tail,
)
from avalanche_backup.sources.postgresql.questions import contents
from avalanche_backup.sources.postgresql.scope import Scope
from avalanche_contract.request import PostgresqlSource

DATABASE = "restored"
START_SECONDS = 60
STOP_SECONDS = 15
USERS = ("postgres", "nobody")
"""As whom a server runs that root starts: PostgreSQL refuses root."""
_SESSIONS = 20
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": str(_SESSIONS),
    "shared_buffers": "64MB",
    "maintenance_work_mem": "64MB",
    "dynamic_shared_memory_type": "mmap",  # a container has 64 MB of the other kind
    "jit": "off",
    "logging_collector": "off",
}
_PR_SET_PDEATHSIG = 1
_WRAPPERS = ("/usr/lib/*/libnss_wrapper.so", "/usr/lib/libnss_wrapper.so", "/usr/lib64/libnss_wrapper.so")


@dataclass(frozen=True)
class Throwaway:
    """A running server with one empty database."""

    source: PostgresqlSource
    """The database, as a restore is given it."""
    version: str
    note: str
    """What is not as it was where the backup comes from; mostly empty."""
    connect: str
    stop: str
    """Commands for a person, where it is kept."""
    environment: Mapping[str, str]

    def contents(self, artifact: Mapping[str, Any]) -> Mapping[str, Any]:
        """Count what is there of what an artifact holds."""
        found: Mapping[str, Any] = query(_clients(), dict(self.environment), contents(Scope.of(artifact)))
        return found

    def ask(self, sql: str, seconds: int) -> str | None:
        """Ask for a single value, as text, in a transaction that reads; ``None`` is NULL.

        :raises DrillFailed: the server refuses it, it gives more or less than one value, or takes too long.
        """
        options = f"-c default_transaction_read_only=on -c statement_timeout={seconds}s"
        # Not by standard input, where psql would look for commands of its own.
        wrapped = f"SELECT to_json((\n{sql.strip().rstrip(';')}\n)::text)"
        command = [_clients().tool("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet",
                   "--set=ON_ERROR_STOP=1", f"--command={wrapped}"]  # fmt: skip
        try:
            ended = subprocess.run(
                command, env={**self.environment, "PGOPTIONS": options}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=seconds + STOP_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise DrillFailed(f"no answer within {seconds} seconds", reason="QueryFailed") from None
        if ended.returncode:
            raise DrillFailed(error_line(ended.stderr), reason="QueryFailed")
        try:
            found = json.loads(ended.stdout) if ended.stdout.strip() else None
        except ValueError:
            raise DrillFailed("it is more than one statement", reason="QueryFailed") from None
        return None if found is None else str(found)


@dataclass(frozen=True)
class _Server:
    """Where the programs of one major are."""

    major: int
    folder: Path


@dataclass(frozen=True)
class _Place:
    """Where a server lives, and as whom: ``home`` has a short name, because that of a socket has 107 bytes at most."""

    home: Path
    data: Path
    user: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment of its processes: nothing of ours, which may hold secrets."""
        found = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return found | _named_user(self.home)

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)


@contextmanager
def throwaway(
    artifact: Mapping[str, Any], scratch: Path, *, superuser: bool = False, keep: bool = False
) -> Iterator[Throwaway]:
    """Run a server for one artifact, with a database like the one that it is of.

    ``scratch`` is where its data goes. With ``keep`` it runs on, and nothing is removed, unless it could not be started.

    :raises DrillFailed: no server here is new enough, or it does not start.
    """
    server = _choose(artifact)
    place = _place(scratch, str(artifact.get("source") or "database"))
    done = False
    try:
        _run_initdb(server, place)
        with _serving(server, place, artifact, keep=keep) as process:
            found = _prepared(artifact, place, process.pid, server, scratch, superuser=superuser)
            try:
                yield found
            finally:
                done = True
    finally:
        if not (keep and done):
            place.remove()


def _choose(artifact: Mapping[str, Any]) -> _Server:
    """Give the server of the backup's own major, else of the next newer one."""
    version = str((artifact.get("recreate") or {}).get("server_version") or "")
    wanted = int(version.partition(".")[0]) if version.partition(".")[0].isdecimal() else 0
    found = [
        _Server(each.major, each.folder)
        for each in installed_clients()
        if all((each.folder / name).exists() for name in ("initdb", "postgres"))
    ]
    fitting = [each for each in found if each.major >= wanted]
    if not fitting:
        there = f"there is {', '.join(str(each.major) for each in found)}" if found else "there is none"
        raise DrillFailed(
            f"a drill of this backup needs a PostgreSQL server {wanted or ''} or newer, and {there} here: install "
            f"the package postgresql-{wanted or '<major>'} (looked in {_looked_in()})",
            reason="ServerMissing",
        )
    return min(fitting, key=lambda each: each.major)


def _looked_in() -> str:
    return ", ".join(str(each) for each in folders()) or "the usual places"


def _place(scratch: Path, name: str) -> _Place:
    home = Path(tempfile.mkdtemp(prefix="avalanche-drill-"))
    if os.geteuid() != 0:
        return _Place(home, scratch / f"postgresql-{name}", {})
    import pwd  # noqa: PLC0415 - there is none on Windows, where this module is imported all the same

    known = {each.pw_name: each for each in pwd.getpwall()}
    user = next((known[each] for each in USERS if each in known), None)
    if user is None:
        home.rmdir()
        raise DrillFailed(
            "PostgreSQL does not run as root, and there is no user postgres or nobody here: run the drill as another user",
            reason="ServerMissing",
        )
    os.chown(home, user.pw_uid, user.pw_gid)
    # Beneath its home: the folders of root's scratch may be closed to it.
    return _Place(home, home / "data", {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []})


def _named_user(home: Path) -> dict[str, str]:
    """Give a name to a user that has none, as in a container: initdb asks for it."""
    if os.geteuid() == 0:
        return {}
    import pwd  # noqa: PLC0415 - as above

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        found = [each for pattern in _WRAPPERS for each in Path("/").glob(pattern[1:])]
        if not found:
            return {}
        passwd, group = home / "passwd", home / "group"
        passwd.write_text(f"postgres:x:{os.geteuid()}:{os.getegid()}::{home}:/bin/false\n")
        group.write_text(f"postgres:x:{os.getegid()}:\n")
        return {
            "LD_PRELOAD": str(found[0]),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(group),
        }
    return {}


def _run_initdb(server: _Server, place: _Place) -> None:
    command = [str(server.folder / "initdb"), f"--pgdata={place.data}", f"--username={_superuser(place)}", "--auth-local=trust",
               "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]  # fmt: skip
    ended = subprocess.run(
        command,
        env=place.environment,
        cwd=place.home,
        capture_output=True,
        text=True,
        check=False,
        **place.user,
    )
    if ended.returncode:
        raise _unusable(error_line(ended.stderr))


def _superuser(place: _Place) -> str:
    """Name the first superuser: no role of a dump is called so."""
    return place.home.name


@contextmanager
def _serving(
    server: _Server, place: _Place, artifact: Mapping[str, Any], *, keep: bool
) -> Iterator[subprocess.Popen[bytes]]:
    locks = int((artifact.get("statistics") or {}).get("locks") or 0)
    settings = {
        **_SETTINGS,
        "unix_socket_directories": str(place.home),
        "max_locks_per_transaction": str(64 + 2 * locks // _SESSIONS),
    }
    command = [str(server.folder / "postgres"), "-D", str(place.data)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log = place.home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=place.environment, cwd=place.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=None if keep else _dies_with_us(),  # noqa: PLW1509 - it is one call into libc
            **place.user,
        )  # fmt: skip
    ended = True
    try:
        _wait_until_it_listens(server, place, process, log)
        yield process
        ended = False
    finally:
        if ended or not keep:
            _stop(process)


def _dies_with_us() -> Callable[[], None] | None:
    """Give what lets the kernel end the server when we are killed, where it can."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT)) and None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it at once: nothing that it holds is needed."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_listens(
    server: _Server, place: _Place, process: subprocess.Popen[bytes], log: Path
) -> None:
    command = [str(server.folder / "pg_isready"), "--quiet", f"--host={place.home}", "--dbname=postgres"]
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(command, env=place.environment, check=False).returncode:
        if process.poll() is not None:
            raise _unusable(error_line(tail(log)))
        if time.monotonic() > deadline:
            raise _unusable(f"it does not listen after {START_SECONDS} seconds")
        time.sleep(0.05)


def _unusable(what: str) -> DrillFailed:
    return DrillFailed(f"the throwaway PostgreSQL server does not start: {what}", reason="ServerFailed")


def _prepared(
    artifact: Mapping[str, Any], place: _Place, pid: int, server: _Server, scratch: Path, *, superuser: bool
) -> Throwaway:
    """Make the role that restores, the roles that the dump names, and the database."""
    role = f"drill_{secrets.token_hex(4)}"
    recreate = artifact.get("recreate") or {}
    admin = _environment(place, scratch, _superuser(place), "postgres")
    more = "SUPERUSER" if superuser else "NOSUPERUSER"
    _execute(admin, [f"CREATE ROLE {role} LOGIN {more}", *_roles(recreate, role, more)])
    note = _create_database(admin, recreate, role)
    inside = _environment(place, scratch, _superuser(place), DATABASE)
    if not superuser:
        _execute(inside, [*_extensions(inside, recreate, role), *_grants(recreate)])
    source = _source(place, role, DATABASE)
    return Throwaway(
        source=source,
        version=query(_clients(), admin, "SELECT to_json(current_setting('server_version'))"),
        note=note,
        connect=f"{server.folder / 'psql'} --host={place.home} --username={role} {DATABASE}",
        stop=f"kill -QUIT {pid}; rm -r {place.home} {place.data}",
        environment=_environment(place, scratch, role, DATABASE),
    )


def _roles(recreate: Mapping[str, Any], role: str, more: str) -> Iterator[str]:
    """Make every role that owns or is granted something, and let the one that restores be each of them."""
    granted = {str(each) for each in recreate.get("roles") or ()}
    for each in sorted(granted | _owners(recreate)):
        if not each.startswith("pg_"):  # PostgreSQL's own are there
            yield f"CREATE ROLE {_quoted(each)} {more}"
            yield f"GRANT {_quoted(each)} TO {role}"


def _owners(recreate: Mapping[str, Any]) -> set[str]:
    owner = recreate.get("owner")
    return {str(each) for each in recreate.get("owners") or ()} | ({str(owner)} if owner else set())


def _grants(recreate: Mapping[str, Any]) -> Iterator[str]:
    """Let owners be given things: one that is a superuser where the backup comes from needs no grant there."""
    for each in sorted(_owners(recreate)):
        yield f"GRANT CREATE ON DATABASE {DATABASE} TO {_quoted(each)}"
        yield f"GRANT CREATE, USAGE ON SCHEMA public TO {_quoted(each)}"


def _create_database(admin: dict[str, str], recreate: Mapping[str, Any], role: str) -> str:
    """Make the database with encoding and locale of the original; a locale that is not here becomes C, and is noted."""
    encoding, owner = str(recreate.get("encoding") or "UTF8"), str(recreate.get("owner") or role)
    base = (
        f"CREATE DATABASE {DATABASE} OWNER {_quoted(owner)} TEMPLATE template0 ENCODING {_literal(encoding)}"
    )
    try:
        _execute(admin, [f"{base} {_locale(recreate)}"])
    except DrillFailed:
        _execute(admin, [f"{base} LC_COLLATE 'C' LC_CTYPE 'C'"])
        return f"the locale {recreate.get('locale') or recreate.get('collate')} is not here: C was taken"
    return ""


def _locale(recreate: Mapping[str, Any]) -> str:
    collate, ctype = recreate.get("collate") or "C", recreate.get("ctype") or "C"
    words = f"LC_COLLATE {_literal(str(collate))} LC_CTYPE {_literal(str(ctype))}"
    provider, locale = recreate.get("locale_provider"), recreate.get("locale")
    if provider == "icu" and locale:
        return f"{words} LOCALE_PROVIDER icu ICU_LOCALE {_literal(str(locale))}"
    if provider == "builtin" and locale:
        return f"{words} LOCALE_PROVIDER builtin BUILTIN_LOCALE {_literal(str(locale))}"
    return words


def _extensions(admin: dict[str, str], recreate: Mapping[str, Any], role: str) -> list[str]:
    """Make the extensions that only a superuser may, and let the role that restores fill their tables."""
    wanted = [str(each) for each in recreate.get("extensions") or ()]
    untrusted = query(
        _clients(), admin,
        "SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_available_extension_versions WHERE superuser AND NOT trusted",
    )  # fmt: skip
    made = [f"CREATE EXTENSION IF NOT EXISTS {_quoted(each)} CASCADE" for each in wanted if each in untrusted]
    return [*made, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"] if made else []


def _execute(environment: dict[str, str], statements: Sequence[str]) -> None:
    for each in statements:
        command = [_clients().tool("psql"), "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1",
                   f"--command={each}"]  # fmt: skip
        ended = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if ended.returncode:
            failure = explain(ended.stderr, "the throwaway database cannot be prepared")
            raise DrillFailed(failure.message, reason="ServerFailed")


def _source(place: _Place, role: str, database: str) -> PostgresqlSource:
    return PostgresqlSource(
        name="drill", host=str(place.home), database=database, username=role, ssl_mode="disable"
    )


def _environment(place: _Place, scratch: Path, role: str, database: str) -> dict[str, str]:
    return connection_environment(_source(place, role, database), scratch)


def _clients() -> Clients:
    return max(installed_clients())


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
