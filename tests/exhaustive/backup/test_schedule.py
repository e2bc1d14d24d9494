"""The scheduler of a machine without cron: every day once, also when clocks change, and never a crowd of late runs."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.parsing import parse
from avalanche_backup.cli.schedule import WEEKDAYS, Run, keep_running, next_time

ZONES = st.sampled_from(
    ["Etc/UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]
).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2011, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
TIMES = st.times().map(lambda each: each.replace(microsecond=0))
UTC_ZONE = ZoneInfo("Etc/UTC")
FRIDAY = datetime(2026, 2, 27, 12, tzinfo=UTC)


class Clock:
    """A clock that waiting moves; it stops the story at its end."""

    class Over(Exception):
        """The end of the story."""

    def __init__(self, start: datetime, end: datetime) -> None:
        self.time, self._end = start, end

    def now(self) -> datetime:
        return self.time

    def wait(self, seconds: float) -> None:
        self.time += timedelta(seconds=max(seconds, 0.001))
        if self.time >= self._end:
            raise Clock.Over


def _played(
    runs: tuple[Run, ...], clock: Clock, takes: timedelta = timedelta()
) -> list[tuple[str, datetime]]:
    done: list[tuple[str, datetime]] = []

    def execute(run: Run) -> None:
        done.append((run.command, clock.time))
        clock.time += takes

    with pytest.raises(Clock.Over):
        keep_running(runs, UTC_ZONE, now=clock.now, wait=clock.wait, execute=execute)
    return done


@given(TIMES, ZONES, MOMENTS)
def test_a_daily_run_comes_within_a_day_and_an_hour_and_lies_ahead(
    at: time, zone: ZoneInfo, after: datetime
) -> None:
    coming = next_time(Run("database", at), zone, after)
    # A whole day is missing from Apia's calendar of 2011, and none of its hours.
    assert after < coming <= after + timedelta(hours=25)


@given(TIMES, ZONES, MOMENTS)
def test_each_day_of_the_calendar_has_one_run_and_no_other(at: time, zone: ZoneInfo, after: datetime) -> None:
    """Also the day whose 02:30 is left out, and the one that has it twice."""
    moments = [after]
    for _ in range(20):
        moments.append(next_time(Run("database", at), zone, moments[-1]))
    gaps = [(later - earlier) / timedelta(hours=1) for earlier, later in pairwise(moments[1:])]
    assert all(22.9 <= gap <= 25.1 for gap in gaps), gaps


@given(st.sampled_from(WEEKDAYS), ZONES, MOMENTS)
def test_a_weekly_run_falls_on_its_day(weekday: str, zone: ZoneInfo, after: datetime) -> None:
    named = next(each for each in WEEKDAYS if each == weekday)
    coming = next_time(Run("files", time(12), weekday=named), zone, after)
    assert WEEKDAYS[coming.astimezone(zone).weekday()] == weekday and coming - after <= timedelta(days=15)


@given(st.integers(1, 28), ZONES, MOMENTS)
def test_a_monthly_run_falls_on_its_day(day: int, zone: ZoneInfo, after: datetime) -> None:
    coming = next_time(Run("full", time(12), day=day), zone, after)
    assert coming.astimezone(zone).day == day and coming - after <= timedelta(days=32)


def test_the_hour_that_summer_time_leaves_out_or_repeats() -> None:
    berlin, run = ZoneInfo("Europe/Berlin"), Run("database", time(2, 30))
    assert next_time(run, berlin, datetime(2026, 3, 28, 12, tzinfo=UTC)) == datetime(
        2026, 3, 29, 1, 30, tzinfo=UTC
    )
    first = next_time(run, berlin, datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_time(run, berlin, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_the_defaults_are_the_documented_week() -> None:
    runs = Configuration(parse({}), {}).scheduled
    done = _played(runs, Clock(FRIDAY, FRIDAY + timedelta(days=3)))
    assert [(name, f"{when:%a %H:%M}") for name, when in done] == [
        ("database", "Sat 02:00"), ("verify", "Sat 06:00"),
        ("database", "Sun 02:00"), ("files", "Sun 03:00"), ("full", "Sun 04:00"), ("cleanup", "Sun 05:00"), ("verify", "Sun 06:00"),
        ("database", "Mon 02:00"), ("verify", "Mon 06:00"),
    ]  # fmt: skip


def test_a_run_that_was_passed_over_comes_once_and_late() -> None:
    runs = (Run("database", time(2)), Run("files", time(3)))
    clock = Clock(FRIDAY, FRIDAY + timedelta(days=4))
    done = _played(runs, clock, takes=timedelta(hours=30))
    assert [name for name, _ in done] == ["database", "files", "database", "files"][: len(done)] and len(
        done
    ) >= 3


def test_a_clock_that_jumps_is_noticed_within_a_minute() -> None:
    clock = Clock(FRIDAY, FRIDAY + timedelta(days=2))
    waits: list[float] = []
    jumped = False

    def wait(seconds: float) -> None:
        nonlocal jumped
        waits.append(seconds)
        clock.wait(seconds)
        if not jumped:
            jumped, clock.time = True, FRIDAY + timedelta(hours=15)

    done: list[datetime] = []
    with pytest.raises(Clock.Over):
        keep_running(
            (Run("database", time(2)),),
            UTC_ZONE,
            now=clock.now,
            wait=wait,
            execute=lambda _: done.append(clock.time),
        )
    assert max(waits) <= 60 and done[0] == FRIDAY + timedelta(hours=15)
