"""Which backups stay, and why. Pure: values, ``now`` and a time zone in; a verdict with reasons for each backup out.

``daily: 7`` keeps the seven most recent days *that have* a verified backup, not the last seven days: when backups
stop, nothing ages away. A period is represented by its first verified backup that is still there, so that a choice
never changes later, and cleaning up often keeps what cleaning up seldom keeps. Weeks begin on Sunday.

What will go by itself, by an expiration of its own, represents no period: its slot would be lost with it. What is
damaged, suspect, incomplete, copied or dated wrongly represents none either, and stays: only a person says that it goes
(xen-orchestra#2524, restic#22057).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal

State = Literal[
    "Verified", "NotVerified", "VerificationFailed", "Suspect", "Incomplete", "Duplicate", "Unreadable"
]
_SHOWN: dict[State, str] = {
    "NotVerified": "not-verified",
    "VerificationFailed": "verification-failed",
    "Suspect": "suspect",
    "Incomplete": "objects-missing",
    "Duplicate": "duplicate",
    "Unreadable": "metadata-unreadable",
}
EPOCH = datetime(1970, 1, 2, tzinfo=UTC)
"""What claims to be older is dated wrongly: no calendar reaches much further back."""


@dataclass(frozen=True)
class Retention:
    """How many representatives of each kind of period stay; 0 is none of that kind."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


@dataclass(frozen=True)
class Candidate:
    """What retention knows of one backup; ``moment`` is the second that its ID names."""

    backup_id: str
    group: str
    """Policy and type: only backups of one group stand for the same periods."""
    moment: datetime
    state: State
    manual: bool = False
    held: bool = False
    restoring: bool = False
    """A restore has chosen it."""
    expiration: datetime | None = None
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether one backup stays. Reasons: ``daily-3``, ``last-verified``, ``hold``, ``needed-by-…``, ``no-rule``."""

    backup_id: str
    keep: bool
    reasons: tuple[str, ...]


def decide(
    candidates: Iterable[Candidate], retention: Retention | None, now: datetime, zone: tzinfo
) -> tuple[Verdict, ...]:
    """Give a verdict on every backup, the oldest first. Without ``retention`` everything stays that did not expire."""
    own = sorted(candidates, key=lambda each: (each.moment, each.backup_id))
    reasons: dict[str, list[str]] = {each.backup_id: [] for each in own}
    for each in own:
        reasons[each.backup_id] += _protected(each, retention, now)
    for group in sorted({each.group for each in own}):
        good = [each for each in own if each.group == group and _counts(each, now)]
        if good:
            reasons[good[-1].backup_id].append("last-verified")
        if retention is not None:
            regular = [each for each in good if not each.manual and each.expiration is None]
            for name, backup_id in _represent(regular, retention, zone):
                reasons[backup_id].append(name)
    _keep_what_is_needed(own, reasons)
    return tuple(_verdict(each, tuple(reasons[each.backup_id]), now) for each in own)


def too_many(verdicts: Sequence[Verdict], max_percent: int) -> str | None:
    """Say that more would go at once than may go without being told, or ``None``."""
    gone = sum(not each.keep for each in verdicts)
    if gone * 100 <= max_percent * len(verdicts):
        return None
    share = gone * 100 // len(verdicts)
    return f"{gone} of {len(verdicts)} backups ({share} %) would go at once, and {max_percent} % is the limit"


def _protected(each: Candidate, retention: Retention | None, now: datetime) -> list[str]:
    """Give what keeps a backup whatever the periods say."""
    found = [name for name, kept in (("hold", each.held), ("restoring", each.restoring)) if kept]
    if not EPOCH <= each.moment <= now:
        return [*found, "future-dated" if each.moment > now else "dated-before-1970"]
    if each.state == "Unreadable":
        return [*found, _SHOWN[each.state]]
    if _expired(each, now):
        return found
    if each.expiration is not None:
        found.append("expiration-time")
    if each.state in _SHOWN:
        found.append(_SHOWN[each.state])
    if each.manual:
        found.append("manual")
    return [*found, "no-retention"] if retention is None else found


def _counts(each: Candidate, now: datetime) -> bool:
    return each.state == "Verified" and EPOCH <= each.moment <= now


def _expired(each: Candidate, now: datetime) -> bool:
    return each.expiration is not None and each.expiration <= now


def _represent(regular: list[Candidate], retention: Retention, zone: tzinfo) -> list[tuple[str, str]]:
    """Give (reason, backup ID) for each period that is represented; ``regular`` is ordered, the oldest first."""
    periods: tuple[tuple[str, int, Callable[[date], object]], ...] = (
        ("daily", retention.daily, lambda day: day),
        ("weekly", retention.weekly, _sunday),
        ("monthly", retention.monthly, lambda day: (day.year, day.month)),
        ("yearly", retention.yearly, lambda day: day.year),
    )
    newest = list(reversed(regular))[: retention.last]
    found = [(f"last-{number}", each.backup_id) for number, each in enumerate(newest, start=1)]
    for name, count, period_of in periods:
        first: dict[object, str] = {}
        for each in regular:
            first.setdefault(period_of(each.moment.astimezone(zone).date()), each.backup_id)
        recent = list(reversed(first.values()))[:count]
        found += [(f"{name}-{number}", backup_id) for number, backup_id in enumerate(recent, start=1)]
    return found


def _sunday(day: date) -> date:
    """Give the Sunday that a day's week begins with."""
    return day - timedelta(days=day.isoweekday() % 7)


def _keep_what_is_needed(own: list[Candidate], reasons: dict[str, list[str]]) -> None:
    """Keep what a kept backup depends on, and what that depends on."""
    needs = {each.backup_id: each.depends_on for each in own}
    waiting = [backup_id for backup_id, found in reasons.items() if found]
    while waiting:
        backup_id = waiting.pop()
        for needed in needs[backup_id]:
            if needed in reasons and f"needed-by-{backup_id}" not in reasons[needed]:
                waiting += [] if reasons[needed] else [needed]
                reasons[needed].append(f"needed-by-{backup_id}")


def _verdict(each: Candidate, reasons: tuple[str, ...], now: datetime) -> Verdict:
    if reasons:
        return Verdict(each.backup_id, keep=True, reasons=reasons)
    return Verdict(each.backup_id, keep=False, reasons=("expired" if _expired(each, now) else "no-rule",))
