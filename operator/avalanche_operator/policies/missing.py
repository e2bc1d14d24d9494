"""Slots that no run started for: counted by every look, told once for each row of them, by a Job."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from avalanche_contract.base import format_time
from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus, CountedSlots
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.decide import wanted
from avalanche_operator.notifications.missed import MOST, Missed, counted, mark_of, missed
from avalanche_operator.notifications.run import advance, let_go
from avalanche_operator.policies.schedule import zone
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


@dataclass(frozen=True)
class Slots:
    """What is shown of slots."""

    counted: CountedSlots
    missed: int
    notification: NotificationStatus | None

    @property
    def pending(self) -> bool:
        """Say whether somebody still has to be told."""
        return self.notification is not None and self.notification.state == "Pending"


async def look_at_slots(
    policy: Object, schedule: str | None, last: datetime | None, around: Surroundings
) -> Slots:
    """Count what was missed, and go on telling of it; ``last`` is the slot of the last run."""
    spec = BackupPolicySpec.model_validate(policy["spec"])
    status = BackupPolicyStatus.model_validate(policy.get("status") or {})
    mark = mark_of(schedule, spec.time_zone, suspended=spec.suspend)
    created = datetime.fromisoformat(policy["metadata"]["creationTimestamp"])
    since = counted(status.slots, mark, created=created, now=around.now())
    found = None
    if schedule is not None and not spec.suspend:
        late = timedelta(seconds=spec.starting_deadline_seconds)
        start = max(since.since, last or since.since)
        found = missed(schedule, zone(spec.time_zone), since=start, late=late, now=around.now())
    notification = await _told(policy, spec, status.notification, found, around)
    return Slots(since, found.count if found else 0, notification)


def last_run(cron_job: Object | None, last_slot: datetime | None) -> datetime | None:
    """Give the newest slot that a run started for, by the CronJob or by the Backups."""
    told = ((cron_job or {}).get("status") or {}).get("lastScheduleTime")
    known = (datetime.fromisoformat(told) if told else None, last_slot)
    return max((each for each in known if each is not None), default=None)


async def _told(
    policy: Object,
    spec: BackupPolicySpec,
    before: NotificationStatus | None,
    found: Missed | None,
    around: Surroundings,
) -> NotificationStatus | None:
    await let_go(policy["metadata"]["namespace"], before, around.gateway)
    if before is not None and before.state == "Pending":
        return await advance(_telling(policy, spec, before, found, around), around)
    if found is None or (before is not None and before.slot == found.first):
        return before
    asked = wanted(spec.notifications, "Missed", None)
    return asked.model_copy(update={"slot": found.first}) if asked is not None else before


def _telling(
    policy: Object,
    spec: BackupPolicySpec,
    pending: NotificationStatus,
    found: Missed | None,
    around: Surroundings,
) -> Telling:
    first = pending.slot or around.now()
    count = found.count if found is not None and found.first == first else 1
    many = (
        "no run started" if count == 1 else f"{count}{' or more' if count == MOST else ''} runs did not start"
    )
    return Telling(
        owner=policy,
        policy=policy,
        pending=pending,
        reason="MissedSchedule",
        message=f"{many} since the slot of {format_time(first)} ({spec.schedule} {spec.time_zone})",
        time=around.now(),
    )
