"""What servers and clients differ in: releases, encodings, the lock table, connections that break, messages."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from avalanche_backup import layout
from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql import PostgresqlDatabase
from avalanche_backup.sources.postgresql.clients import ENV_CLIENTS
from avalanche_contract.exitcodes import ExitCode
from avalanche_contract.result import Result
from avalanche_contract.source import PostgresqlSource
from tests.integration import servers
from tests.integration.conftest import FINGERPRINT, source_of
from tests.integration.runs import PREFIX, Runner
from tests.integration.servers import Postgres

_NUMBERS = itertools.count(1)
_MANY = "DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE format('CREATE TABLE t%s (a int PRIMARY KEY, b text)', {start} + i); END LOOP; END $$"
Clients = Callable[..., Path]
New = Callable[..., PostgresqlSource]


@pytest.fixture
def new(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> New:
    """Give a maker of databases: their SQL, and what else CREATE DATABASE is told."""
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)

    def make(sql: str = "SELECT 1", options: str = "") -> PostgresqlSource:
        name = f"server {next(_NUMBERS)}"
        postgres.psql("postgres", f'CREATE DATABASE "{name}" {options}')
        postgres.psql(name, sql)
        return source_of(postgres, name)

    return make


@pytest.fixture
def clients(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """Give a maker of clients of another release, which are then the only ones here beside those that are named."""

    def make(version: str, setting: str = "", *beside: Path) -> Path:
        folder = tmp_path / version
        _write_clients(postgres, folder, version, setting)
        monkeypatch.setenv(ENV_CLIENTS, ":".join(map(str, (folder, *beside))))
        return folder

    return make


# --- releases ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["Plain", "Custom"])
def test_what_a_newer_pg_dump_writes_comes_back_into_an_older_server(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, clients: Clients, form: str
) -> None:
    clients(_newer(postgres, 2), "SET transaction_timeout = 0;")
    source = database.model_copy(update={"format": form})
    said = "CREATE TABLE said (line text); INSERT INTO said VALUES ('SET transaction_timeout = 0;')"
    postgres.psql(source.database, said)
    before = postgres.psql(source.database, FINGERPRINT)
    made = runner.backup(source)
    postgres.psql(source.database, "DROP TABLE samples CASCADE; TRUNCATE said")
    runner.restore(made, source)
    assert postgres.psql(source.database, FINGERPRINT) == before
    assert postgres.psql(source.database, "SELECT line FROM said") == "SET transaction_timeout = 0;"


@pytest.mark.parametrize("form", ["Plain", "Custom"])
def test_the_command_by_hand_restores_into_the_older_server_that_it_came_from(
    runner: Runner, postgres: Postgres, new: New, clients: Clients, form: str
) -> None:
    folder = clients(_newer(postgres, 2), "SET transaction_timeout = 0;")
    made = runner.backup(
        new("CREATE TABLE t (n int); INSERT INTO t VALUES (6)").model_copy(update={"format": form})
    )
    target = new()
    command = runner.metadata(made).artifacts[0].restore_command.replace("<database>", f"'{target.database}'")
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "PGHOST": target.host, "PGPORT": str(target.port),
                   "PGUSER": "avalanche", "PGPASSWORD": servers.PASSWORD}  # fmt: skip
    stored = Path(runner.store.locate(f"{PREFIX}database/{made.backup_id}")).parent
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=stored, env=environment, check=True)
    assert postgres.psql(target.database, "SELECT n FROM t") == "6"


def test_clients_of_which_a_program_is_missing_are_passed_over(
    runner: Runner, postgres: Postgres, new: New, clients: Clients
) -> None:
    whole = clients(_newer(postgres, 2))
    clients(_newer(postgres, 1), "", whole).joinpath("psql").unlink()
    assert runner.metadata(runner.backup(new("CREATE TABLE t ()"))).tools["pg_dump"] == _newer(postgres, 2)


@pytest.mark.parametrize("how", [("Plain", 1), ("Custom", 1), ("Directory", 1), ("Directory", 2)])
def test_clients_without_restrict_restore_nothing_and_safe_older_ones_do(
    runner: Runner, postgres: Postgres, new: New, clients: Clients, how: tuple[str, int]
) -> None:
    """Of an archive as well, and by several jobs, where no psql takes part: pg_restore of that age has the same holes."""
    source = new("CREATE TABLE t (n int); INSERT INTO t VALUES (3)").model_copy(update={"format": how[0]})
    made, target = runner.backup(source), new().model_copy(update={"jobs": how[1]})
    old = clients("17.2")
    with pytest.raises(RestoreRefused, match=r"psql 17\.2 would run commands") as refused:
        runner.restore(made, target)
    assert refused.value.reason == "ClientTooOld"
    clients("16.2", "", old, postgres.binaries)
    runner.restore(made, target)
    assert postgres.psql(target.database, "SELECT n FROM t") == "3"


def test_a_dump_of_a_newer_pg_dump_than_every_client_is_refused_by_the_plan(
    runner: Runner, postgres: Postgres, new: New, clients: Clients
) -> None:
    newest, newer = _newer(postgres, 2), _newer(postgres, 1)
    clients(newest)
    made, target = runner.backup(new("CREATE TABLE t ()")), new()
    clients(newer)
    with pytest.raises(RestoreRefused, match=rf"written by pg_dump {newest[:2]} .* {newer}") as refused:
        runner.plan(made, target)
    assert refused.value.reason == "ClientTooOld"


# --- encodings and what a database is ------------------------------------------------------------------
@pytest.mark.parametrize("form", ["Plain", "Custom"])
@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_in_another_encoding_comes_back_byte_by_byte(
    runner: Runner, postgres: Postgres, new: New, encoding: str, form: str
) -> None:
    options = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    text = r"E'caf\xe9'" if encoding == "SQL_ASCII" else "chr(233) || 't' || chr(233)"
    source = new(f"CREATE TABLE t (a text); INSERT INTO t VALUES ({text})", options).model_copy(
        update={"format": form}
    )
    stored = "SELECT encode(convert_to(a, getdatabaseencoding()), 'hex') FROM t"
    before = postgres.psql(source.database, stored)
    made, elsewhere = runner.backup(source), new(options=options)
    postgres.psql(source.database, "DELETE FROM t")
    for target in (source, elsewhere):
        runner.restore(made, target)
        assert postgres.psql(target.database, stored) == before != ""


def test_the_metadata_says_how_the_database_is_made_anew(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new("CREATE TABLE t ()", "LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' TEMPLATE template0")
    postgres.psql("postgres", "DROP ROLE IF EXISTS reader; CREATE ROLE reader")
    postgres.psql(
        source.database,
        f'GRANT CONNECT ON DATABASE "{source.database}" TO reader WITH GRANT OPTION;'
        f'REVOKE TEMPORARY ON DATABASE "{source.database}" FROM PUBLIC',
    )
    recreate = runner.metadata(runner.backup(source)).artifacts[0].recreate
    assert recreate["locale_provider"] == "icu" and recreate["locale"] == "de-DE"
    version = f"SELECT datcollversion FROM pg_database WHERE datname = '{source.database}'"
    assert recreate["collation_version"] == postgres.psql(source.database, version) != ""
    assert {"grantee": "reader", "privilege": "CONNECT", "grantable": True} in recreate["grants"]
    assert [each["privilege"] for each in recreate["grants"] if each["grantee"] == "PUBLIC"] == ["CONNECT"]


# --- the lock table ------------------------------------------------------------------------------------
def test_more_objects_than_the_server_can_lock_are_warned_of_and_refused(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new("CREATE TABLE t ()")
    for _ in range(4):
        postgres.psql(source.database, "SELECT count(lo_create(0)) FROM generate_series(1, 5000)")
    made = runner.backup(source)
    assert any("set max_locks_per_transaction" in each for each in runner.metadata(made).warnings)
    with pytest.raises(
        RestoreRefused, match=r"set max_locks_per_transaction of the server to \d+ or more"
    ) as refused:
        runner.plan(made, new())
    assert refused.value.reason == "TooManyObjects"


def test_a_few_thousand_objects_come_back_without_a_word(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(_MANY.format(count=500, start=0))
    made = runner.backup(source)
    assert runner.metadata(made).warnings == []
    postgres.psql(source.database, "DROP TABLE t1")
    assert "500 tables are back" in runner.restore(made, source).message


def test_a_server_that_runs_out_of_locks_all_the_same_is_rolled_back_with_the_remedy(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source, target = new(), new("CREATE TABLE precious ()")
    for start in (0, 900, 1800, 2700):
        postgres.psql(source.database, _MANY.format(count=900, start=start))
    made = runner.backup(source)
    with pytest.raises(RestoreFailed, match=r"raise max_locks_per_transaction.*as it was"):
        runner.restore(made, target)
    assert postgres.psql(target.database, "SELECT to_regclass('precious')") == "precious"


# --- approvals -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("precious", [
    "CREATE FUNCTION precious() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE TYPE precious AS ENUM ('a')",
    "CREATE SCHEMA precious", "CREATE FOREIGN DATA WRAPPER precious",
])  # fmt: skip
def test_a_database_without_a_table_still_wants_approval_for_what_it_holds(
    runner: Runner, new: New, precious: str
) -> None:
    made, target = runner.backup(new("CREATE TABLE t ()")), new(precious)
    plan = runner.plan(made, target)
    assert plan.targets[0].state == "HoldsData" and plan.needs_approval
    with pytest.raises(RestoreRefused):
        runner.execute(made, target, None)


def test_an_extension_alone_is_an_empty_database(runner: Runner, new: New) -> None:
    made, target = (
        runner.backup(new("CREATE TABLE t ()")),
        new("CREATE EXTENSION pgcrypto; CREATE EXTENSION hstore"),
    )
    assert runner.plan(made, target).targets[0].state == "Empty"


@pytest.mark.parametrize(
    "more", ["CREATE TABLE zz_precious ()", "CREATE FUNCTION zz() RETURNS int LANGUAGE sql AS 'SELECT 1'"]
)
def test_a_new_table_among_a_thousand_asks_again(
    runner: Runner, postgres: Postgres, new: New, more: str
) -> None:
    made, target = runner.backup(new("CREATE TABLE t ()")), new(_MANY.format(count=510, start=0))
    approved = runner.plan(made, target).digest
    postgres.psql(target.database, more)
    with pytest.raises(RestoreRefused) as refused:
        runner.execute(made, target, approved)
    assert refused.value.reason == "PlanChanged"


# --- connections and messages --------------------------------------------------------------------------
def test_a_server_that_goes_away_after_the_commit_is_told_as_a_restore_that_was_committed(
    runner: Runner, postgres: Postgres, new: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new("CREATE TABLE t (n int); INSERT INTO t VALUES (4)")
    made, target = runner.backup(source), new()
    check = PostgresqlDatabase._check

    def away(self: PostgresqlDatabase, artifact: dict[str, object]) -> int:
        self._environment["PGPORT"] = "1"
        return check(self, artifact)

    monkeypatch.setattr(PostgresqlDatabase, "_check", away)
    with pytest.raises(RestoreFailed, match=r"was restored .* and committed") as failed:
        runner.restore(made, target)
    assert failed.value.exit_code == ExitCode.RESTORE_FAILED and failed.value.reason == "RestoredUnchecked"
    assert postgres.psql(target.database, "SELECT n FROM t") == "4"


_DIES = """CREATE TABLE t (n int);
CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die();
INSERT INTO t VALUES (1);
"""


@pytest.mark.parametrize("ending", ["", "SET CONSTRAINTS ALL IMMEDIATE;\n"], ids=["at the commit", "before"])
def test_a_session_that_is_ended_during_a_restore_is_said_to_be_rolled_back(
    new: New, tmp_path: Path, ending: str
) -> None:
    target = PostgresqlDatabase(new(), tmp_path)
    with pytest.raises(RestoreFailed, match="Everything was rolled back") as failed:
        target.restore(
            Incoming(iter([(_DIES + ending).encode()]), {"format": "Plain"}, tmp_path, lambda _: None)
        )
    assert failed.value.reason == "RestoreRolledBack"


def test_what_the_server_refused_is_told_and_not_what_it_noticed(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(
        "DROP ROLE IF EXISTS gone; CREATE ROLE gone; CREATE TABLE t (n int); ALTER TABLE t OWNER TO gone;"
        "CREATE SCHEMA s; CREATE TABLE s.failed_jobs (n int); CREATE TABLE s.errors (n int); CREATE TABLE aside ()"
    ).model_copy(update={"exclude_tables": ("aside",)})
    made = runner.backup(source)
    _forget_roles(runner, made)
    postgres.psql(source.database, "DROP OWNED BY gone; DROP ROLE gone")
    with pytest.raises(RestoreFailed, match=r'^psql stopped: .*role "gone" does not exist'):
        runner.restore(made, source)


def _forget_roles(runner: Runner, made: Result) -> None:
    """Leave roles out of the metadata, as older releases did of a part: they are not compared before the restore."""
    path = Path(runner.storage.root) / layout.metadata_key(PREFIX, made.backup_id or "")  # type: ignore[union-attr]
    document = json.loads(path.read_text())
    document["artifacts"][0]["recreate"].update(owners=[], roles=[])
    path.write_text(json.dumps(document))


def test_a_server_without_a_client_that_is_whole_is_named(
    runner: Runner, new: New, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_CLIENTS, str(tmp_path))
    with pytest.raises(SourceInvalid, match=r"pg_dump, pg_restore and psql") as raised:
        runner.backup(new("CREATE TABLE t ()"))
    assert raised.value.reason == "ClientMissing"


def _newer(postgres: Postgres, by: int) -> str:
    """Name a release that is so many majors newer than the server here."""
    return f"{int(postgres.binaries.parent.name) + by}.99"


def _write_clients(postgres: Postgres, folder: Path, version: str, setting: str) -> None:
    """Make clients that say they are of another release; ``setting`` is a line that it writes among its settings."""
    folder.mkdir()
    (folder / "psql").symlink_to(postgres.binaries / "psql")
    adding = f"sed '1,40s/^SET lock_timeout = 0;$/&\\n{setting}/'" if setting else "cat"
    for tool in ("pg_dump", "pg_restore"):
        script = f'[ "$1" = --version ] && echo "{tool} (PostgreSQL) {version}" && exit\n'
        (folder / tool).write_text(
            f'#!/bin/bash\nset -o pipefail\n{script}{postgres.binaries}/{tool} "$@" | {adding}\n'
        )
        (folder / tool).chmod(stat.S_IRWXU)
