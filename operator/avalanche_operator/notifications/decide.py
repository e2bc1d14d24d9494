"""Who still has to be told of what. Pure.

A pod tells its own outcome; what it could not tell is ``Pending`` from the very write that ends the run, so that an
operator that is killed forgets nothing, and an old Backup is never told of anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from avalanche_contract.notification import QUIET, Event, Told
from avalanche_operator.api.notification import NotificationStatus, PolicyNotification
from avalanche_operator.jobs.observe import Outcome

Object = dict[str, Any]
_WHY_MAX = 1000


def event_of(phase: str | None, *, failing: bool) -> Event | None:
    """Say what the end of a run is worth; ``failing``: a run has failed since the last good one."""
    if phase == "Succeeded":
        return "Recovered" if failing else None
    events: dict[str | None, Event] = {"Failed": "Failed", "Suspect": "Suspect"}
    return events.get(phase)


Order = tuple[str, str]
"""When a run began, and the Backup's name: what is newer than what."""


def order_of(backup: Object) -> Order:
    """Say where a Backup stands among those of its policy."""
    meta, status = backup["metadata"], backup.get("status") or {}
    return str(status.get("startTime") or meta["creationTimestamp"]), meta["name"]


class Past:
    """The failures since the last good run before one Backup, as they pass, in any order; keeps nothing else."""

    def __init__(self, before: Order) -> None:
        self._before = before
        self._good: Order = ("", "")
        self._failures: dict[Order, Object] = {}

    def add(self, backup: Object) -> None:
        """Take note of one Backup; suspect and skipped ones end no row of failures, and are none."""
        order, status = order_of(backup), backup.get("status") or {}
        if order >= self._before:
            return
        if status.get("phase") == "Succeeded":
            self._good = max(self._good, order)
        elif status.get("phase") == "Failed":
            self._failures[order] = {
                name: status.get(name) for name in ("failureReason", "completionTime", "notification")
            }
        self._failures = {at: each for at, each in self._failures.items() if at > self._good}

    @property
    def failing(self) -> bool:
        """Say whether a run has failed since the last good one."""
        return bool(self._failures)

    def told_lately(self, reason: str | None, now: datetime) -> bool:
        """Say whether people know of just this failure already: a policy may run every minute."""
        ends = [
            datetime.fromisoformat(each["completionTime"])
            for each in self._failures.values()
            if each["failureReason"] == reason and each["notification"] and each["completionTime"]
        ]
        return any(now - end < QUIET for end in ends)


def wanted(
    channels: Iterable[PolicyNotification], event: Event, told: Told | None
) -> NotificationStatus | None:
    """Say who wants to know, less those whom the pod told; ``None`` where nobody does."""
    asked = tuple(each.name for each in channels if event in each.events)
    if not asked:
        return None
    sent = told.sent if told is not None and told.event == event else ()
    rest = tuple(name for name in asked if name not in sent)
    return NotificationStatus(event=event, state="Pending" if rest else "Sent", channels=rest or asked)


def settled(pending: NotificationStatus, outcome: Outcome, job: str) -> NotificationStatus:
    """Say what the Job came to that told people."""
    told = outcome.result.notification if outcome.result is not None else None
    good = outcome.result is not None and outcome.result.verdict == "Succeeded"
    sent = tuple(name for name in pending.channels if told is not None and name in told.sent)
    return pending.model_copy(
        update={
            "state": "Sent" if good else "NotSent",
            "channels": sent,
            "job": job,
            "message": None if good else outcome.message[:_WHY_MAX] or outcome.reason,
        }
    )
