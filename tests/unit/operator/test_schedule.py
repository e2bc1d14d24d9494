"""Schedules: what CronJob will do, known beforehand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_operator.applying.schedule import ScheduleInvalid, next_time, resolve, zone

UIDS = st.uuids().map(str)
MOMENTS = st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
ZONES = st.sampled_from(
    ["Etc/UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe"]
)
SCHEDULES = st.sampled_from(
    ["0 2 * * *", "0 3 * * 0", "0 4 1 * *", "*/15 * * * *", "30 2 29 2 *", "H H * * *"]
)


@given(UIDS)
def test_h_is_the_same_for_a_policy_always_and_a_valid_schedule(uid: str) -> None:
    resolved = resolve("H H * * *", uid)
    assert resolved == resolve("H H * * *", uid)
    assert resolve(resolved, "another") == resolved


def test_h_spreads_policies_over_the_hour() -> None:
    minutes = {resolve("H 2 * * *", f"uid-{number}").split()[0] for number in range(200)}
    assert len(minutes) > 40


@pytest.mark.parametrize(
    ("macro", "fields"), [("@daily", "0 0 * * *"), ("@weekly", "0 0 * * 0"), ("@hourly", "0 * * * *")]
)
def test_a_macro_is_written_out(macro: str, fields: str) -> None:
    assert resolve(macro, "uid") == fields


@pytest.mark.parametrize(
    "schedule",
    [
        "61 2 * * *",
        "0 2 * *",
        "H/2 2 * * *",
        "0 2 H * *",
        "nonsense",
        "0 2 * * MOON",
        "0 0 31 2 *",
        "0 2 L * *",
        "0 2 LW * *",
        "0 2 * * MON#1",
        "0 2 * * 5L",
        "0 2 * * ?",
    ],
)
def test_what_is_no_schedule_says_which_one(schedule: str) -> None:
    with pytest.raises(ScheduleInvalid, match="schedule"):
        resolve(schedule, "uid")


@pytest.mark.parametrize("schedule", ["0 2 * * THU", "0 2 * MAR,JUL mon-fri", "5/15 0-6/2 1,15 * *"])
def test_what_cron_job_takes_is_left_as_it_is(schedule: str) -> None:
    assert resolve(schedule, "uid") == schedule


@given(UIDS, st.integers(0, 59), st.integers(0, 3600))
def test_jitter_is_the_same_for_a_policy_always_and_stays_within_its_bound_and_hour(
    uid: str, minute: int, jitter: int
) -> None:
    resolved = resolve(f"{minute} 23 * * 6", uid, jitter)
    assert resolved == resolve(f"{minute} 23 * * 6", uid, jitter)
    later = int(resolved.split()[0]) - minute
    assert (
        0 <= later <= jitter // 60 and later + minute <= 59 and resolved.split()[1:] == ["23", "*", "*", "6"]
    )


def test_jitter_spreads_policies_and_wants_one_minute() -> None:
    assert len({resolve("0 2 * * *", f"uid-{number}", 1800) for number in range(300)}) == 31
    with pytest.raises(ScheduleInvalid, match="one number"):
        resolve("*/5 2 * * *", "uid", 1800)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "../etc/passwd", "/etc/passwd", ""])
def test_an_unknown_zone_names_a_known_one(name: str) -> None:
    with pytest.raises(ScheduleInvalid, match="Europe/Berlin") as raised:
        zone(name)
    assert raised.value.reason == "InvalidTimeZone"


@given(SCHEDULES, ZONES, MOMENTS)
def test_the_next_slot_lies_ahead_and_no_slot_lies_between(schedule: str, name: str, now: datetime) -> None:
    resolved, where = resolve(schedule, "uid"), zone(name)
    coming = next_time(resolved, where, now)
    assert coming is not None and coming > now and coming.second == 0
    again = next_time(resolved, where, coming - timedelta(seconds=1))
    assert again is not None and again <= coming


@given(MOMENTS)
def test_slots_come_in_order(now: datetime) -> None:
    where, slots = zone("Europe/Berlin"), [now]
    for _ in range(5):
        coming = next_time("0 2 * * *", where, slots[-1])
        assert coming is not None
        slots.append(coming)
    gaps = [(later - earlier).total_seconds() / 3600 for earlier, later in pairwise(slots[1:])]
    assert all(22.5 <= gap <= 25.5 for gap in gaps), gaps


def test_the_hour_that_summer_time_leaves_out_is_not_waited_for_a_day() -> None:
    """02:30 does not exist in Berlin on 2026-03-29: the slot falls right behind the gap."""
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    coming = next_time("30 2 * * *", zone("Europe/Berlin"), before)
    assert coming is not None and coming < before + timedelta(hours=24)
