"""Retention where copies lie in several places: each obeys the rules by itself, and what one keeps for a person all keep."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from avalanche_backup import holds, layout
from avalanche_backup.errors import BackupMissing, RemovalRefused, StorageInvalid
from avalanche_backup.holds import Hold
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import cleanup
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import DirectoryStorage, Storage
from tests.fakes.mortal import Mortal, lives
from tests.integration.runs import PREFIX, Runner
from tests.integration.test_cleanup import DAYS, NEWEST, NOW, _clean, _scheduled


@pytest.fixture
def both(tmp_path: Path) -> Runner:
    """Give two places with a backup of each of five days."""
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    runner = Runner(_folder(tmp_path, "first"), tmp_path / "scratch", others=(_folder(tmp_path, "second"),))
    source = SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))
    for number in range(5):
        _scheduled(runner, source, NEWEST - timedelta(days=number))
    return runner


def _folder(tmp_path: Path, name: str) -> DirectoryStorage:
    (tmp_path / name).mkdir()
    return DirectoryStorage(name=name, root=str(tmp_path / name))


def _left(storage: Storage) -> list[str]:
    split = (layout.split_object_key(each.key) for each in open_store(storage).list(""))
    return sorted({each[0] for each in split if each}, reverse=True)


def _removed(runner: Runner) -> list[str]:
    return sorted((each.backup_id for each in runner.reported.decisions if each.removed), reverse=True)


def test_what_no_rule_keeps_goes_from_every_place_and_is_told_once(both: Runner) -> None:
    assert _clean(both).message == "2 of 5 backups removed"
    assert _left(both.storage) == _left(both.others[0]) == DAYS[:3] and _removed(both) == DAYS[3:]


def test_what_is_held_or_chosen_in_one_place_stays_in_all(both: Runner) -> None:
    second = open_store(both.others[0])
    holds.write_hold(second, PREFIX, DAYS[3], Hold(held=True), NOW)
    holds.keep_for_restore(second, PREFIX, DAYS[4], "a-restore", NOW)
    _clean(both)
    assert _left(both.storage) == _left(both.others[0]) == DAYS


def test_a_place_that_is_away_does_not_stop_the_others_and_nothing_is_told_to_be_gone(
    both: Runner, tmp_path: Path
) -> None:
    shutil.move(tmp_path / "second", tmp_path / "unmounted")
    with pytest.raises(StorageInvalid) as raised:
        _clean(both)
    assert raised.value.reason == "StorageMissing" and _left(both.storage) == DAYS[:3]
    assert _removed(both) == []
    shutil.move(tmp_path / "unmounted", tmp_path / "second")
    _clean(both)
    assert _left(both.others[0]) == DAYS[:3] and _removed(both) == DAYS[3:]


def test_a_place_whose_copies_stopped_coming_keeps_what_it_has(both: Runner) -> None:
    second = open_store(both.others[0])
    for each in [each.key for each in second.list("") if DAYS[0] in each.key or DAYS[1] in each.key]:
        second.delete(each)
    _clean(both)
    assert _left(both.storage) == DAYS[:3] and _left(both.others[0]) == DAYS[2:]
    assert _removed(both) == [], "the second place still has them"


def test_a_cleanup_of_two_places_that_dies_at_any_point_is_brought_to_its_end(
    both: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def clean_up(life: Mortal) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(cleanup, "open_store", lambda storage: _Sharing(storage, life))
            _clean(both)

    deaths = 0
    for died in lives(clean_up, both.store, [tmp_path / "first", tmp_path / "second"]):
        deaths += died
        _clean(both)
        assert _left(both.storage) == _left(both.others[0]) == DAYS[:3]
    assert deaths >= 2 * 2 * 6


class _Sharing(Mortal):
    """A store that has its life in common with another."""

    def __init__(self, storage: Storage, life: Mortal) -> None:
        super().__init__(open_store(storage), changes=0)
        self._life = life

    def _live(self) -> None:
        self._life._live()


def test_a_hold_lies_in_every_place_and_an_erasure_leaves_nothing_in_any(both: Runner) -> None:
    both.hold(DAYS[1], held=True)
    assert all(holds.read_hold(open_store(each.storage), PREFIX, DAYS[1]).held for each in both.places)
    with pytest.raises(RemovalRefused, match="release it first"):
        both.delete(DAYS[1])
    both.hold(DAYS[1], held=False)
    both.delete(DAYS[1])
    assert DAYS[1] not in _left(both.storage) + _left(both.others[0])
    with pytest.raises(BackupMissing):
        both.delete(DAYS[1])


def test_a_hold_in_one_place_alone_keeps_an_erasure_from_touching_any(both: Runner) -> None:
    holds.write_hold(open_store(both.others[0]), PREFIX, DAYS[1], Hold(held=True), NOW)
    with pytest.raises(RemovalRefused):
        both.delete(DAYS[1])
    assert _left(both.storage) == _left(both.others[0]) == DAYS


def test_what_was_removed_is_not_brought_back_by_healing(both: Runner) -> None:
    _clean(both)
    again = replace(both, storage=both.others[0], others=(both.storage,))
    with pytest.raises(BackupMissing):
        again.verify(again.hold(DAYS[0], held=False).model_copy(update={"backup_id": DAYS[4]}), heal=True)
    assert _left(both.storage) == DAYS[:3]
