"""Erasing one backup on request: what is held, chosen or needed stays, and a broken-off erasure is brought to its end."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import holds, layout
from avalanche_backup.catalog import find
from avalanche_backup.errors import BackupMissing, RemovalRefused, StorageInvalid
from avalanche_backup.holds import Hold
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import delete
from avalanche_contract.result import Mark
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import DirectoryStorage, Storage
from tests.fakes.mortal import Mortal, lives
from tests.integration.runs import PREFIX, Runner

NOW = datetime.now(UTC)


@pytest.fixture
def runner(storage: Storage, tmp_path: Path) -> Runner:
    """Give a place with two backups."""
    return _with_two_backups(storage, tmp_path)


@pytest.fixture
def volume(tmp_path: Path) -> Runner:
    """Give the same on a folder."""
    (tmp_path / "volume").mkdir()
    return _with_two_backups(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path)


def _with_two_backups(storage: Storage, tmp_path: Path) -> Runner:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    runner = Runner(storage, tmp_path / "scratch")
    source = SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))
    for day in (1, 2):
        runner.backup(source, run_of=runner.manual(datetime(2026, 3, day, tzinfo=UTC), f"backup-{day}"))
    return runner


FIRST, SECOND = "database_20260301_000000", "database_20260302_000000"


def _ids(runner: Runner) -> set[str]:
    split = (layout.split_object_key(key) for key in runner.stored())
    return {each[0] for each in split if each}


def test_what_is_erased_leaves_nothing_behind(runner: Runner) -> None:
    runner.hold(FIRST, held=False)
    assert runner.delete(FIRST).reason == "Erased" and _ids(runner) == {SECOND}
    with pytest.raises(BackupMissing):
        runner.delete(FIRST)


def test_a_held_backup_is_not_erased_before_it_is_released(runner: Runner) -> None:
    runner.hold(FIRST, held=True)
    with pytest.raises(RemovalRefused, match="release it first") as raised:
        runner.delete(FIRST)
    assert raised.value.reason == "BackupHeld" and _ids(runner) == {FIRST, SECOND}
    runner.hold(FIRST, held=False)
    assert runner.delete(FIRST).reason == "Erased"


def test_a_backup_that_a_restore_has_chosen_is_not_erased(runner: Runner) -> None:
    holds.keep_for_restore(runner.store, PREFIX, FIRST, "a-restore", NOW)
    with pytest.raises(RemovalRefused, match="a restore has chosen"):
        runner.delete(FIRST)


def test_what_another_backup_depends_on_is_not_erased(runner: Runner) -> None:
    metadata = find(runner.store, PREFIX, SECOND).metadata.model_dump(mode="json")
    document = json.dumps({**metadata, "depends_on": [FIRST]}).encode()
    runner.store.put(layout.metadata_key(PREFIX, SECOND), document, overwrite=True)
    with pytest.raises(RemovalRefused, match=f"{SECOND} depends on"):
        runner.delete(FIRST)


def test_a_backup_whose_metadata_is_damaged_can_be_erased(runner: Runner) -> None:
    runner.store.put(layout.metadata_key(PREFIX, FIRST), b"{", overwrite=True)
    assert runner.delete(FIRST).reason == "Erased" and _ids(runner) == {SECOND}


def test_an_erasure_that_dies_at_any_point_is_brought_to_its_end_by_the_next(
    volume: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def erase(mortal: Mortal) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(delete, "open_store", lambda _storage: mortal)
            volume.delete(FIRST)

    deaths = 0
    for died in lives(erase, volume.store, [tmp_path / "volume"]):
        deaths += died
        if died:
            volume.delete(FIRST)
        assert _ids(volume) == {SECOND}
    assert deaths >= 6


def test_what_is_said_of_a_backup_adds_up(runner: Runner) -> None:
    until = datetime(2030, 1, 1, tzinfo=UTC)
    runner.hold(FIRST, expiration_time=until)
    assert runner.hold(FIRST, held=True).mark == Mark(held=True, expiration_time=until)
    assert runner.hold(FIRST, never_expires=True).mark == Mark(held=True)
    assert holds.read_hold(runner.store, PREFIX, FIRST) == Hold(held=True)


def test_a_hold_on_what_is_gone_is_an_error_and_no_promise(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackupMissing):
        runner.hold("database_20200101_000000", held=True)
    runner.delete(FIRST)
    with pytest.raises(BackupMissing, match="removed meanwhile"):
        holds.write_hold(runner.store, PREFIX, FIRST, Hold(held=True), NOW + timedelta(seconds=1))


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"held": "no"}', b'{"held": false, "expiration_time": 7}']
)
def test_a_hold_that_cannot_be_read_holds(runner: Runner, document: bytes) -> None:
    runner.store.put(layout.hold_key(PREFIX, FIRST), document, overwrite=True)
    assert holds.read_hold(runner.store, PREFIX, FIRST).held


def test_another_cluster_erases_and_holds_nothing_here(runner: Runner) -> None:
    stranger = runner.store.head(f"{PREFIX}{layout.OWNER_FILE}")
    assert stranger is not None
    owner: dict[str, Any] = {"cluster_uid": "another", "namespace": "edna", "policy": "policy"}
    runner.store.put(f"{PREFIX}{layout.OWNER_FILE}", json.dumps(owner).encode(), overwrite=True)
    with pytest.raises(StorageInvalid, match="belongs to policy"):
        runner.delete(FIRST)
    with pytest.raises(StorageInvalid, match="belongs to policy"):
        runner.hold(FIRST, held=True)
    assert open_store(runner.storage).head(layout.hold_key(PREFIX, FIRST)) is None
