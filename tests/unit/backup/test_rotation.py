"""Whose turn it is to be verified, within what one run may read."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.errors import BackupMissing, Failure, StorageUnavailable, VerificationFailed
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.storage.base import Store
from avalanche_backup.verbs.examined import Examined, Seen
from avalanche_backup.verbs.rotation import Candidate, Order
from avalanche_contract.request import Rotation
from avalanche_contract.storage import DirectoryStorage, Place

START = datetime(2026, 3, 1, tzinfo=UTC)
PLACE = Place(storage=DirectoryStorage(name="disk", root="/disk"))


def _candidate(number: int, size: int = 10, *, lacking: bool = False) -> Candidate:
    """Give a backup that was last verified ``number`` hours after the first one."""
    return Candidate(f"database_{number:04}", size, START + timedelta(hours=number), lacking)


def _limits(backups: int = 7, size: int | None = None) -> Rotation:
    return Rotation(place=PLACE, max_backups=backups, max_bytes=size)


def _taken(
    found: list[Candidate], limits: Rotation, *, heal: bool = True, healed: tuple[str, ...] = ()
) -> list[str]:
    order, taken = Order(found, limits, heal=heal), list[str]()
    for each in order:
        taken.append(each.backup_id)
        order.was_read(each, whole=not each.lacking or each.backup_id in healed)
    return taken


def test_those_come_first_that_were_not_verified_for_longest() -> None:
    assert _taken([_candidate(each) for each in (3, 1, 2)], _limits(2)) == ["database_0001", "database_0002"]


def test_one_is_read_however_large_and_then_no_more_than_the_limit() -> None:
    large = [_candidate(1, 500), _candidate(2, 10)]
    assert _taken(large, _limits(size=100)) == ["database_0001"]
    small = [_candidate(1, 60), _candidate(2, 50), _candidate(3, 10)]
    assert _taken(small, _limits(size=100)) == ["database_0001"], (
        "the next one waits for its turn, not for room"
    )


def test_what_has_no_readable_metadata_costs_nothing_and_is_always_looked_at() -> None:
    garbled = [_candidate(each, 0) for each in range(20)]
    assert len(_taken([*garbled, _candidate(30), _candidate(31)], _limits(1))) == 21


def test_what_lacks_a_copy_comes_first_and_only_where_it_is_healed() -> None:
    found = [_candidate(1), _candidate(2), _candidate(3, lacking=True)]
    assert _taken(found, _limits(1), healed=("database_0003",)) == ["database_0003"]
    assert _taken(found, _limits(1), heal=False) == ["database_0001"]


def test_what_cannot_be_healed_takes_no_turn_away() -> None:
    found = [_candidate(1), *(_candidate(each, lacking=True) for each in range(2, 9))]
    assert _taken(found, _limits(1)) == ["database_0002", "database_0001"]


def test_what_could_not_be_judged_takes_no_turn_away_each_night_anew() -> None:
    order = Order([_candidate(each) for each in range(9)], _limits(2), heal=True)
    taken = []
    for each in order:
        taken.append(each.backup_id)
        order.was_read(each, whole=False, judged=each.backup_id > "database_0004")
    assert taken == [f"database_{number:04}" for number in range(7)]


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12),
    lacking=st.sets(st.integers(0, 11)),
    backups=st.integers(1, 4),
    most=st.none() | st.integers(1, 120),
)
def test_every_backup_has_its_turn_within_a_few_nights(
    sizes: list[int], lacking: set[int], backups: int, most: int | None
) -> None:
    """Nothing starves, whatever is large, garbled, or lacks a copy that cannot be made."""
    verified = {f"database_{number:04}": START for number in range(len(sizes))}
    turns: Counter[str] = Counter()
    for night in range(1, 3 * len(sizes) + 1):
        found = [
            Candidate(name, size, verified[name], number in lacking)
            for number, (name, size) in enumerate(zip(verified, sizes, strict=True))
        ]
        for name in _taken(found, _limits(backups, most)):
            turns[name] += 1
            verified[name] = START + timedelta(days=night)
    assert set(turns) == set(verified)


def _seen(failure: Failure | None, told: bool = False) -> Seen:
    before = {"status": "VerificationFailed", "told_time": "2026-03-01T06:00:00Z"} if told else {}
    return Seen(Destination(cast("Store", None)), None, failure, before=before)


def test_damage_is_news_once_and_a_storage_that_is_away_is_none() -> None:
    damaged, away = VerificationFailed("bits"), StorageUnavailable("away")
    new = Examined("x", (_seen(damaged), _seen(away)))
    assert new.damaged and not new.is_told
    assert Examined("x", (_seen(damaged, told=True), _seen(away))).is_told
    assert not Examined("x", (_seen(away), _seen(None))).damaged


def test_damage_is_told_before_a_place_that_is_away_and_absence_last() -> None:
    damaged, away, absent = VerificationFailed("bits"), StorageUnavailable("away"), BackupMissing("none")
    assert Examined("x", (_seen(absent), _seen(away), _seen(damaged))).failure is damaged
    assert Examined("x", (_seen(absent), _seen(away))).failure is away
    assert Examined("x", (_seen(absent), _seen(None))).failure is None
