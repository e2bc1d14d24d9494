"""Slots of a schedule that no run started for. Pure: from the schedule, what ran last, and the clock.

A slot is missed when it is older than a run may be late. Counted are those since the last run, and none from before the
policy, its present schedule, or the end of its suspension; at most :data:`MOST`, the first ones, so that the first
missed slot, which names the message about them, stays the same while more are missed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from avalanche_operator.api.policy import CountedSlots

MOST = 100
GRACE_SECONDS = 60
"""What the CronJob controller and our own view of it may be late."""
SUSPENDED = "suspended"


@dataclass(frozen=True)
class Missed:
    """The first slot that was missed, and how many were."""

    first: datetime
    count: int


def mark_of(schedule: str | None, time_zone: str, *, suspended: bool) -> str:
    """Name what slots are counted by."""
    return SUSPENDED if suspended or schedule is None else f"{schedule} {time_zone}"


def counted(before: CountedSlots | None, mark: str, *, created: datetime, now: datetime) -> CountedSlots:
    """Say since when slots count: since the policy was created, or since what they are counted by changed."""
    if before is not None and before.mark == mark:
        return before
    if before is None:
        return CountedSlots(mark=mark, since=created)
    return CountedSlots(mark=mark, since=now, last=before.last, missed=before.missed)


def missed(
    schedule: str, zone: ZoneInfo, *, since: datetime, late: timedelta, now: datetime
) -> Missed | None:
    """Give the slots after ``since`` that nothing can start for any more; ``None`` where there are none."""
    latest = now - late - timedelta(seconds=GRACE_SECONDS)
    first, count = None, 0
    try:
        for slot in CronSim(schedule, since.astimezone(zone)):
            if slot.astimezone(UTC) > latest or count == MOST:
                break
            first, count = first or slot.astimezone(UTC), count + 1
    except StopIteration:  # a day that never comes
        pass
    return Missed(first, count) if first is not None else None


def passed_over(
    schedule: str, zone: ZoneInfo, *, since: datetime, runs: Iterable[datetime], late: timedelta
) -> list[Missed]:
    """Give the rows of slots after ``since`` that were too old to start when a later one did: nobody may have looked."""
    rows: list[Missed] = []
    for run in sorted(each for each in runs if each > since):
        row = missed(schedule, zone, since=since, late=late, now=run)
        rows += [row] if row is not None else []
        since = run
    return rows
