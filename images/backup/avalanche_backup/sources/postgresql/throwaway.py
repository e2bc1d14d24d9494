"""A throwaway PostgreSQL server: made for one restore, reached by a socket alone, gone afterwards whatever happens.

A dump is restored by a role that is no superuser, so that nothing in it can run a program (``COPY … FROM PROGRAM``,
functions in C): that role is a member of the database's owner and of every other role that the dump names. What only a
superuser may make then fails, as it would for such a role on a real server.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_backup.errors import DrillFailed, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.postgresql.clients import Clients, installed_clients
from avalanche_backup.sources.postgresql.connection import (
    connection_environment,
    error_line,
    execute,
    query,
)
from avalanche_backup.sources.postgresql.questions import contents
from avalanche_backup.sources.postgresql.scope import USER_SCHEMA, Scope, identifier, literal
from avalanche_backup.sources.postgresql.server import (
    STOP_SECONDS,
    Place,
    Programs,
    choose,
    place_for,
    run_initdb,
    serving,
)
from avalanche_contract.source import PostgresqlSource

DATABASE = "restored"
KNOWS_PROVIDERS = 15
"""From this major on, a database says whose locale it has."""
_SCHEMAS = f"SELECT coalesce(json_agg(nspname ORDER BY nspname), '[]') FROM pg_namespace WHERE {USER_SCHEMA}"  # noqa: S608
_UNTRUSTED = "SELECT coalesce(json_agg(DISTINCT name), '[]') FROM pg_available_extension_versions WHERE superuser AND NOT trusted"

_ANSWER = (
    "SELECT json_build_object('found', EXISTS (SELECT FROM asked), 'value', (SELECT * FROM asked)::text)"
)


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
        asked = f"WITH asked AS (\n{sql.strip().rstrip(';')}\n)"
        command = [_clients().tool("psql"), "--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--quiet",
                   "--set=ON_ERROR_STOP=1", f"--command={asked} {_ANSWER}"]  # fmt: skip
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
            answer = json.loads(ended.stdout)
            found, value = answer["found"], answer["value"]
        except (ValueError, TypeError, KeyError):
            raise DrillFailed("it is more than one statement", reason="QueryFailed") from None
        if not found:
            raise DrillFailed("it gives no row", reason="QueryFailed")
        return None if value is None else str(value)


@contextmanager
def throwaway(
    artifact: Mapping[str, Any], scratch: Path, *, superuser: bool = False, keep: bool = False
) -> Iterator[Throwaway]:
    """Run a server for one artifact, with a database like the one that it is of.

    ``scratch`` is where its data goes. With ``keep`` it runs on, and nothing is removed, unless something failed.

    :raises DrillFailed: no server here is new enough, or it does not start.
    """
    programs = choose(artifact)
    place = place_for(scratch, str(artifact.get("source") or "database"))
    left = False
    try:
        run_initdb(programs, place)
        with serving(programs, place, artifact, keep=keep) as process:
            found = _prepared(artifact, place, process.pid, programs, superuser=superuser)
            yield found
        left = keep
    finally:
        if not left:
            place.remove()


def _prepared(
    artifact: Mapping[str, Any], place: Place, pid: int, programs: Programs, *, superuser: bool
) -> Throwaway:
    """Make the role that restores, the roles that the dump names, and the database."""
    role = f"drill_{secrets.token_hex(4)}"
    recreate = artifact.get("recreate") or {}
    admin = _environment(place, place.superuser, "postgres")
    more = "SUPERUSER" if superuser else "NOSUPERUSER"
    _execute(admin, [f"CREATE ROLE {role} LOGIN {more}", *_roles(recreate, role, more)])
    note = _create_database(admin, recreate, role, programs.major)
    inside = _environment(place, place.superuser, DATABASE)
    if not superuser:
        _execute(inside, _extensions(recreate, role, query(_clients(), inside, _UNTRUSTED)))
        _execute(inside, _grants(recreate, role, query(_clients(), inside, _SCHEMAS)))
    source = _source(place, role, DATABASE)
    return Throwaway(
        source=source,
        version=query(_clients(), admin, "SELECT to_json(current_setting('server_version'))"),
        note=note,
        connect=f"{programs.folder / 'psql'} --host={place.home} --username={role} {DATABASE}",
        stop=f"kill -QUIT {pid}; rm -r {place.home} {place.data}",
        environment=_environment(place, role, DATABASE),
    )


def _roles(recreate: Mapping[str, Any], role: str, more: str) -> Iterator[str]:
    """Make every role that owns or is granted something, and let the one that restores be each of them."""
    granted = {str(each) for each in recreate.get("roles") or ()}
    for each in sorted(granted | _owners(recreate)):
        if not each.startswith("pg_"):  # PostgreSQL's own are there
            yield f"CREATE ROLE {identifier(each)} {more}"
            yield f"GRANT {identifier(each)} TO {role}"


def _owners(recreate: Mapping[str, Any]) -> set[str]:
    owner = recreate.get("owner")
    return {str(each) for each in recreate.get("owners") or ()} | ({str(owner)} if owner else set())


def _grants(recreate: Mapping[str, Any], role: str, schemas: Iterable[str]) -> Iterator[str]:
    """Let owners be given things in every schema: one that is a superuser where the backup comes from needs no grant there.

    Of those schemas that are not there yet, the role that restores makes each, and PostgreSQL then gives these grants.
    """
    for each in schemas:  # of extensions, whose tables the dump fills
        yield f"GRANT CREATE, USAGE ON SCHEMA {identifier(each)} TO {role}"
        yield f"GRANT ALL ON ALL TABLES IN SCHEMA {identifier(each)} TO {role}"
    for owner in map(identifier, sorted(_owners(recreate))):
        yield f"GRANT CREATE ON DATABASE {DATABASE} TO {owner}"
        yield f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT CREATE, USAGE ON SCHEMAS TO {owner}"
        yield from (f"GRANT CREATE, USAGE ON SCHEMA {identifier(each)} TO {owner}" for each in schemas)


def _create_database(admin: dict[str, str], recreate: Mapping[str, Any], role: str, major: int) -> str:
    """Make the database with encoding and locale of the original; a locale that is not here becomes C, and is noted."""
    encoding, owner = str(recreate.get("encoding") or "UTF8"), str(recreate.get("owner") or role)
    base = f"CREATE DATABASE {DATABASE} OWNER {identifier(owner)} TEMPLATE template0 ENCODING {literal(encoding)}"
    try:
        _execute(admin, [f"{base} {_locale(recreate, major)}"])
    except DrillFailed:
        _execute(admin, [f"{base} LC_COLLATE 'C' LC_CTYPE 'C'"])
        return f"the locale {recreate.get('locale') or recreate.get('collate')} is not here: C was taken"
    return ""


def _locale(recreate: Mapping[str, Any], major: int) -> str:
    collate, ctype = recreate.get("collate") or "C", recreate.get("ctype") or "C"
    words = f"LC_COLLATE {literal(str(collate))} LC_CTYPE {literal(str(ctype))}"
    provider, locale = recreate.get("locale_provider"), recreate.get("locale")
    if provider == "icu" and locale:
        return f"{words} LOCALE_PROVIDER icu ICU_LOCALE {literal(str(locale))}"
    if provider == "builtin" and locale:
        return f"{words} LOCALE_PROVIDER builtin BUILTIN_LOCALE {literal(str(locale))}"
    return f"{words} LOCALE_PROVIDER libc" if major >= KNOWS_PROVIDERS else words


def _extensions(recreate: Mapping[str, Any], role: str, untrusted: Iterable[str]) -> Iterator[str]:
    """Make the extensions that only a superuser may, each in the schema that it was in, which the role that restores owns.

    Older backups do not name the schema, and it is ``public`` then.
    """
    known = {each["name"]: each["schema"] for each in recreate.get("extension_schemas") or ()}
    only_a_superuser = set(untrusted)
    # In the order in which they were made: what one needs is there before it, in a schema of its own.
    for name in dict.fromkeys([*known, *map(str, recreate.get("extensions") or ())]):
        if name not in only_a_superuser:
            continue
        schema = str(known.get(name, "public"))
        if not schema.startswith("pg_"):
            yield f"CREATE SCHEMA IF NOT EXISTS {identifier(schema)} AUTHORIZATION {role}"
        yield f"CREATE EXTENSION IF NOT EXISTS {identifier(name)} WITH SCHEMA {identifier(schema)} CASCADE"


def _execute(environment: dict[str, str], statements: Iterable[str]) -> None:
    if not (sql := ";\n".join(statements)):
        return
    try:
        execute(_clients(), environment, sql)
    except (SourceInvalid, SourceUnavailable) as failure:
        raise DrillFailed(
            f"the throwaway database cannot be prepared: {failure.message}", reason="ServerFailed"
        ) from None


def _source(place: Place, role: str, database: str) -> PostgresqlSource:
    return PostgresqlSource(
        name="drill", host=str(place.home), database=database, username=role, ssl_mode="disable"
    )


def _environment(place: Place, role: str, database: str) -> dict[str, str]:
    return connection_environment(_source(place, role, database), place.home)


def _clients() -> Clients:
    return max(installed_clients())
