"""Drills: the newest good backup is restored into something that is thrown away, looked at, and nothing stays."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import layout
from avalanche_backup.errors import BackupMissing, DrillFailed, VerificationFailed
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.request import DrillRequest, Newest, Query
from avalanche_contract.result import Drilled, Result
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.storage import DirectoryStorage
from tests.integration import releases, servers
from tests.integration.conftest import source_of
from tests.integration.runs import NONCE, PREFIX, WRITER, Runner
from tests.integration.servers import Postgres

PLAIN = """
CREATE TABLE samples (id bigserial PRIMARY KEY, site text NOT NULL);
INSERT INTO samples (site) SELECT 'site ' || n FROM generate_series(1, 1000) AS n;
CREATE VIEW sites AS SELECT DISTINCT site FROM samples;
"""


def drill(runner: Runner, *queries: Query, **more: Any) -> Result:
    newest = Newest(places=runner.places, writer=WRITER, identity=runner.identity)
    request = DrillRequest(**{"nonce": NONCE, "backup": newest, "queries": queries, **more})
    return run(request, runner.context())


def outcome(runner: Runner) -> Drilled:
    return runner.reported.drills[-1]


def left_behind(scratch: Path) -> list[str]:
    """Name what a drill left: folders, and servers."""
    folders = [str(each) for each in Path(tempfile.gettempdir()).glob("avalanche-drill-*")]
    folders += [
        str(each) for each in scratch.glob("*") if each.name.startswith(("postgresql-", "sqlite-", "files-"))
    ]
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return folders + [
        line for line in listed.splitlines() if f"{tempfile.gettempdir()}/" in line and "postgres" in line
    ]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a temporary folder that a server which may not run as root can enter, and see that it is left empty."""
    with tempfile.TemporaryDirectory(prefix="drills-") as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield
        assert left_behind(tmp_path / "scratch") == []


@pytest.fixture
def plain(
    postgres: Postgres, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> PostgresqlSource:
    """Give a database that needs no superuser."""
    name = f"drill {request.node.name}"[:60]
    postgres.psql("postgres", f'CREATE DATABASE "{name}"')
    postgres.psql(name, PLAIN)
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)
    return source_of(postgres, name)


@pytest.mark.parametrize("form", ["Plain", "Custom", "Directory"])
def test_a_database_is_restored_counted_and_asked(runner: Runner, plain: PostgresqlSource, form: str) -> None:
    made = runner.backup(plain.model_copy(update={"format": form}))
    result = drill(
        runner,
        Query(sql="SELECT count(*) FROM samples;", expect="1000"),
        Query(sql="SELECT max(id) FROM samples", expect=">= 1000"),
        Query(
            sql="WITH s AS (SELECT 1) SELECT current_setting('transaction_read_only') FROM s -- read",
            expect="on",
        ),
    )
    told = outcome(runner)
    assert (result.reason, result.backup_id) == ("Drilled", made.backup_id)
    assert "1 tables in PostgreSQL" in result.message and "3 of 3 questions" in result.message
    assert told.succeeded and told.asked == 3
    assert told.duration_seconds >= told.restore_seconds > 0
    assert set(told.steps) == {"Checking", "Starting", "Restoring", "Comparing", "Asking"}
    key = layout.drill_key(PREFIX, made.backup_id or "")
    with runner.store.read(key) as chunks:
        assert json.loads(b"".join(chunks))["succeeded"] is True


def test_a_database_that_only_a_superuser_can_restore_is_drilled_as_one(
    runner: Runner, database: PostgresqlSource
) -> None:
    runner.backup(database)
    with pytest.raises(DrillFailed) as failed:
        drill(runner)
    assert failed.value.reason == "RestoreRolledBack"
    assert "superuser" in failed.value.message
    drill(runner, Query(sql="SELECT count(*) FROM taxonomy.assignments", expect="5000"), superuser=True)


def test_an_answer_that_is_not_as_expected_names_question_and_answer_and_the_others_are_asked_all_the_same(
    runner: Runner, plain: PostgresqlSource
) -> None:
    runner.backup(plain)
    with pytest.raises(DrillFailed) as failed:
        drill(
            runner,
            Query(sql="SELECT count(*) FROM samples", expect="> 5000"),
            Query(sql="SELECT site FROM samples WHERE id = 1", expect="site 1"),
            Query(sql="SELECT 1/0", expect="1"),
            Query(sql="SELECT id FROM samples", expect="1"),
            Query(sql="SELECT id FROM samples WHERE id = 0", expect="!= 1"),
            Query(sql="SELECT id, site FROM samples WHERE id = 1", expect="1"),
            Query(sql="DELETE FROM samples RETURNING 1", expect="1"),
            Query(sql=r"\! touch /tmp/canary-of-a-drill", expect="1"),
        )
    told = outcome(runner)
    assert (told.succeeded, told.reason, told.asked) == (False, "AssertionFailed", 8)
    assert "'SELECT count(*) FROM samples' gave '1000', and not '> 5000'" in failed.value.message
    assert "division by zero" in failed.value.message
    assert "more than one row" in failed.value.message
    assert "it gives no row" in failed.value.message
    assert "site 1" not in failed.value.message
    assert not Path("/tmp/canary-of-a-drill").exists()


def test_a_question_that_takes_too_long_is_broken_off(runner: Runner, plain: PostgresqlSource) -> None:
    runner.backup(plain)
    began = time.monotonic()
    with pytest.raises(DrillFailed, match="statement timeout"):
        drill(runner, Query(sql="SELECT pg_sleep(100)", expect=""), query_seconds=1)
    assert time.monotonic() - began < 60


def test_a_dump_runs_no_program_on_the_throwaway_server(
    runner: Runner, plain: PostgresqlSource, postgres: Postgres, tmp_path: Path
) -> None:
    Path(tempfile.gettempdir()).chmod(0o777)
    canary = Path(tempfile.gettempdir()) / "canary"
    postgres.psql(
        plain.database,
        f"CREATE FUNCTION ran() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN COPY samples TO PROGRAM 'cat > {canary}'; RETURN true; END $$;"
        "CREATE MATERIALIZED VIEW caught AS SELECT ran()",
    )
    canary.unlink()
    runner.backup(plain)
    with pytest.raises(DrillFailed, match=r"superuser|permission denied|pg_execute_server_program"):
        drill(runner)
    assert not canary.exists()


def test_roles_that_own_and_are_granted_things_are_there_and_nothing_of_them_is_kept(
    runner: Runner, plain: PostgresqlSource, postgres: Postgres
) -> None:
    postgres.psql("postgres", 'CREATE ROLE "the owner"; CREATE ROLE drill_reader')
    postgres.psql(
        plain.database, 'ALTER TABLE samples OWNER TO "the owner"; GRANT SELECT ON samples TO drill_reader'
    )
    runner.backup(plain)
    drill(
        runner,
        Query(sql="SELECT tableowner FROM pg_tables WHERE tablename = 'samples'", expect="the owner"),
        Query(sql="SELECT has_table_privilege('drill_reader', 'samples', 'SELECT')", expect="true"),
    )


def test_owners_of_things_in_each_others_schemas_are_given_them_in_every_schema(
    runner: Runner, plain: PostgresqlSource, postgres: Postgres
) -> None:
    postgres.psql("postgres", "CREATE ROLE first_owner; CREATE ROLE second_owner")
    postgres.psql(
        plain.database,
        "CREATE SCHEMA one AUTHORIZATION first_owner; CREATE SCHEMA two AUTHORIZATION second_owner;"
        "CREATE TABLE one.t (n int); CREATE TABLE two.t (n int);"
        "ALTER TABLE one.t OWNER TO second_owner; ALTER TABLE two.t OWNER TO first_owner",
    )
    runner.backup(plain)
    drill(
        runner,
        Query(sql="SELECT string_agg(tableowner, ' ' ORDER BY schemaname) FROM pg_tables WHERE tablename = 't'",
              expect="second_owner first_owner"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "part", [{"schemas": ("lab",)}, {"exclude_tables": ("samples",)}], ids=["schemas", "excluded"]
)
def test_a_part_is_drilled_with_its_own_roles(
    runner: Runner, plain: PostgresqlSource, postgres: Postgres, part: dict[str, Any]
) -> None:
    roles = ("lab_owner", "lab_reader", "lab_future", "of_samples")
    postgres.psql("postgres", "".join(f"DROP ROLE IF EXISTS {each}; CREATE ROLE {each};" for each in roles))
    postgres.psql(
        plain.database,
        "DROP VIEW sites; CREATE SCHEMA lab; CREATE TABLE lab.t (n int); ALTER TABLE lab.t OWNER TO lab_owner; GRANT SELECT (n) ON lab.t TO lab_reader;"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA lab GRANT SELECT ON TABLES TO lab_future; ALTER TABLE samples OWNER TO of_samples",
    )
    made = runner.backup(plain.model_copy(update=part))
    recreate = runner.metadata(made).artifacts[0].recreate
    named = {*recreate["owners"], *recreate["roles"]}
    assert named - {"avalanche", "postgres"} == {"lab_owner", "lab_reader", "lab_future"}
    drill(runner, Query(sql="SELECT tableowner FROM pg_tables WHERE schemaname = 'lab'", expect="lab_owner"))
    postgres.psql(plain.database, f"DROP OWNED BY {', '.join(roles)} CASCADE")
    postgres.psql("postgres", "".join(f"DROP ROLE {each};" for each in roles))


@pytest.mark.parametrize(
    "schema", ["public", "of its own", 'drill\'s "odd" one'], ids=["public", "own", "odd"]
)
def test_an_untrusted_extension_is_where_it_was(
    runner: Runner, plain: PostgresqlSource, postgres: Postgres, schema: str
) -> None:
    """The dump makes it only where it is missing, and then names its functions by that schema."""
    quoted = '"' + schema.replace('"', '""') + '"'
    postgres.psql(
        plain.database,
        f"CREATE SCHEMA IF NOT EXISTS {quoted}; CREATE EXTENSION dblink WITH SCHEMA {quoted};"
        f"CREATE VIEW connections AS SELECT {quoted}.dblink_get_connections()",
    )
    runner.backup(plain)
    where = "SELECT extnamespace::regnamespace FROM pg_extension WHERE extname = 'dblink'"
    drill(
        runner,
        Query(sql=where, expect=postgres.psql(plain.database, where)),
        Query(sql="SELECT count(*) FROM connections", expect="1"),
    )


def test_an_extension_that_is_not_installed_is_named(runner: Runner, plain: PostgresqlSource) -> None:
    made = runner.backup(plain)
    _change_metadata(runner, made, lambda each: each["recreate"]["extensions"].append("postgis"))
    with pytest.raises(DrillFailed) as failed:
        drill(runner)
    assert failed.value.reason == "ExtensionsMissing"
    assert "postgis" in failed.value.message


def test_fewer_tables_than_the_backup_counts_are_no_success(runner: Runner, plain: PostgresqlSource) -> None:
    made = runner.backup(plain)
    _change_metadata(runner, made, lambda each: each["statistics"].update(tables=7))
    with pytest.raises(DrillFailed, match="1 tables came back, and the backup counts 7"):
        drill(runner)


def test_a_backup_of_a_newer_release_names_the_server_that_is_missing(
    runner: Runner, plain: PostgresqlSource
) -> None:
    made = runner.backup(plain)
    _change_metadata(runner, made, lambda each: each["recreate"].update(server_version="99.1"))
    with pytest.raises(DrillFailed, match=r"PostgreSQL server 99 or newer.*postgresql-99") as failed:
        drill(runner)
    assert failed.value.reason == "ServerMissing"


def test_a_damaged_backup_is_found_before_anything_is_restored(
    runner: Runner, plain: PostgresqlSource
) -> None:
    made = runner.backup(plain)
    artifact = runner.metadata(made).artifacts[0]
    path = Path(runner.storage.root) / PREFIX / "database" / artifact.file  # type: ignore[union-attr]
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)
    with pytest.raises(VerificationFailed):
        drill(runner)
    assert not outcome(runner).succeeded
    assert "Restoring" not in outcome(runner).steps


def test_the_newest_good_backup_of_all_places_is_drilled(tmp_path: Path, plain: PostgresqlSource) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first, second = (DirectoryStorage(name=each, root=str(tmp_path / each)) for each in ("first", "second"))
    stale = Runner(first, tmp_path / "scratch")
    stale.backup(plain, run_of=stale.manual(datetime(2024, 1, 1, tzinfo=UTC), "old"))
    fresh = Runner(second, tmp_path / "scratch")
    newer = fresh.backup(plain, run_of=fresh.manual(datetime(2025, 1, 1, tzinfo=UTC), "new"))
    fresh.backup(plain, run_of=fresh.manual(datetime(2999, 1, 1, tzinfo=UTC), "of a clock that is wrong"))
    both = Runner(first, tmp_path / "scratch", others=(second,))
    assert drill(both).backup_id == newer.backup_id
    assert outcome(both).storage == "second"


def test_without_a_good_backup_a_drill_says_so(runner: Runner) -> None:
    with pytest.raises(BackupMissing, match="no good backup"):
        drill(runner)


def test_sqlite_is_restored_checked_and_asked(runner: Runner, tmp_path: Path) -> None:
    path = _sqlite(tmp_path / "app.sqlite")
    runner.backup(SqliteSource(name="app", path=str(path)))
    result = drill(runner, Query(source="app", sql="SELECT count(*) FROM t", expect="3"))
    assert "integrity_check ok" in result.message
    for sql in (
        "SELECT n FROM t",
        f"ATTACH '{path}' AS other",
        "DELETE FROM t RETURNING 3",
        "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
        "SELECT n FROM t WHERE n IS NULL",
    ):
        with pytest.raises(DrillFailed) as failed:
            drill(runner, Query(sql=sql, expect="3"), query_seconds=1)
        assert failed.value.reason == "AssertionFailed"
    assert path.exists()


def test_files_are_compared_with_the_index_entry_by_entry(runner: Runner, tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "results").mkdir(parents=True)
    (root / "results" / "a.csv").write_text("1,2\n" * 1000)
    (root / "results" / "link").symlink_to("a.csv")
    (root / "results" / "closed").write_text("secret")
    (root / "results" / "closed").chmod(0)
    os.link(root / "results" / "a.csv", root / "hard")
    made = runner.backup(FilesSource(name="data", root=str(root)), kind="files")
    result = drill(runner)
    assert "as in the index" in result.message
    with pytest.raises(DrillFailed, match="the backup has the databases none"):
        drill(runner, Query(sql="SELECT 1", expect="1"))
    folder = Path(runner.storage.root) / PREFIX / "files"  # type: ignore[union-attr]
    assert (folder / f"{made.backup_id}_drill.json").exists()


def test_a_drill_that_fails_leaves_nothing_of_what_it_was_to_keep(
    runner: Runner, plain: PostgresqlSource, tmp_path: Path
) -> None:
    made = runner.backup(
        plain, SqliteSource(name="app", path=str(_sqlite(tmp_path / "app.sqlite"))), kind="full"
    )
    _change_metadata(runner, made, lambda each: each["statistics"].update(tables={"t": 7}), of="app")
    keep = tmp_path / "kept"
    keep.mkdir()
    with pytest.raises(DrillFailed):
        drill(runner, keep=str(keep))
    assert list(keep.iterdir()) == []


def test_what_differs_from_the_index_is_named(tmp_path: Path) -> None:
    from avalanche_backup.sources import index

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_bytes(b"b")
    (tmp_path / "tree" / "link").symlink_to(".")
    entries = [{"path": "a", "type": "file", "size": 1, "sha256": "0" * 64}]
    for entry, why in (
        (entries[0], "another SHA-256"),
        (entries[0] | {"size": 2}, "1 bytes"),
        (entries[0] | {"path": "gone"}, "did not come back"),
        (entries[0] | {"type": "directory"}, "is no directory"),
        (entries[0] | {"path": "../../etc/passwd"}, "cannot be read"),
        (entries[0] | {"path": "link/a"}, "did not come back"),
        (entries[0] | {"type": "device"}, "cannot be read"),
    ):
        with pytest.raises(DrillFailed, match=why):
            index.compare(tmp_path / "tree", iter([json.dumps(entry).encode() + b"\n"]))


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_drill_that_is_killed_leaves_no_server(
    runner: Runner, plain: PostgresqlSource, tmp_path: Path, end: signal.Signals
) -> None:
    from avalanche_contract.names import ENV_REQUEST
    from avalanche_contract.wire import dump_request

    runner.backup(plain)
    newest = Newest(places=runner.places, writer=WRITER)
    request = DrillRequest(
        nonce=NONCE, backup=newest, scratch=str(tmp_path / "scratch"), queries=(Query(sql="SELECT pg_sleep(600)", expect=""),),
        query_seconds=900,
    )  # fmt: skip
    environment = {
        **os.environ, ENV_REQUEST: dump_request(request), "TMPDIR": tempfile.gettempdir(),
        "AVALANCHE_TERMINATION_LOG": str(tmp_path / "result"),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "avalanche_backup", "job"], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"Asking"' in line:
            break
    process.send_signal(end)
    assert process.wait(60) != 0
    process.stdout.close()
    deadline = time.monotonic() + 30
    while any("postgres" in each and " " in each for each in left_behind(tmp_path / "scratch")):
        assert time.monotonic() < deadline, left_behind(tmp_path / "scratch")
        time.sleep(0.1)
    if end is signal.SIGTERM:
        assert process.returncode == 143
        assert json.loads((tmp_path / "result").read_text())["reason"] == "Terminated"
    else:  # nobody was there to remove the folder
        for each in Path(tempfile.gettempdir()).glob("avalanche-drill-*"):
            subprocess.run(["rm", "-r", each], check=True)


def test_what_does_not_fit_into_the_folder_is_refused_before_anything_is_read(
    runner: Runner, plain: PostgresqlSource
) -> None:
    runner.backup(plain)
    with pytest.raises(DrillFailed, match=r"may hold 1 MiB, .*verification\.drill\.scratch") as failed:
        drill(runner, scratch_bytes=2**20)
    assert failed.value.reason == "ScratchTooSmall" and outcome(runner).steps == {}


def test_a_newer_server_takes_the_backup_of_an_older_one(
    runner: Runner, plain: PostgresqlSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.backup(plain)
    with releases.installed(18) as programs:
        monkeypatch.setenv("AVALANCHE_POSTGRESQL_CLIENTS", str(programs))
        result = drill(runner, Query(sql="SELECT count(*) FROM samples", expect="1000"))
    assert "in PostgreSQL 18" in result.message


def _sqlite(path: Path) -> Path:
    with sqlite3.connect(path) as made:
        made.executescript("CREATE TABLE t (n); INSERT INTO t VALUES (1), (2), (NULL);")
    return path


def _change_metadata(runner: Runner, made: Result, change: Any, of: str | None = None) -> None:
    key = layout.metadata_key(PREFIX, made.backup_id or "")
    path = Path(runner.storage.root) / key  # type: ignore[union-attr]
    document = json.loads(path.read_text())
    change(next(each for each in document["artifacts"] if of in (None, each["source"])))
    path.write_text(json.dumps(document))
