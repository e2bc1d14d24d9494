"""Whether the objectives of a policy are met, by its newest good backup and its last restore or drill. Pure.

Messages name moments and not ages, so that nothing is written anew as time passes; ``due`` is the moment at which the
answer changes by time alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from avalanche_contract.base import format_time
from avalanche_contract.notification import QUIET
from avalanche_operator.api.drill import DrillsStatus
from avalanche_operator.api.notification import PolicyNotification
from avalanche_operator.api.objectives import ObjectivesStatus, PolicyObjectives
from avalanche_operator.api.restore import RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.kube.conditions import Status, Verdict
from avalanche_operator.notifications.decide import wanted

Object = dict[str, Any]
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Measured:
    """How long a recovery takes, and how that is known."""

    seconds: int
    by: str
    when: datetime


@dataclass(frozen=True)
class Judged:
    """One objective: met, missed or not known; and when that changes as time passes."""

    status: Status
    reason: str
    message: str
    due: datetime | None = None


def measured(restores: Iterable[Object], policy: str, drills: DrillsStatus | None = None) -> Measured | None:
    """Give the last restore of everything of a policy, or drill, that succeeded; else the last plan that estimates."""
    done: list[Measured] = _drilled(drills)
    planned: list[Measured] = []
    for each in restores:
        try:
            spec = RestoreRequestSpec.model_validate(each["spec"])
            status = RestoreRequestStatus.model_validate(each.get("status") or {})
        except ValidationError:
            continue  # its own reconcile says so; it measured nothing here
        if status.backup is None or status.backup.policy != policy or spec.sources or spec.paths:
            continue
        name, created = (
            each["metadata"]["name"],
            datetime.fromisoformat(each["metadata"]["creationTimestamp"]),
        )
        if status.phase == "Succeeded" and status.duration_seconds is not None and status.completion_time:
            by = f"RestoreRequest {name} took it"
            done.append(Measured(status.duration_seconds, by, status.completion_time))
        elif status.plan is not None and status.plan.estimated_seconds is not None:
            by = f"the plan of RestoreRequest {name} estimates it"
            planned.append(Measured(status.plan.estimated_seconds, by, created))
    return max(done or planned, key=lambda one: one.when, default=None)


def _drilled(drills: DrillsStatus | None) -> list[Measured]:
    if drills is None or drills.restore_seconds is None or drills.last_successful_time is None:
        return []
    by = f"the drill of {format_time(drills.last_successful_time)} took it"
    return [Measured(drills.restore_seconds, by, drills.last_successful_time)]


def of_point(seconds: int, newest: datetime | None, created: datetime, now: datetime) -> Judged:
    """Say whether the newest good backup is new enough; before the first one, a policy has as long as that."""
    due = (newest or created) + timedelta(seconds=seconds)
    allowed = f"its data may be {_span(seconds)} old"
    if newest is None:
        told = f"there is no good backup; {allowed}"
        if now < due:
            return Judged("Unknown", "NoBackupYet", f"{told}, until {format_time(due)}", due)
        return Judged("False", "RecoveryPointMissed", f"{told}: missed since {format_time(due)}")
    told = f"the newest good backup is of {format_time(newest)}; {allowed}"
    if now < due:
        return Judged("True", "ObjectivesMet", told, due)
    return Judged("False", "RecoveryPointMissed", f"{told}: missed since {format_time(due)}")


def of_time(seconds: int, found: Measured | None) -> Judged:
    """Say whether a recovery is fast enough."""
    allowed = f"a recovery may take {_span(seconds)}"
    if found is None:
        return Judged(
            "Unknown", "RecoveryTimeUnknown", f"{allowed}, and none was measured: drill, restore or plan one"
        )
    told = f"it takes {_span(found.seconds)} ({found.by}); {allowed}"
    if found.seconds > seconds:
        return Judged("False", "RecoveryTimeMissed", told)
    return Judged("True", "ObjectivesMet", told)


def judged(
    asked: PolicyObjectives,
    *,
    newest: datetime | None,
    found: Measured | None,
    created: datetime,
    now: datetime,
) -> tuple[Verdict, datetime | None]:
    """Give the condition ``ObjectivesMet``, and when it changes as time passes: what is missed counts most."""
    parts: list[Judged] = []
    if asked.recovery_point_seconds is not None:
        parts.append(of_point(asked.recovery_point_seconds, newest, created, now))
    if asked.recovery_time_seconds is not None:
        parts.append(of_time(asked.recovery_time_seconds, found))
    worst = min(parts, key=lambda one: ("False", "Unknown", "True").index(one.status))
    message = "; ".join(each.message for each in parts)
    due = min((each.due for each in parts if each.due is not None), default=None)
    return Verdict("ObjectivesMet", worst.status, worst.reason, message), due


def after(
    before: ObjectivesStatus, verdict: Verdict, channels: Iterable[PolicyNotification], now: datetime
) -> ObjectivesStatus:
    """Say who has to be told: of a miss once, of its end once, and not again of one within half a day."""
    asked = tuple(channels)
    if before.notification is not None and before.notification.state == "Pending":
        return before
    if verdict.status == "False" and before.missed_time is None:
        lately = before.told_time is not None and now - before.told_time < QUIET
        owed = None if lately else wanted(asked, "ObjectiveMissed", None)
        if owed is None:
            return before
        told = owed.model_copy(update={"slot": now})
        return before.model_copy(update={"missed_time": now, "told_time": now, "notification": told})
    if verdict.status == "True" and before.missed_time is not None:
        owed = wanted(asked, "Recovered", None)
        met = owed.model_copy(update={"slot": now}) if owed is not None else before.notification
        return before.model_copy(update={"missed_time": None, "notification": met})
    return before


def _span(seconds: int) -> str:
    """Write a span for people: the two largest units that are not nothing."""
    parts: list[str] = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts[:2]) or "0 s"
