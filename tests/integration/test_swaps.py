"""Restores beside the target, switched in one step, and taken back: each compared with an oracle that knows none of our code."""

from __future__ import annotations

import errno
import json
import os
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid, VerificationFailed
from avalanche_backup.sources import journal
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.files_swap import FilesSwap
from avalanche_backup.sources.reaching import remove_tree
from avalanche_backup.sources.tree import MARKER
from avalanche_contract.request import Compression
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from tests.integration.conftest import FINGERPRINT
from tests.integration.runs import Runner
from tests.integration.servers import PASSWORD, Postgres, Session
from tests.integration.sources.test_files import oracle

ODD = 'it\'s "odd" -- ;\n🧬 $x$ \\ a%s'
"""A name with quotes, spaces, a comment, a line's end, an emoji and a backslash."""
ABOUT = """SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datlocprovider, datconnlimit, datacl,
  shobj_description(oid, 'pg_database'), datallowconn FROM pg_database WHERE datname = current_database();
SELECT coalesce(setrole::regrole::text, '-'), unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database
  WHERE datname = current_database()) ORDER BY 1, 2;
SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension ORDER BY 1;"""


def names(postgres: Postgres) -> list[str]:
    """Name all databases but the server's own."""
    found = postgres.psql(
        "postgres",
        "SELECT json_agg(datname ORDER BY datname) FROM pg_database WHERE oid >= 16384 AND datname <> 'postgres'",
    )
    return list(json.loads(found or "[]"))


def quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def renamed(postgres: Postgres, database: PostgresqlSource, name: str) -> PostgresqlSource:
    postgres.psql("postgres", f"ALTER DATABASE {quoted(database.database)} RENAME TO {quoted(name)}")
    return database.model_copy(update={"database": name})


def change(postgres: Postgres, name: str) -> None:
    postgres.psql(name, "DROP TABLE samples CASCADE; CREATE TABLE rubbish (); SELECT lo_unlink(4242)")


# --- PostgreSQL ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["Plain", "Custom", "Directory"])
def test_a_database_is_switched_with_all_that_hangs_on_it_and_switched_back(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    source = renamed(postgres, database, f"{ODD} {form}").model_copy(
        update={"format": form, "jobs": 2 if form == "Directory" else 1}
    )
    name = quoted(source.database)
    role = quoted(f"reader's {form}")
    postgres.psql(
        "postgres",
        f"CREATE ROLE {role}; ALTER DATABASE {name} CONNECTION LIMIT 77; REVOKE ALL ON DATABASE {name} FROM PUBLIC; "
        f"GRANT CONNECT ON DATABASE {name} TO {role} WITH GRANT OPTION; ALTER DATABASE {name} SET search_path TO \"$user\", 'a \"b', public; "
        f"ALTER ROLE {role} IN DATABASE {name} SET work_mem TO '7MB'; ALTER DATABASE {name} SET edna.note TO 'it''s, \"so\"'; "
        f"COMMENT ON DATABASE {name} IS 'the team''s\n\nown'",
    )  # fmt: skip
    data, about = postgres.psql(source.database, FINGERPRINT), postgres.psql(source.database, ABOUT)
    made = runner.backup(source)
    change(postgres, source.database)
    changed = postgres.psql(
        source.database, "SELECT json_agg(relname ORDER BY relname) FROM pg_class WHERE oid >= 16384"
    )
    others = set(names(postgres))
    runner.restore(made, source, strategy="Swap", keep_previous=True)
    assert postgres.psql(source.database, FINGERPRINT) == data
    assert postgres.psql(source.database, ABOUT) == about
    kept = set(names(postgres)) - others
    assert len(kept) == 1
    assert (
        postgres.psql(
            "postgres",
            f"SELECT datallowconn FROM pg_database WHERE datname = '{kept.pop().replace(chr(39), chr(39) * 2)}'",
        )
        == "f"
    )
    runner.undo(source, restore_uid="request")
    assert (
        postgres.psql(
            source.database, "SELECT json_agg(relname ORDER BY relname) FROM pg_class WHERE oid >= 16384"
        )
        == changed
    )
    assert postgres.psql(source.database, ABOUT) == about
    assert set(names(postgres)) == others


def test_a_swap_that_keeps_nothing_leaves_nothing_and_cannot_be_undone(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    data, others = postgres.psql(database.database, FINGERPRINT), names(postgres)
    made = runner.backup(database)
    change(postgres, database.database)
    plan = runner.plan(made, database, strategy=None)
    assert plan.targets[0].strategy == "Swap"
    assert "all or nothing" in plan.targets[0].strategy_reason
    runner.restore(made, database, strategy=None)
    assert postgres.psql(database.database, FINGERPRINT) == data
    assert (
        postgres.psql(database.database, "SELECT count(*) FROM pg_stats WHERE tablename = 'samples'") != "0"
    )
    assert names(postgres) == others
    with pytest.raises(RestoreRefused) as refused:
        runner.undo(database)
    assert refused.value.reason == "NothingKept"


def test_sessions_are_ended_at_the_switch_and_not_before(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    with Session(postgres, database.database) as session:
        assert session.run("BEGIN; SELECT count(*) FROM samples") == "5000"
        runner.restore(made, database, strategy="Swap")
        assert "terminating connection" in session.run("SELECT 1")
    assert postgres.psql(database.database, "SELECT count(*) FROM samples") == "5000"


def test_a_second_restore_keeps_no_second_state_before_the_first_is_undone(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    runner.restore(made, database, keep_previous=True, strategy=None)
    with pytest.raises(RestoreRefused) as refused:
        runner.plan(made, database, keep_previous=True, strategy=None, request_uid="another")
    assert refused.value.reason == "PreviousKept"
    runner.restore(made, database, strategy="Swap", request_uid="another")
    assert "it was before" in runner.undo(database).message
    postgres.psql("postgres", "SELECT 1")


def test_an_approval_of_a_swap_is_none_of_a_restore_in_place(
    runner: Runner, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    approved = runner.plan(made, database, strategy="Swap").digest
    for other in ({"strategy": "InPlace"}, {"strategy": "Swap", "keep_previous": True}):
        with pytest.raises(RestoreRefused) as refused:
            runner.execute(made, database, approved, **other)
        assert refused.value.reason == "PlanChanged"


def test_the_plan_of_an_undo_shows_what_goes_and_who_uses_it(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    runner.restore(made, database, strategy="Swap", keep_previous=True)
    with Session(postgres, database.database) as session:
        session.run("SELECT 1")
        runner.undo(database)
    [target] = runner.reported.plans[-1].targets
    assert "what the restore brought: " in target.found and " tables, views and sequences" in target.found
    assert target.used_by == ("1 sessions of avalanche",)


def test_the_plan_of_an_undo_shows_how_much_goes_and_how_much_comes_back(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, lite: SqliteSource
) -> None:
    of_database, of_file = runner.backup(database), runner.backup(lite)
    postgres.psql(
        database.database,
        "CREATE TABLE large AS SELECT repeat(md5(n::text), 9) FROM generate_series(1, 9000) AS n",
    )
    sql(lite, "CREATE TABLE large AS SELECT zeroblob(1000000)")
    before = int(postgres.psql(database.database, "SELECT pg_database_size(current_database())"))
    size = Path(lite.path).stat().st_size
    for made, source, there in ((of_database, database, before), (of_file, lite, size)):
        runner.restore(made, source, strategy="Swap", keep_previous=True)
        runner.undo(source)
        [target] = runner.reported.plans[-1].targets
        assert 0.9 * there < target.source_bytes < 1.1 * there
        assert f", {target.source_bytes:,} bytes) takes its place" in target.action
        now = int(target.found.removesuffix(" bytes").rpartition(", ")[2].replace(",", ""))
        assert 0 < now < there - 900_000


def test_an_approval_of_an_undo_counts_for_one_request_alone(
    runner: Runner, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    runner.restore(made, database, strategy="Swap", keep_previous=True)
    with pytest.raises(RestoreRefused) as refused:
        runner.undo(database, approved_by="another")
    assert refused.value.reason == "PlanChanged"
    runner.undo(database)


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        ('SELECT pg_create_logical_replication_slot(\'s\' || floor(extract(epoch FROM clock_timestamp()))::text, \'test_decoding\')', "logical"),
        ("CREATE SUBSCRIPTION nobody CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)", "subscriptions"),
    ],
    ids=["slot", "subscription"],
)  # fmt: skip
def test_what_hangs_on_the_very_database_makes_it_a_restore_in_place(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, prepare: str, why: str
) -> None:
    if why == "logical" and postgres.psql("postgres", "SHOW wal_level") != "logical":
        prepare = "CREATE SUBSCRIPTION other CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"
        why = "subscriptions"
    made = runner.backup(database)
    postgres.psql(database.database, prepare)
    plan = runner.plan(made, database, strategy=None)
    assert plan.targets[0].strategy == "InPlace"
    assert why in plan.targets[0].strategy_reason
    with pytest.raises(RestoreRefused) as refused:
        runner.plan(made, database, strategy="Swap")
    assert refused.value.reason == "SwapNotPossible"
    with pytest.raises(RestoreRefused, match="keepPrevious"):
        runner.plan(made, database, strategy=None, keep_previous=True)


def owned(postgres: Postgres, database: PostgresqlSource, *rights: str) -> PostgresqlSource:
    """Give a database of the least rights: its owner, who may create databases where ``rights`` says so."""
    owner = f"owner of {database.database}"
    postgres.psql("postgres", f"CREATE ROLE {quoted(owner)} LOGIN PASSWORD '{PASSWORD}' {' '.join(rights)}")
    postgres.psql("postgres", f"CREATE DATABASE {quoted(owner)} OWNER {quoted(owner)}")
    postgres.psql(
        owner,
        f"SET ROLE {quoted(owner)}; CREATE TABLE samples AS SELECT n FROM generate_series(1, 100) AS n; CREATE EXTENSION pgcrypto",
    )
    return database.model_copy(update={"database": owner, "username": owner})


def test_the_owner_with_createdb_and_nothing_else_swaps_and_undoes(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    source = owned(postgres, database, "CREATEDB")
    made = runner.backup(source)
    postgres.psql(source.database, "DELETE FROM samples")
    runner.restore(made, source, strategy="Swap", keep_previous=True)
    assert (
        postgres.psql(source.database, "SELECT count(*), current_setting('is_superuser') FROM samples")
        == "100|on"
    )
    assert (
        postgres.psql(source.database, "SELECT tableowner FROM pg_tables WHERE tablename = 'samples'")
        == source.username
    )
    postgres.psql(
        source.database, "CREATE EXTENSION pg_stat_statements"
    )  # which its owner could not bring along
    runner.undo(source)
    assert postgres.psql(source.database, "SELECT count(*) FROM samples") == "0"


def test_rights_that_are_missing_are_found_by_the_plan(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    source = owned(postgres, database)
    made = runner.backup(source)
    assert "CREATEDB" in runner.plan(made, source, strategy=None).targets[0].strategy_reason
    postgres.psql("postgres", f"ALTER ROLE {quoted(source.database)} CREATEDB")
    assert runner.plan(made, source, strategy=None).targets[0].strategy == "Swap"
    with Session(postgres, source.database) as session:  # a superuser's
        session.run("SELECT 1")
        assert "sessions of avalanche" in runner.plan(made, source, strategy=None).targets[0].strategy_reason
    postgres.psql("postgres", f"ALTER DATABASE {quoted(source.database)} SET log_statement TO 'all'")
    assert "log_statement" in runner.plan(made, source, strategy=None).targets[0].strategy_reason
    postgres.psql("postgres", f"ALTER DATABASE {quoted(source.database)} RESET log_statement")
    postgres.psql(source.database, "CREATE EXTENSION pg_stat_statements")
    assert "not trusted" in runner.plan(made, source, strategy=None).targets[0].strategy_reason


def test_a_part_of_a_database_is_never_swapped(runner: Runner, database: PostgresqlSource) -> None:
    part = database.model_copy(update={"schemas": ("taxonomy",), "exclude_tables": ()})
    made = runner.backup(database.model_copy(update={"exclude_tables": ("readings*",)}))
    assert "a part" in runner.plan(made, part, strategy=None).targets[0].strategy_reason


def test_a_restore_that_fails_beside_leaves_the_database_alone_and_nothing_behind(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    role = f"gone with {database.database}"
    postgres.psql("postgres", f"CREATE ROLE {quoted(role)}")
    postgres.psql(database.database, "CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 1 / (SELECT n FROM divisor); END $$;"
                  "CREATE TABLE divisor AS SELECT 1 AS n; CREATE TABLE aaa (x int DEFAULT 1); INSERT INTO aaa VALUES (1); CREATE INDEX ON aaa ((public.fails()));")  # fmt: skip
    made = runner.backup(database)
    data, others = postgres.psql(database.database, FINGERPRINT), names(postgres)
    with pytest.raises(RestoreFailed, match="as it was"):
        runner.restore(made, database, strategy="Swap")
    assert postgres.psql(database.database, FINGERPRINT) == data
    assert names(postgres) == others


def test_what_is_not_known_of_the_new_database_is_told_of_that_one_and_not_of_the_target(
    runner: Runner, database: PostgresqlSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avalanche_backup.sources.postgresql.swap import PostgresqlSwap

    def unclear(*_: object) -> int:
        raise RestoreFailed("The server did not say whether it had committed", reason="OutcomeUnknown")

    made = runner.backup(database)
    monkeypatch.setattr(PostgresqlSwap, "_fill", unclear)
    with pytest.raises(RestoreFailed, match=r"That was beside .*, which is as it was") as failed:
        runner.restore(made, database, strategy="Swap")
    assert failed.value.reason == "RestoreRolledBack"


def test_an_approval_of_an_undo_holds_for_what_stands_there_and_for_nothing_else(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, lite: SqliteSource, tree: FilesSource
) -> None:
    changes: dict[str, Callable[[], object]] = {
        "postgresql": lambda: postgres.psql(database.database, "CREATE TABLE since (n int)"),
        "sqlite": lambda: sql(lite, "CREATE TABLE since (n)"),
        "files": lambda: (Path(tree.root) / "since").write_text("x"),
    }
    for source in (database, lite, tree):
        made = runner.backup(source, kind="files" if source is tree else "database")
        runner.restore(made, source, strategy="Swap", keep_previous=True)
        with pytest.raises(RestoreRefused) as refused:
            runner.undo(source, meanwhile=changes[source.kind])
        assert refused.value.reason == "PlanChanged"
        runner.undo(source)


# --- SQLite ----------------------------------------------------------------------------------------------
@pytest.fixture(params=["wal", "delete"])
def lite(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteSource:
    path = tmp_path / "it's -- \n🧬.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.execute(f"PRAGMA journal_mode={request.param}")
        made.executescript("CREATE TABLE t (n); INSERT INTO t VALUES (1)")
    path.chmod(0o640)
    return SqliteSource(name="db", path=str(path))


def sql(source: SqliteSource, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(source.path)) as database, database:
        return database.execute(text).fetchall()


def beside(source: SqliteSource) -> list[str]:
    place = Path(source.path)
    return sorted(each.name for each in place.parent.iterdir() if each.is_file() and each != place)


def test_a_sqlite_file_is_switched_and_switched_back(runner: Runner, lite: SqliteSource) -> None:
    made = runner.backup(lite)
    mode = sql(lite, "PRAGMA journal_mode")
    sql(lite, "INSERT INTO t VALUES (2)")
    runner.restore(made, lite, strategy=None, keep_previous=True)
    assert sql(lite, "SELECT n FROM t") == [(1,)]
    assert sql(lite, "PRAGMA journal_mode") == mode
    assert Path(lite.path).stat().st_mode & 0o777 == 0o640
    runner.undo(lite, restore_uid="request")
    assert sql(lite, "SELECT n FROM t") == [(1,), (2,)]
    assert sql(lite, "PRAGMA journal_mode") == mode
    assert beside(lite) == []


def test_a_sqlite_database_that_somebody_has_open_is_not_taken_from_under_him(
    runner: Runner, lite: SqliteSource
) -> None:
    made = runner.backup(lite)
    mode = sql(lite, "PRAGMA journal_mode")
    with closing(sqlite3.connect(lite.path, isolation_level=None)) as other:
        other.execute("SELECT * FROM t").fetchall()
        if mode == [("wal",)]:
            with pytest.raises(RestoreRefused) as refused:
                runner.restore(made, lite, strategy="Swap")
            assert refused.value.reason == "TargetBusy"
        else:
            runner.restore(made, lite, strategy="Swap")
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                other.execute("INSERT INTO t VALUES (9)")
    assert sql(lite, "SELECT n FROM t") == [(1,)]
    assert beside(lite) == []


def test_a_sqlite_database_is_restored_in_place_where_nobody_says_otherwise(
    runner: Runner, lite: SqliteSource
) -> None:
    made = runner.backup(lite)
    inode = Path(lite.path).stat().st_ino
    runner.restore(made, lite, strategy=None)
    assert Path(lite.path).stat().st_ino == inode


def test_a_switch_that_fails_leaves_the_journal_mode_as_it_was(
    runner: Runner, lite: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avalanche_backup.sources import sqlite_swap

    made = runner.backup(lite)
    mode = sql(lite, "PRAGMA journal_mode")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_swap, "_sync", _fails)
        with pytest.raises(RestoreFailed, match="It is as it was"):
            runner.restore(made, lite, strategy="Swap")
    assert sql(lite, "PRAGMA journal_mode") == mode
    runner.restore(made, lite, strategy="Swap", keep_previous=True)
    (kept,) = Path(lite.path).parent.glob(".*.avalanche-before-*")
    assert sql(lite.model_copy(update={"path": str(kept)}), "PRAGMA journal_mode") == mode


def _fails(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_damaged_sqlite_file_is_kept_and_comes_back(runner: Runner, lite: SqliteSource) -> None:
    made = runner.backup(lite)
    Path(lite.path).write_bytes(b"rubbish" * 1000)
    runner.restore(made, lite, strategy="Swap", keep_previous=True)
    assert sql(lite, "SELECT n FROM t") == [(1,)]
    runner.undo(lite)
    assert Path(lite.path).read_bytes() == b"rubbish" * 1000


# --- files -----------------------------------------------------------------------------------------------
@pytest.fixture
def tree(tmp_path: Path) -> FilesSource:
    root = tmp_path / "tree"
    (root / "data" / "sub" / "deep").mkdir(parents=True)
    for path in ("a", "data/b", "data/sub/c", "data/sub/deep/d", "data/" + ODD.replace("/", "")):
        (root / path).write_text(f"first {path}")
    Path(os.fsdecode(bytes(root) + b"/data/\xff\xfe")).write_bytes(b"no encoding")
    (root / "data" / "link").symlink_to("../a")
    os.link(root / "a", root / "data" / "hard")
    (root / "data" / "closed").mkdir()
    (root / "data" / "closed" / "in").write_text("closed")
    (root / "data" / "closed").chmod(0o555)
    (root / "gone").mkdir()
    return FilesSource(name="files", root=str(root))


def alter(tree: FilesSource) -> None:
    """Change a tree in every way: content, kinds, modes, what is there."""
    root = Path(tree.root)
    (root / "a").unlink()
    (root / "data" / "b").write_text("second")
    (root / "data" / "sub" / "c").unlink()
    (root / "data" / "sub" / "c").symlink_to("nowhere")
    (root / "data" / "link").unlink()
    (root / "data" / "link").mkdir()
    (root / "data" / "later").write_text("made since")
    (root / "data" / "sub").chmod(0o700)
    (root / "gone").rmdir()
    (root / "gone").write_text("a file now")


def test_files_take_their_places_and_give_them_back(runner: Runner, tree: FilesSource) -> None:
    root = Path(tree.root)
    wanted = oracle(root)
    made = runner.backup(tree, kind="files")
    alter(tree)
    before = oracle(root)
    plan = runner.plan(made, tree, strategy=None)
    assert plan.targets[0].strategy == "Swap"
    runner.restore(made, tree, strategy=None, keep_previous=True)
    kept = next(root.glob(".avalanche-previous-*"))
    here = {
        path: facts for path, facts in oracle(root).items() if not path.startswith(b"/" + kept.name.encode())
    }
    assert here == {**wanted, b"/data/later": before[b"/data/later"]}
    with pytest.raises(RestoreRefused) as refused:
        runner.plan(made, tree, strategy="InPlace")
    assert refused.value.reason == "PreviousKept"
    again = runner.backup(tree, kind="files")
    assert runner.metadata(again).artifacts[0].statistics["entries"] == len(here)
    runner.undo(tree, restore_uid="request")
    assert oracle(root) == before


def test_both_strategies_leave_the_same_files(runner: Runner, tree: FilesSource, tmp_path: Path) -> None:
    made = runner.backup(tree, kind="files")
    found = []
    for strategy in ("Swap", "InPlace"):
        target = tmp_path / strategy
        (target / "data").mkdir(parents=True)
        (target / "data" / "other").write_text("stays")
        os.utime(target / "data" / "other", ns=(1, 1))
        (target / "data" / "b").write_text("old")
        runner.restore(made, tree.model_copy(update={"root": str(target)}), strategy=strategy)
        found.append(oracle(target))
    assert found[0] == found[1]


@pytest.mark.parametrize("algorithm", ["Gzip", "Zstd", "None"])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.999], ids=["begin", "middle", "end"])
def test_files_are_read_once_and_damage_that_is_found_meanwhile_touches_none(
    runner: Runner, tree: FilesSource, tmp_path: Path, algorithm: str, where: float
) -> None:
    (Path(tree.root) / "data" / "large").write_bytes(random.Random(1).randbytes(3_000_000))
    made = runner.backup(tree, kind="files", compression=Compression(algorithm=algorithm))
    alter(tree)
    before = oracle(Path(tree.root))
    [path] = (tmp_path / "volume").rglob(f"{made.backup_id}.tar*")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[int(len(damaged) * where)] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(VerificationFailed, match="The target is untouched"):
        runner.restore(made, tree, strategy="Swap")
    assert oracle(Path(tree.root)) == before
    path.write_bytes(whole)
    runner.reported.phases.clear()
    runner.restore(made, tree, strategy="Swap")
    assert "Checking" not in runner.reported.phases
    assert (Path(tree.root) / "data" / "b").read_text() == "first data/b"


def test_a_part_of_the_files_is_switched_alone(runner: Runner, tree: FilesSource) -> None:
    root = Path(tree.root)
    wanted = oracle(root)
    made = runner.backup(tree, kind="files")
    (root / "data" / "b").write_text("stays as it is")
    (root / "data" / "sub" / "c").write_text("second")
    (root / "data").chmod(0o750)
    before = oracle(root)
    runner.restore(made, tree, paths=("data/sub",), strategy="Swap", keep_previous=True)
    after = {path: facts for path, facts in oracle(root).items() if b".avalanche-" not in path}
    assert after == {**before, b"/data/sub/c": wanted[b"/data/sub/c"]}
    runner.undo(tree)
    assert oracle(root) == before


def test_a_folder_that_holds_something_where_a_file_comes_is_not_moved_away(
    runner: Runner, tree: FilesSource
) -> None:
    root = Path(tree.root)
    made = runner.backup(tree, kind="files")
    (root / "a").unlink()
    (root / "a").mkdir()
    (root / "a" / "precious").write_text("x")
    before = oracle(root)
    with pytest.raises(RestoreFailed) as failed:
        runner.restore(made, tree, strategy="Swap")
    assert failed.value.reason == "FolderInTheWay"
    assert "as it was" in failed.value.message
    assert oracle(root) == before


def test_a_folder_whose_switch_was_killed_is_not_backed_up_before_it_is_put_right(
    runner: Runner, tree: FilesSource
) -> None:
    from avalanche_backup.sources import files_swap

    root = Path(tree.root)
    made = runner.backup(tree, kind="files")
    alter(tree)
    before = oracle(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_swap, "settle", lambda _: None)
        patch.setattr(files_swap.FilesSwap, "_commit", _dies)
        with pytest.raises(KeyboardInterrupt):
            runner.restore(made, tree, strategy="Swap")
    assert (root / MARKER).exists()
    with pytest.raises(SourceInvalid) as refused:
        runner.backup(tree, kind="files")
    assert refused.value.reason == "RestoreIncomplete"
    runner.undo(tree, restore_uid="request")
    assert oracle(root) == before


def test_what_another_user_left_bars_no_restore_and_leaves_no_mark_for_good(
    runner: Runner, tree: FilesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(tree.root)
    made = runner.backup(tree, kind="files")
    work = root / ".avalanche-restoring-0badf00d"
    (work / "old").mkdir(parents=True)
    (work / "journal").write_text("rubbish")
    (root / MARKER).write_text(journal._TOLD)
    user = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: user + 1)
        with pytest.raises(SourceInvalid, match="did not end"):
            runner.backup(tree, kind="files")
        for strategy in ("Swap", "InPlace"):
            runner.restore(made, tree, strategy=strategy)
            runner.backup(tree, kind="files")
    assert (work / "journal").read_text() == "rubbish"


@pytest.mark.parametrize("strategy", ["Swap", "InPlace"])
def test_two_restores_into_one_folder_do_not_work_at_once(
    runner: Runner, tree: FilesSource, strategy: str
) -> None:
    root = Path(tree.root)
    made = runner.backup(tree, kind="files")
    before = oracle(root)
    with journal.working_in(root, "the folder"), pytest.raises(RestoreRefused) as refused:
        runner.restore(made, tree, strategy=strategy)
    assert refused.value.reason == "TargetBusy"
    assert oracle(root) == before
    runner.restore(made, tree, strategy=strategy)


@pytest.mark.parametrize(
    "wrong", [{"sha256": "0" * 64}, {"size": 1}, {"type": "directory"}, {"path": "other"}, None]
)
def test_files_that_are_not_those_of_the_index_take_no_places(
    tree: FilesSource, tmp_path: Path, wrong: dict[str, Any] | None
) -> None:
    archive, index = Held(), Held()
    FileTree(tree).dump(archive, beside=index, scratch=tmp_path, progress=lambda _: None)
    lines = [json.loads(each) for each in index.data.splitlines()]
    number = next(number for number, each in enumerate(lines) if each["path"] == "data/b")
    lines[number : number + 1] = (
        [lines[number] | wrong] if wrong else [lines[number], {**lines[number], "path": "data/more"}]
    )
    alter(tree)
    before = oracle(Path(tree.root))
    incoming = Incoming(iter([bytes(archive.data)]), {}, tmp_path, lambda _: None)
    with pytest.raises(RestoreFailed, match="index") as failed:
        FilesSwap(tree, "01234567").restore(
            incoming, keep=False, index=iter(["\n".join(map(json.dumps, lines)).encode()])
        )
    assert failed.value.reason == "IndexDiffers"
    assert oracle(Path(tree.root)) == before


class Held:
    """What a dump wrote."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


def test_a_tree_that_is_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    folder = os.open(deep, os.O_RDONLY)
    for _ in range(10_000):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    (deep / "closed").mkdir(0o555)
    remove_tree(deep)
    assert not deep.exists()


def _dies(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_without_room_is_restored_in_place(
    runner: Runner, tree: FilesSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner.backup(tree, kind="files")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "10 bytes free" in runner.plan(made, tree, strategy=None).targets[0].strategy_reason


def test_an_undo_without_anything_kept_is_refused(
    runner: Runner, tree: FilesSource, lite: SqliteSource
) -> None:
    for source in (tree, lite):
        with pytest.raises(Failure) as refused:
            runner.undo(source)
        assert refused.value.reason == "NothingKept"
