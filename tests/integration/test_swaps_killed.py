"""Restores that are killed at points chosen by chance: the target is the old one or the new one, and the next run leaves nothing behind.

One hundred points in all. Each is a real process, killed by SIGKILL; the psql that it had started lives on, and must
not commit the half of a dump.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import RestoreRefused, SourceInvalid
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.tree import MARKER
from avalanche_contract.base import Credential
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from tests.fakes.killed import run_killed
from tests.integration.conftest import source_of
from tests.integration.runs import Runner
from tests.integration.servers import PASSWORD, Postgres
from tests.integration.sources.test_files import oracle
from tests.integration.test_swaps import names, quoted

SEED = 20261126
POINTS = {
    "files": 36,
    "files in place": 10,
    "sqlite": 20,
    "sqlite in place": 8,
    "postgresql": 16,
    "postgresql in place": 10,
}


class NothingKept(Exception):
    """There is nothing to undo."""


def points(kind: str, work: Callable[[], Any]) -> list[int]:
    """Choose where to kill, after one run that was not killed has counted the events."""
    total = run_killed(work, None)
    assert total > POINTS[kind] / 2
    chosen = random.Random(f"{SEED} {kind}")
    return [chosen.randint(1, total) for _ in range(POINTS[kind])]


def undo(runner: Runner, source: Any) -> None:
    """Undo what the killed restore kept, or was about to keep."""
    with suppress(NothingKept):
        try:
            runner.undo(source, restore_uid="request", request_uid="request")
        except RestoreRefused as refused:
            raise (NothingKept if refused.reason == "NothingKept" else AssertionError(refused)) from None


# --- files -----------------------------------------------------------------------------------------------
def write_tree(root: Path, word: str) -> None:
    for path in ("a", "one/b", "one/two/c", "one/two/d", f"only {word}/e", "\n--'\"🧬"):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_text(f"{word} {path}")
    for path in ("changes", "one/changes"):
        (root / path).mkdir() if word == "new" else (root / path).write_text("a file")
    (root / "one" / "link").symlink_to(word)
    (root / "one" / "two").chmod(0o750 if word == "new" else 0o700)


@pytest.fixture
def files(runner: Runner, tmp_path: Path) -> tuple[FilesSource, Result, Any]:
    origin = tmp_path / "origin"
    origin.mkdir()
    write_tree(origin, "new")
    made = runner.backup(FilesSource(name="files", root=str(origin)), kind="files")
    return FilesSource(name="files", root=str(tmp_path / "tree")), made, oracle(origin)


def fresh(tree: FilesSource) -> Any:
    """Make the old tree, whatever is there, and give what it is."""
    root = Path(tree.root)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    write_tree(root, "old")
    return oracle(root)


def without_ours(found: dict[bytes, Any]) -> dict[bytes, Any]:
    return {path: facts for path, facts in found.items() if not path.startswith(b"/.avalanche-")}


def test_a_switch_of_files_is_whole_or_led_back(
    runner: Runner, files: tuple[FilesSource, Result, Any]
) -> None:
    tree, made, wanted = files
    root = Path(tree.root)

    work = partial(runner.restore, made, tree, strategy="Swap", keep_previous=True)

    fresh(tree)
    for number, point in enumerate(points("files", work)):
        old = fresh(tree)
        new = {**old, **wanted}
        run_killed(work, point)
        found = without_ours(oracle(root))
        marked = (root / MARKER).exists()
        assert marked or found in (old, new), f"killed before event {point}"
        if marked:
            with pytest.raises(SourceInvalid):
                FileTree(tree).inspect()
        if number % 2 or any(root.glob(".avalanche-previous-*")):
            undo(runner, tree)
            assert without_ours(oracle(root)) == old, f"undone after event {point}"
        runner.restore(made, tree, strategy="Swap")
        assert oracle(root) == new, f"restored again after event {point}"


def test_an_undo_of_files_that_is_killed_is_finished_by_the_next_one(
    runner: Runner, files: tuple[FilesSource, Result, Any]
) -> None:
    tree, made, _ = files
    root = Path(tree.root)

    work = partial(undo, runner, tree)

    fresh(tree)
    runner.restore(made, tree, strategy="Swap", keep_previous=True)
    total = run_killed(work, None)
    for point in random.Random(SEED).sample(range(1, total + 1), 12):
        old = fresh(tree)
        runner.restore(made, tree, strategy="Swap", keep_previous=True)
        run_killed(work, point)
        undo(runner, tree)
        assert without_ours(oracle(root)) == old, f"killed before event {point}"
        runner.restore(made, tree, strategy="Swap")


def test_files_in_place_are_whole_or_marked(runner: Runner, files: tuple[FilesSource, Result, Any]) -> None:
    tree, made, wanted = files
    root = Path(tree.root)
    for path in ("changes", "one/changes"):
        assert f"/{path}".encode() in wanted

    work = partial(runner.restore, made, tree, strategy="InPlace")

    fresh(tree)
    for point in points("files in place", work):
        old = fresh(tree)
        run_killed(work, point)
        assert (root / MARKER).exists() or oracle(root) in (old, {**old, **wanted}), (
            f"killed before event {point}"
        )
        runner.restore(made, tree)
        assert not (root / MARKER).exists()


# --- SQLite ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("strategy", ["Swap", "InPlace"])
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_sqlite_database_is_the_old_one_or_the_new_one(
    runner: Runner, tmp_path: Path, strategy: str, mode: str
) -> None:
    source = SqliteSource(name="db", path=str(tmp_path / "db.sqlite"))
    kind = "sqlite" if strategy == "Swap" else "sqlite in place"

    def write(rows: int) -> None:
        for each in tmp_path.glob("*db.sqlite*"):
            each.unlink()
        with closing(sqlite3.connect(source.path)) as made:
            made.execute(f"PRAGMA journal_mode={mode}")
            made.execute("CREATE TABLE t (n, filler)")
            made.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 500) for n in range(rows)])
            made.commit()

    def rows() -> int:
        with closing(sqlite3.connect(source.path)) as found:
            assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return int(found.execute("SELECT count(*) FROM t").fetchone()[0])

    write(500)
    made = runner.backup(source)

    work = partial(runner.restore, made, source, strategy=strategy, keep_previous=strategy == "Swap")

    write(7)
    for point in points(kind, work)[:: 1 if mode == "wal" else 2]:
        write(7)
        run_killed(work, point)
        assert rows() in (7, 500), f"killed before event {point}"
        undo(runner, source)
        if strategy == "Swap":
            assert rows() == 7, f"undone after event {point}"
        runner.restore(made, source, strategy=strategy)
        assert rows() == 500
        assert [each.name for each in tmp_path.glob("*db.sqlite*")] == ["db.sqlite"]


# --- PostgreSQL ------------------------------------------------------------------------------------------
SESSIONS = """
    SELECT pid, datname, state, wait_event, now() - state_change AS since, left(query, 200) FROM pg_stat_activity
    WHERE application_name = 'avalanche-backup'
"""


@pytest.mark.parametrize("strategy", ["Swap", "InPlace"])
def test_a_postgresql_database_is_the_old_one_or_the_new_one(
    runner: Runner, postgres: Postgres, tmp_path: Path, strategy: str
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    name = f"killed -- \"{strategy}\" 'now'"
    source: PostgresqlSource = source_of(postgres, name).model_copy(
        update={"password": Credential(described="file", file=str(tmp_path / "password"))}
    )
    kind = "postgresql" if strategy == "Swap" else "postgresql in place"
    postgres.psql("postgres", f"CREATE DATABASE {quoted(name)}")

    def write(rows: int) -> None:
        postgres.psql(name, f"DROP TABLE IF EXISTS t, u; CREATE TABLE t AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, {rows}) AS n; "
                            f"CREATE TABLE u AS SELECT {rows} AS n; ALTER TABLE t ADD PRIMARY KEY (n)")  # fmt: skip

    def rows() -> str:
        return postgres.psql(name, "SELECT count(*) || ' ' || (SELECT n FROM u) FROM t")

    def settled() -> None:
        """Wait until what the killed process had started has ended by itself."""
        deadline = time.monotonic() + 30
        while left := postgres.psql("postgres", SESSIONS):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    write(4000)
    made = runner.backup(source)
    others = names(postgres)

    work = partial(runner.restore, made, source, strategy=strategy, keep_previous=strategy == "Swap")

    write(7)
    for point in points(kind, work):
        settled()
        undo(runner, source)
        write(7)
        run_killed(work, point)
        settled()
        assert rows() in ("7 7", "4000 4000"), f"killed before event {point}"
        undo(runner, source)
        if strategy == "Swap":
            assert rows() == "7 7", f"undone after event {point}"
        runner.restore(made, source, strategy=strategy)
        assert rows() == "4000 4000"
        assert names(postgres) == others
