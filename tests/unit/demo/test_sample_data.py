"""The sample data is the same every time, and a change of it is seen."""

import hashlib
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from demo.toolbox import disaster, fingerprints, tables, tree

SCALE = 0.001


def _hash(scale: float) -> str:
    return hashlib.sha256(b"".join(tables.statements(scale))).hexdigest()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    tree.write(tmp_path, SCALE)
    return tmp_path


@pytest.fixture
def observed(tmp_path: Path) -> Path:
    path = tmp_path / "observations.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE observation (id INTEGER PRIMARY KEY, station TEXT)")
        database.executemany("INSERT INTO observation VALUES (?, ?)", [(1, "Inn"), (2, "Aare"), (3, "Inn")])
        database.commit()
    return path


def test_the_database_is_the_same_every_time() -> None:
    assert _hash(SCALE) == _hash(SCALE)
    assert _hash(SCALE) != _hash(SCALE * 10)


def test_the_database_has_one_of_each_thing() -> None:
    sql = b"".join(tables.statements(SCALE)).decode()
    for thing in (
        "jsonb",
        "CREATE VIEW",
        "CREATE MATERIALIZED VIEW",
        "CREATE SEQUENCE",
        "lo_from_bytea",
        "PARTITION OF",
    ):
        assert thing in sql


def test_the_text_of_a_row_cannot_end_the_copy() -> None:
    rows = b"".join(tables.statements(SCALE)).splitlines()
    assert rows.count(b"\\.") == 3


def test_the_files_are_the_same_every_time(written: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    again = tmp_path_factory.mktemp("again")
    tree.write(again, SCALE)
    assert fingerprints.files(written) == fingerprints.files(again)


def test_every_odd_name_is_written(written: Path) -> None:
    there = {os.fsencode(path.name) for path in (written / "results" / "odd names").iterdir()}
    assert set(tree.ODD_NAMES) <= there


def test_the_whole_of_the_files_is_thousands_of_files_and_three_hundred_megabytes() -> None:
    expected = tree.LARGE * tree.LARGE_BYTES + tree.SMALL * tree.SMALL_BYTES / 2
    assert expected == pytest.approx(300e6, rel=0.05)
    assert tree.SMALL > 3000


@pytest.mark.parametrize("change", ["content", "mode", "time", "name"])
def test_a_change_of_one_file_is_seen(written: Path, change: str) -> None:
    before, path = fingerprints.files(written), written / "config" / "run.py"
    if change == "content":
        path.write_bytes(path.read_bytes()[::-1])
    elif change == "mode":
        path.chmod(0o700)
    elif change == "time":
        os.utime(path, (1, 1))
    else:
        path.rename(path.with_name("runs.py"))
    assert fingerprints.files(written) != before


def test_a_folder_that_is_gone_is_seen(written: Path) -> None:
    disaster.files(written)
    after = fingerprints.files(written)
    assert after["datasets"] == "absent"
    assert not any(name.startswith("results/") for name in after)


def test_rows_written_after_the_backup_do_not_count(observed: Path) -> None:
    before = fingerprints.observations(observed, 2)
    with closing(sqlite3.connect(observed)) as database:
        database.execute("DELETE FROM observation WHERE id > 2")
        database.commit()
    assert fingerprints.observations(observed) == before


def test_an_overwritten_database_is_removed_before_the_stations_start(observed: Path) -> None:
    disaster.observations(observed)
    assert "removed" in disaster.mend_observations(observed)
    assert not observed.exists()


def test_a_sound_database_is_left_alone(observed: Path) -> None:
    disaster.mend_observations(observed)
    assert fingerprints.observations(observed)["last ID"] == "3"
