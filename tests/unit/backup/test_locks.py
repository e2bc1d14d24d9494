"""Locks and holds: whoever holds one, nobody else lets go of it, and a backup sees what came and went meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from avalanche_backup import layout
from avalanche_backup.errors import RestoreFailed, TargetLocked
from avalanche_backup.holds import RESTORE_LIFE, end_of_restore, is_kept_for_restore, keep_for_restore
from avalanche_backup.locks import (
    LIFE,
    KeptLocks,
    read_lock,
    refuse_if_locked,
    refuse_if_restored,
    release_lock,
    renew_lock,
    take_lock,
)
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.directory import DirectoryStore
from avalanche_contract.storage import DirectoryStorage

MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)
LATER = MOMENT + 2 * LIFE
BACKUP = "files_20260301_020000"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Give a store with a backup: what is gone cannot be kept."""
    made = DirectoryStore(DirectoryStorage(name="disk", root=str(tmp_path)))
    made.put(layout.metadata_key("p/", BACKUP), b"{}")
    return made


def test_a_lock_that_was_taken_over_is_neither_renewed_nor_let_go_by_the_first(store: Store) -> None:
    take_lock(store, "p/", "frozen", MOMENT)
    take_lock(store, "p/", "second", LATER)
    taken = read_lock(store, "p/")
    assert renew_lock(store, "p/", "frozen", LATER) == taken
    release_lock(store, "p/", "frozen", LATER)
    assert read_lock(store, "p/") == taken


def test_a_lock_of_ours_is_renewed(store: Store) -> None:
    take_lock(store, "p/", "first", MOMENT)
    assert renew_lock(store, "p/", "first", LATER) is None
    with pytest.raises(TargetLocked):
        refuse_if_locked(store, "p/", LATER + LIFE / 2)


@pytest.mark.parametrize("before", ["nothing", "an earlier restore", "a restore that was killed"])
def test_a_restore_that_came_and_went_while_a_backup_read_is_seen_at_its_end(
    store: Store, before: str
) -> None:
    if before != "nothing":
        take_lock(store, "p/", "earlier", MOMENT)
    if before == "an earlier restore":
        release_lock(store, "p/", "earlier", MOMENT)
    seen = refuse_if_locked(store, "p/", LATER)
    refuse_if_restored(store, "p/", seen)
    take_lock(store, "p/", "restore", LATER)
    release_lock(store, "p/", "restore", LATER)
    with pytest.raises(TargetLocked, match="restore restore worked on the target"):
        refuse_if_restored(store, "p/", seen)
    refuse_if_restored(store, "p/", refuse_if_locked(store, "p/", LATER))


def test_the_same_restore_twice_is_two_restores(store: Store) -> None:
    take_lock(store, "p/", "restore", MOMENT)
    release_lock(store, "p/", "restore", MOMENT)
    seen = read_lock(store, "p/")
    take_lock(store, "p/", "restore", MOMENT)
    release_lock(store, "p/", "restore", MOMENT + timedelta(microseconds=1))
    assert read_lock(store, "p/") != seen


def test_a_restore_that_stood_still_stops_where_another_has_taken_over(store: Store) -> None:
    clock = [MOMENT]

    def chunks() -> Iterator[bytes]:
        yield b"first"
        take_lock(store, "p/", "second", LATER)  # the node stands still meanwhile
        clock[0] = LATER
        yield b"second"

    with KeptLocks([(store, "p/")], "frozen", lambda: clock[0]) as locks:
        guarded = locks.guard(chunks())
        assert next(guarded) == b"first"
        with pytest.raises(RestoreFailed) as raised:
            next(guarded)
    lock = read_lock(store, "p/")
    assert raised.value.reason == "LockLost" and lock is not None and lock.holder == "second"


def test_each_restore_lets_go_of_its_own_hold_alone(store: Store) -> None:
    for holder in ("first", "second"):
        keep_for_restore(store, "p/", BACKUP, holder, MOMENT)
    end_of_restore(store, "p/", BACKUP, "first")
    assert is_kept_for_restore(store, "p/", BACKUP, MOMENT)
    end_of_restore(store, "p/", BACKUP, "second")
    assert not is_kept_for_restore(store, "p/", BACKUP, MOMENT)


def test_a_hold_of_a_restore_expires(store: Store) -> None:
    keep_for_restore(store, "p/", BACKUP, "killed", MOMENT)
    assert is_kept_for_restore(store, "p/", BACKUP, MOMENT + RESTORE_LIFE / 2)
    assert not is_kept_for_restore(store, "p/", BACKUP, MOMENT + 2 * RESTORE_LIFE)


def test_a_hold_that_cannot_be_read_keeps_the_backup(store: Store) -> None:
    store.put(layout.restoring_key("p/", BACKUP, "damaged"), b"{")
    assert is_kept_for_restore(store, "p/", BACKUP, MOMENT)
