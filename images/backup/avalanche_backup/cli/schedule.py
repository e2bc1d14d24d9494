"""When the runs of the configuration are due: a time of day, on every day, one weekday or one day of the month. Pure.

For machines without cron; what cron can say beyond that is cron's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Command = Literal["database", "files", "full", "cleanup", "verify", "drill"]
WEEKDAYS: tuple[Weekday, ...] = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
LONGEST_WAIT_SECONDS = 60.0
"""A machine that slept or whose clock was set is noticed after so long."""


@dataclass(frozen=True)
class Run:
    """One command and its time of day, in the zone of the schedule."""

    command: Command
    at: time
    weekday: Weekday | None = None
    day: int | None = None
    """Of the month, 1 to 28: every month has it."""


def next_time(run: Run, zone: ZoneInfo, after: datetime) -> datetime:
    """Give the first moment of a run after another, in UTC.

    A time that the beginning of summer time leaves out falls right behind the gap; one that its end repeats is the first.
    """
    today = after.astimezone(zone).date() - timedelta(days=1)
    candidates = (_moment(run, zone, today + timedelta(days=offset)) for offset in range(64))
    return next(moment for moment in candidates if moment is not None and moment > after)


def due(runs: Sequence[Run], zone: ZoneInfo, since: Mapping[Run, datetime], now: datetime) -> list[Run]:
    """Give the runs that are due, in their order: each once, however often its time has passed."""
    return [run for run in runs if next_time(run, zone, since[run]) <= now]


def keep_running(
    runs: Sequence[Run],
    zone: ZoneInfo,
    *,
    now: Callable[[], datetime],
    wait: Callable[[float], None],
    execute: Callable[[Run], None],
) -> None:
    """Execute each run when it is due, one after the other, until something raises."""
    since = dict.fromkeys(runs, now())
    while True:
        for run in due(runs, zone, since, now()):
            execute(run)
            since[run] = now()
        coming = min(next_time(run, zone, since[run]) for run in runs)
        wait(max(0.0, min(LONGEST_WAIT_SECONDS, (coming - now()).total_seconds())))


def _moment(run: Run, zone: ZoneInfo, on: date) -> datetime | None:
    if run.weekday is not None and WEEKDAYS[on.weekday()] != run.weekday:
        return None
    if run.day is not None and on.day != run.day:
        return None
    return datetime.combine(on, run.at, zone).astimezone(UTC)
