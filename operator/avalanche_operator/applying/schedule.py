"""From a policy's schedule to what CronJob understands: ``H`` and jitter resolved, macros written out. Pure."""

from __future__ import annotations

import hashlib
import re
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
_TERM = r"(\*|(\d+|[A-Za-z]{3})(-(\d+|[A-Za-z]{3}))?)(/\d+)?"
_FIELD = re.compile(rf"{_TERM}(,{_TERM})*")
"""What CronJob takes: ``L``, ``LW`` and ``MON#1`` of other crons are not among it."""
_HASH = re.compile(r"(?<![A-Za-z])H(?![A-Za-z])")


class ScheduleInvalid(ValueError):
    """The schedule or the time zone cannot be used; ``reason`` is CamelCase, the text says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def resolve(schedule: str, uid: str, jitter_seconds: int = 0) -> str:
    """Give the five fields of a schedule; ``H`` and jitter become the same minute for the same policy, always.

    :raises ScheduleInvalid: no cron expression that CronJob takes, H in another place than minute and hour, or
        jitter where the minute is not one number.
    """
    text = _MACROS.get(schedule.strip(), schedule)
    fields = text.split()
    for place, count in enumerate(_RANGES):
        if place < len(fields) and fields[place] == "H":
            fields[place] = str(_stable(uid, place) % count)
    if any(_HASH.search(each) for each in fields):
        raise ScheduleInvalid(
            "InvalidSchedule", f"schedule {schedule!r}: H stands alone, for the minute or the hour"
        )
    strange = next((each for each in fields if not _FIELD.fullmatch(each)), None)
    if strange is not None:
        raise ScheduleInvalid(
            "InvalidSchedule",
            f"schedule {schedule!r}: {strange!r} is not known here: use numbers, names, '*', ',', '-' and '/'",
        )
    try:
        CronSim(" ".join(fields), datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ScheduleInvalid("InvalidSchedule", f"schedule {schedule!r}: {error}") from None
    if jitter_seconds:
        fields[0] = _later(schedule, fields[0], uid, jitter_seconds)
    return " ".join(fields)


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


def _later(schedule: str, minute: str, uid: str, jitter_seconds: int) -> str:
    """Give a later minute of the same hour: neither the day nor a time zone's border is ever crossed."""
    if not minute.isdigit():
        raise ScheduleInvalid(
            "InvalidSchedule", f"schedule {schedule!r}: jitterSeconds needs a minute that is one number"
        )
    room = min(jitter_seconds // 60, _RANGES[0] - 1 - int(minute))
    return str(int(minute) + _stable(uid, len(_RANGES)) % (max(0, room) + 1))


def spread(schedule: str, uid: str, jitter_seconds: int) -> str:
    """Resolve the schedule of what a policy does besides its runs; jitter counts where the minute is one number.

    :raises ScheduleInvalid: as :func:`resolve`.
    """
    found = resolve(schedule, uid)
    return resolve(found, uid, jitter_seconds) if found.split()[0].isdigit() else found


def _stable(uid: str, place: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{uid}/{place}".encode()).digest()[:8], "big")
