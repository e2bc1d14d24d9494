"""From a policy's schedule to what CronJob understands: ``H`` resolved, macros written out, time zone known. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_RANGES = (60, 24)
"""How many values H may take in its two places."""


class ScheduleInvalid(ValueError):
    """The schedule or the time zone cannot be used; ``reason`` is CamelCase, the text says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def resolve(schedule: str, uid: str) -> str:
    """Give the five fields of a schedule; ``H`` becomes the same value for the same policy, always.

    :raises ScheduleInvalid: no cron expression, or H in another place than minute and hour.
    """
    text = _MACROS.get(schedule.strip(), schedule)
    fields = text.split()
    for place, count in enumerate(_RANGES):
        if place < len(fields) and fields[place] == "H":
            fields[place] = str(_stable(uid, place) % count)
    resolved = " ".join(fields)
    if "H" in resolved:
        raise ScheduleInvalid(
            "InvalidSchedule", f"schedule {schedule!r}: H stands alone, for the minute or the hour"
        )
    try:
        CronSim(resolved, datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ScheduleInvalid("InvalidSchedule", f"schedule {schedule!r}: {error}") from None
    return resolved


def zone(name: str) -> ZoneInfo:
    """Give a time zone.

    :raises ScheduleInvalid: there is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleInvalid(
            "InvalidTimeZone", f"timeZone {name!r} is not known: use a name such as Europe/Berlin or Etc/UTC"
        ) from None


def next_time(resolved: str, where: ZoneInfo, now: datetime) -> datetime | None:
    """Give the next slot after ``now``, in UTC; ``None`` for a day that never comes."""
    try:
        return next(CronSim(resolved, now.astimezone(where))).astimezone(UTC)
    except StopIteration:
        return None


def _stable(uid: str, place: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{uid}/{place}".encode()).digest()[:8], "big")
