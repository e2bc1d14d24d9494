"""SQLite, by the online backup API: consistent while others write, and back into a live database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from avalanche_backup.errors import (
    RestoreRefused,
    SourceInvalid,
    SourceUnavailable,
    StorageUnavailable,
    VerificationFailed,
)
from avalanche_backup.sources import sqlite
from avalanche_contract.source import SqliteSource
from tests.integration.runs import PREFIX, Runner

WRITER = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
database.execute("PRAGMA journal_mode=WAL")
number = database.execute("SELECT max(id) FROM numbers").fetchone()[0]
while True:
    number += 1
    database.execute("INSERT INTO numbers VALUES (?, ?)", (number, "x" * 200))
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "live.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, filler TEXT)")
        made.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, "x" * 200) for n in range(1, 20001)])
        made.commit()
    return path


@pytest.fixture
def writer(database: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(database)])
    yield process
    process.kill()
    process.wait()


def source(path: Path) -> SqliteSource:
    return SqliteSource(name="database", path=str(path))


def facts(path: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found: tuple[int, int] = opened.execute("SELECT count(*), max(id) FROM numbers").fetchone()
        return found


def test_a_database_that_is_written_to_is_captured_at_one_moment(
    runner: Runner, database: Path, writer: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    deadline = time.monotonic() + 30
    while facts(database)[0] < 20100 and time.monotonic() < deadline:
        assert writer.poll() is None
    made = runner.backup(source(database))
    runner.execute(made, source(tmp_path / "copy.sqlite"), None)
    count, last = facts(tmp_path / "copy.sqlite")
    assert count == last and 20100 <= count <= facts(database)[0]


def test_it_comes_back_into_a_live_database(runner: Runner, database: Path) -> None:
    made = runner.backup(source(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as application:
        application.execute("DELETE FROM numbers")
        runner.restore(made, source(database))
        assert application.execute("SELECT count(*) FROM numbers").fetchone() == (20000,)
        assert application.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_it_replaces_a_file_that_is_no_database_and_the_logs_beside_it(
    runner: Runner, database: Path
) -> None:
    made = runner.backup(source(database))
    database.write_bytes(b"garbage" * 1000)
    database.with_name("live.sqlite-wal").write_bytes(b"old log")
    runner.restore(made, source(database))
    assert facts(database) == (20000, 20000)


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "SourceMissing"), (b"", "SourceEmpty"), (b"\1\2" * 9000, "SourceCorrupt")]
)
def test_what_is_no_database_is_refused(
    runner: Runner, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "wrong.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceInvalid) as raised:
        runner.backup(source(path))
    assert raised.value.reason == reason
    assert [key for key in runner.stored() if "/database/" in key] == []


def test_a_page_that_is_corrupt_is_found(runner: Runner, database: Path) -> None:
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.seek(4096 * 50)
        file.write(b"\xff" * 4096)
    with pytest.raises(SourceInvalid) as raised:
        runner.backup(source(database))
    assert raised.value.reason == "SourceCorrupt"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.3)


def test_a_database_that_stays_locked_is_not_waited_for_without_end(
    runner: Runner, database: Path, impatient: None
) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as application:
        application.execute("PRAGMA journal_mode=DELETE")
        application.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SourceUnavailable, match="locked"):
            runner.backup(source(database))


def test_a_database_in_use_is_neither_replaced_nor_waited_for_without_end(
    runner: Runner, database: Path, impatient: None
) -> None:
    made = runner.backup(source(database))
    plan = runner.plan(made, source(database))
    with closing(sqlite3.connect(database, isolation_level=None)) as application:
        application.execute("BEGIN IMMEDIATE")
        application.execute("INSERT INTO numbers VALUES (20001, 'mine')")
        with pytest.raises(RestoreRefused) as raised:
            runner.execute(made, source(database), plan.digest)
        application.execute("COMMIT")
    assert raised.value.reason == "TargetBusy" and facts(database) == (20001, 20001)


def test_pages_of_another_size_come_back_too(runner: Runner, database: Path) -> None:
    made = runner.backup(source(database))
    database.unlink()
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("PRAGMA page_size=8192")
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY)")
    runner.restore(made, source(database))
    assert facts(database) == (20000, 20000)
    with closing(sqlite3.connect(database)) as opened:
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_order_that_only_the_application_knows_is_no_obstacle(runner: Runner, tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as made:
        made.create_collation("theirs", lambda one, two: (one > two) - (one < two))
        made.execute("CREATE TABLE t (name TEXT COLLATE theirs)")
        made.execute("CREATE INDEX i ON t (name)")
        made.executemany("INSERT INTO t VALUES (?)", [("b",), ("a",)])
        made.commit()
    backup = runner.backup(source(path))
    assert any("only the application has" in each for each in runner.reported.entries[-1].warnings)
    path.unlink()
    runner.restore(backup, source(path))
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("SELECT name FROM t NOT INDEXED").fetchall() == [("b",), ("a",)]


def test_a_link_to_the_file_stays_a_link(runner: Runner, database: Path, tmp_path: Path) -> None:
    made = runner.backup(source(database))
    database.rename(tmp_path / "elsewhere.sqlite")
    database.symlink_to(tmp_path / "elsewhere.sqlite")
    (tmp_path / "elsewhere.sqlite").write_bytes(b"garbage" * 1000)
    runner.restore(made, source(database))
    assert database.is_symlink() and facts(tmp_path / "elsewhere.sqlite") == (20000, 20000)


def test_a_damaged_artifact_does_not_touch_the_target(runner: Runner, database: Path, tmp_path: Path) -> None:
    made = runner.backup(source(database))
    artifact = tmp_path / "volume" / PREFIX / "database" / f"{made.backup_id}.sqlite.gz"
    damaged = bytearray(artifact.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    artifact.write_bytes(damaged)
    with closing(sqlite3.connect(database)) as opened:
        opened.execute("DELETE FROM numbers WHERE id > 5")
        opened.commit()
    with pytest.raises(VerificationFailed):
        runner.restore(made, source(database))
    assert facts(database) == (5, 5)


def test_a_storage_that_fails_ends_the_check_of_the_copy_as_well(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute("CREATE TABLE long AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) "
                       "SELECT i, hex(randomblob(40)) AS text FROM n")  # fmt: skip
        opened.execute("CREATE INDEX of_text ON long (text)")

    class Full:
        def write(self, data: bytes | memoryview) -> None:
            raise StorageUnavailable(f"no room for {len(data)} bytes")

    with pytest.raises(StorageUnavailable):
        sqlite.SqliteDatabase(source(database)).dump(
            Full(), beside=None, scratch=tmp_path, progress=lambda _: None
        )
    assert [each.name for each in threading.enumerate() if each.name == "check"] == []


def test_where_there_is_no_database_the_file_is_written_beside_its_place_and_nowhere_else(
    runner: Runner, database: Path, tmp_path: Path
) -> None:
    made = runner.backup(source(database))
    (tmp_path / "new").mkdir()
    target = tmp_path / "new" / "db.sqlite"
    runner.restore(made, source(target))
    assert [each.name for each in target.parent.iterdir()] == ["db.sqlite"]
    assert not list(runner.scratch.rglob("restored.sqlite"))
    with closing(sqlite3.connect(database)) as old, closing(sqlite3.connect(target)) as new:
        assert list(old.iterdump()) == list(new.iterdump())
