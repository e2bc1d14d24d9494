"""A Swap on every release: other providers of a locale, another tablespace, a disk that fills up, sessions that come back, what is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from avalanche_backup.errors import RestoreFailed, RestoreRefused
from avalanche_backup.sources.postgresql.clients import ENV_CLIENTS
from avalanche_contract.result import Result
from avalanche_contract.source import PostgresqlSource
from tests.integration import releases, servers
from tests.integration.conftest import EDNA, FINGERPRINT, source_of
from tests.integration.runs import Runner
from tests.integration.servers import PASSWORD, Postgres, Session
from tests.integration.sources.test_postgresql_faults import small
from tests.integration.test_swaps import change, names

ABOUT = """SELECT to_jsonb(d) - ARRAY['oid', 'datfrozenxid', 'datminmxid', 'datname'] FROM pg_database AS d WHERE datname = current_database();
SELECT spcname FROM pg_tablespace JOIN pg_database AS d ON dattablespace = pg_tablespace.oid WHERE datname = current_database()"""
"""Everything that the catalog of this release says of a database, but for what counts on."""


@dataclass(frozen=True)
class Server:
    """One release that runs."""

    major: int
    running: Postgres

    def database(self, name: str, options: str = "", sql: str = EDNA) -> PostgresqlSource:
        """Make a database."""
        self.running.psql("postgres", f'CREATE DATABASE "{name}" {options}')
        self.running.psql(name, sql)
        return source_of(self.running, name)

    def ask(self, source: PostgresqlSource, sql: str) -> str:
        """Ask a database."""
        return self.running.psql(source.database, sql)


@pytest.fixture(scope="module", params=[15, *releases.SUITES])
def server(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Server]:
    major: int = request.param
    with ExitStack() as stack:
        if major == 15:
            yield Server(major, postgres)
            return
        folder = stack.enter_context(servers.server_folder())
        programs = stack.enter_context(releases.installed(major))
        yield Server(major, stack.enter_context(servers.postgres(folder, programs)))


@pytest.fixture(autouse=True)
def clients(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)
    monkeypatch.setenv(ENV_CLIENTS, str(server.running.binaries))


@contextmanager
def tablespace(server: Server, name: str, size: str) -> Iterator[Path]:
    """Give the disk of a tablespace; all databases in it go with it."""
    with tempfile.TemporaryDirectory() as folder, small(Path(folder) / "space", size) as disk:
        Path(folder).chmod(0o711)
        owner = server.running.data.stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        disk.chmod(0o700)
        server.running.psql("postgres", f"CREATE TABLESPACE {name} LOCATION '{disk}'")
        try:
            yield disk
        finally:
            inside = f"FROM pg_database AS d JOIN pg_tablespace AS t ON t.oid = dattablespace WHERE spcname = '{name}'"
            server.running.psql(
                "postgres", f"SELECT format('DROP DATABASE %I WITH (FORCE)', datname) {inside} \\gexec"
            )
            server.running.psql("postgres", f"CHECKPOINT; DROP TABLESPACE {name}")


KINDS = {
    "libc": "LOCALE 'C.UTF-8'",
    "icu": "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'",
    "icu with rules": "LOCALE_PROVIDER icu ICU_LOCALE 'und' ICU_RULES '&V << w <<< W'",
    "builtin": "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'",
    "latin1": "ENCODING 'LATIN1' LOCALE 'C'",
}
SINCE = {"icu with rules": 16, "builtin": 17}


@pytest.mark.parametrize("kind", KINDS)
def test_a_database_changes_places_with_one_of_the_same_kind_in_the_same_tablespace(
    runner: Runner, server: Server, kind: str
) -> None:
    options = KINDS[kind] if server.major >= SINCE.get(kind, 0) else KINDS["libc"]
    with tablespace(server, "aside", "90m"):
        source = server.database(
            f"swap {kind}", f"TEMPLATE template0 {options} TABLESPACE aside CONNECTION LIMIT 33"
        )
        data, about = server.ask(source, FINGERPRINT), server.ask(source, ABOUT)
        assert about.endswith("\naside")
        made = runner.backup(source)
        change(server.running, source.database)
        changed = server.ask(source, "SELECT count(*) FROM pg_class WHERE oid >= 16384")
        runner.restore(made, source, strategy="Swap", keep_previous=True)
        assert server.ask(source, FINGERPRINT) == data and server.ask(source, ABOUT) == about
        runner.undo(source)
        assert server.ask(source, "SELECT count(*) FROM pg_class WHERE oid >= 16384") == changed
        assert server.ask(source, ABOUT) == about


def test_a_disk_that_fills_up_during_a_swap_leaves_the_database_as_it_was_and_gives_the_room_back(
    runner: Runner, server: Server
) -> None:
    with tablespace(server, "tight", "60m") as disk:
        source = server.database("swap into a full disk", "TABLESPACE tight")
        server.ask(
            source,
            "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 60) AS filler FROM generate_series(1, 4000) AS n",
        )
        made = runner.backup(source)
        server.running.psql("postgres", "CHECKPOINT")
        empty = int(server.running.psql("postgres", "SELECT pg_database_size('template0')"))
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - empty - 3_000_000))
        data, about, others = (
            server.ask(source, FINGERPRINT),
            server.ask(source, ABOUT),
            names(server.running),
        )
        before = shutil.disk_usage(disk).free
        with pytest.raises(RestoreFailed, match=r"disk is full.*which is as it was") as failed:
            runner.restore(made, source, strategy="Swap")
        assert failed.value.reason == "RestoreRolledBack"
        assert server.ask(source, FINGERPRINT) == data and server.ask(source, ABOUT) == about
        server.running.psql("postgres", "CHECKPOINT")
        assert names(server.running) == others and shutil.disk_usage(disk).free > before - 1_000_000
        (disk / "filler").unlink()
        runner.restore(made, source, strategy="Swap")
        assert server.ask(source, FINGERPRINT) == data


def test_sessions_that_come_back_all_the_time_see_the_old_database_or_the_new_one(
    runner: Runner, server: Server
) -> None:
    source = server.database(
        "swap under load",
        sql="CREATE TABLE a AS SELECT 'new' AS word; CREATE TABLE b AS SELECT 'new' AS word",
    )
    made = runner.backup(source)
    server.ask(source, "UPDATE a SET word = 'old'; UPDATE b SET word = 'old'")
    seen, over = set(), threading.Event()

    def ask_again_and_again() -> None:
        while not over.is_set():
            with Session(server.running, source.database) as session:
                seen.add(session.run("SELECT a.word || ' ' || b.word FROM a, b"))

    asking = [threading.Thread(target=ask_again_and_again) for _ in range(3)]
    with Session(server.running, source.database) as idle:
        idle.run("BEGIN; SELECT count(*) FROM a")
        for each in asking:
            each.start()
        try:
            runner.restore(made, source, strategy="Swap")
            with Session(server.running, source.database) as after:
                assert after.run("SELECT word FROM a") == "new"
        finally:
            over.set()
            for each in asking:
                each.join()
    words = {each for each in seen if each in ("old old", "new new", "old new", "new old")}
    assert "old old" in words and words <= {"old old", "new new"}


def test_a_role_and_an_extension_that_are_missing_are_found_before_anything_is_made(
    runner: Runner, server: Server
) -> None:
    source = server.database("swap without its role")
    folder = Path(
        server.running.psql("postgres", "SELECT setting FROM pg_config WHERE name = 'SHAREDIR'"), "extension"
    )
    extension, role = f"only_here_{server.major}", f"gone_{server.major}"
    control, script = folder / f"{extension}.control", folder / f"{extension}--1.sql"
    control.write_text("default_version = '1'\ntrusted = true\n")
    script.write_text("CREATE FUNCTION of_the_extension() RETURNS int LANGUAGE sql AS 'SELECT 1';")
    try:
        server.ask(
            source, f"CREATE ROLE {role}; CREATE EXTENSION {extension}; ALTER TABLE samples OWNER TO {role}"
        )
        made = runner.backup(source)
        server.ask(source, f"ALTER TABLE samples OWNER TO avalanche; DROP ROLE {role}")
        others = names(server.running)
        _refused(runner, made, source, "RolesMissing", role)
        server.running.psql("postgres", f"CREATE ROLE {role}")
        runner.restore(made, source, strategy="Swap")
        server.ask(
            source,
            f"ALTER TABLE samples OWNER TO avalanche; DROP EXTENSION {extension}; DROP ROLE IF EXISTS {role}; CREATE ROLE {role}",
        )
    finally:
        control.unlink()
        script.unlink()
    data = server.ask(source, FINGERPRINT)
    _refused(runner, made, source, "ExtensionsMissing", extension)
    assert server.ask(source, FINGERPRINT) == data and names(server.running) == others


def _refused(runner: Runner, made: Result, source: PostgresqlSource, reason: str, named: str) -> None:
    with pytest.raises(RestoreRefused, match=named) as refused:
        runner.plan(made, source, strategy="Swap")
    assert refused.value.reason == reason
