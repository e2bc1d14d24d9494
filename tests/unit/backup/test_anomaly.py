"""Which backups look wrong: each verdict as a sentence, and what holds for every history."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.anomaly import BASELINE, Measured, changed, comparable, judge

WHOLE: Mapping[str, Any] = {"schemas": []}


def _database(tables: int, rows: int, size: int = 1000) -> Measured:
    return Measured({"tables": tables, "rows": rows}, {"bytes": size}, WHOLE)


def _files(files: int, size: int = 1000, **selection: Any) -> Measured:
    return Measured({"files": files}, {"bytes": size}, selection or None)


def _reason(now: Measured, *before: Measured, most: int = 50) -> str | None:
    found = judge("source", now, before, most)
    return found.reason if found else None


def test_the_first_backup_is_compared_with_nothing() -> None:
    assert _reason(_database(0, 0)) is None


def test_less_than_is_normal_says_of_what_and_how_much() -> None:
    found = judge("app", _database(3, 40, 400), [_database(3, 100), _database(3, 100), _database(3, 90)], 50)
    assert found is not None and found.reason == "Shrunken"
    assert found.message == (
        "app shrank: 40 rows, 60 % less than the 100 that are usual (the median of 3 verified backups), and more than "
        "50 % is not expected; 400 bytes, 60 % less than the 1000 that are usual (the median of 3 verified backups), and "
        "more than 50 % is not expected"
    )


def test_just_what_is_allowed_is_normal_and_one_row_less_is_not() -> None:
    assert _reason(_database(3, 50), _database(3, 100)) is None
    assert _reason(_database(3, 49), _database(3, 100)) == "Shrunken"


def test_a_database_without_tables_where_there_were_some_is_suspect_whatever_shrinks_are_allowed() -> None:
    found = judge("app", _database(0, 0), [_database(12, 100)], 100)
    assert found is not None and (found.reason, found.message) == (
        "TablesGone", "app has no table any more, it had 12",
    )  # fmt: skip


def test_files_that_are_all_gone_are_suspect_whatever_shrinks_are_allowed() -> None:
    found = judge("data", _files(0, 0), [_files(7)], 100)
    assert found is not None and (found.reason, found.message) == (
        "SourceEmptied", "data is empty, it had 7 files",
    )  # fmt: skip


def test_100_percent_compares_no_amounts_and_0_allows_no_loss() -> None:
    assert _reason(_database(1, 1, 1), _database(9, 900, 9000), most=100) is None
    assert _reason(_database(9, 899), _database(9, 900), most=0) == "Shrunken"


def test_one_unusual_backup_among_the_last_does_not_move_what_is_usual() -> None:
    assert _reason(_files(100), _files(100), _files(9000), _files(100)) is None
    assert _reason(_files(20), _files(30), _files(100), _files(100)) == "Shrunken"


def test_an_emptiness_that_was_accepted_is_normal_from_then_on() -> None:
    assert _reason(_files(0, 0), _files(0, 0)) is None
    assert _reason(_files(0, 0), _files(5), _files(0, 0)) == "SourceEmptied"


def test_what_an_earlier_release_did_not_count_is_not_compared() -> None:
    before = Measured({"tables": 3, "rows": 10}, {}, None)
    assert _reason(Measured({"tables": 3, "rows": 10}, {"bytes": 1}, WHOLE), before) is None


def test_a_dump_of_another_format_is_compared_by_its_tables_alone() -> None:
    before = Measured({"tables": 3}, {"bytes of the Plain dump": 9000})
    assert _reason(Measured({"tables": 3}, {"bytes of the Custom dump": 10}), before) is None
    assert _reason(Measured({"tables": 1}, {"bytes of the Custom dump": 10}), before) == "Shrunken"


def test_another_choice_is_no_shrink_and_is_told_of_once() -> None:
    chosen: dict[str, Any] = {"paths": ["a"], "exclude": ["*"]}
    before = [_files(100, paths=["a"], exclude=[])]
    assert comparable(chosen, before) == ()
    told = changed("data", chosen, before)
    assert told is not None and told.startswith("data: exclude changed since the last backup")
    assert changed("data", chosen, [_files(1, **chosen), *before]) is None


def test_a_backup_that_does_not_say_what_it_chose_is_compared() -> None:
    before = [_files(100)]
    assert comparable({"paths": ["a"]}, before) == tuple(before)
    assert changed("data", {"paths": ["a"]}, before) is None


_COUNTS = st.builds(_database, st.integers(0, 50), st.integers(0, 10_000), st.integers(0, 10**12))
_HISTORY = st.lists(_COUNTS, min_size=1, max_size=BASELINE)
_PERCENT = st.integers(0, 100)


@given(_COUNTS, _HISTORY, _PERCENT)
def test_what_is_suspect_has_lost_more_than_is_normal_and_nothing_else_is(
    now: Measured, before: list[Measured], most: int
) -> None:
    def lost(name: str) -> float:
        usual = median({**each.things, **each.sizes}[name] for each in before)
        return 100 * (usual - {**now.things, **now.sizes}[name]) / usual if usual else 0

    emptied = not now.things["tables"] and any(each.things["tables"] for each in before)
    emptied |= now.is_empty and not all(each.is_empty for each in before)
    expected = emptied or any(lost(name) > most for name in ("tables", "rows", "bytes"))
    assert (judge("source", now, before, most) is not None) == expected


@given(_COUNTS, _HISTORY, _PERCENT)
def test_growth_is_never_suspect(now: Measured, before: list[Measured], most: int) -> None:
    grown = _database(
        *(max([getattr(each, kind)[name] for each in (now, *before)])
          for kind, name in (("things", "tables"), ("things", "rows"), ("sizes", "bytes")))
    )  # fmt: skip
    assert judge("source", grown, before, most) is None


@given(_COUNTS, _HISTORY, st.integers(0, 99))
def test_a_larger_allowance_finds_nothing_that_a_smaller_one_does_not(
    now: Measured, before: list[Measured], most: int
) -> None:
    if judge("source", now, before, most) is None:
        assert judge("source", now, before, most + 1) is None


@given(_COUNTS, _HISTORY, _PERCENT, st.randoms())
def test_the_order_of_the_backups_before_does_not_matter(
    now: Measured, before: list[Measured], most: int, random: Any
) -> None:
    shuffled = list(before)
    random.shuffle(shuffled)
    one, other = judge("source", now, before, most), judge("source", now, shuffled, most)
    assert (one and one.reason) == (other and other.reason)


@given(_COUNTS, _PERCENT)
def test_a_backup_that_is_as_the_one_before_is_never_suspect(now: Measured, most: int) -> None:
    assert judge("source", now, [now], most) is None


@pytest.mark.parametrize("most", [0, 50, 100])
def test_a_history_of_nothing_is_no_reason_to_suspect_anything(most: int) -> None:
    assert _reason(_database(0, 0, 0), _database(0, 0, 0), most=most) is None
