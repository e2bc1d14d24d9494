"""Slots that no run started for: counted by every look, told once for each row of them, by a Job."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from avalanche_contract.base import format_time
from avalanche_contract.names import slot_of_job
from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus, CountedSlots
from avalanche_operator.applying.schedule import zone
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.decide import wanted
from avalanche_operator.notifications.missed import MOST, Missed, counted, mark_of, missed, passed_over
from avalanche_operator.notifications.run import advance, let_go
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


@dataclass(frozen=True)
class _Look:
    """One policy, what was counted of it, and what people were told last."""

    policy: Object
    spec: BackupPolicySpec
    counts: CountedSlots
    told: NotificationStatus | None


async def look_at_slots(
    policy: Object, schedule: str | None, runs: Collection[datetime], around: Surroundings
) -> Slots:
    """Count what was missed, and go on telling of it; ``runs`` are the slots of the runs that are known."""
    spec = BackupPolicySpec.model_validate(policy["spec"])
    status = BackupPolicyStatus.model_validate(policy.get("status") or {})
    mark = mark_of(schedule, spec.time_zone, suspended=spec.suspend)
    created = datetime.fromisoformat(policy["metadata"]["creationTimestamp"])
    counts = counted(status.slots, mark, created=created, now=around.now())
    last = max(runs, default=None)
    waiting, over = None, list[Missed]()
    if schedule is not None and not spec.suspend:
        late, where = timedelta(seconds=spec.starting_deadline_seconds), zone(spec.time_zone)
        known = max(counts.since, counts.last or status.last_schedule_time or counts.since)
        over = passed_over(schedule, where, since=known, runs=runs, late=late)
        start = max(counts.since, last or counts.since)
        waiting = missed(schedule, where, since=start, late=late, now=around.now())
    look = _Look(policy, spec, _seen(counts, status, last, over), status.notification)
    notification = await _told(look, over[-1] if over else waiting, around)
    return Slots(look.counts, waiting.count if waiting else 0, notification)


def _seen(
    counts: CountedSlots, status: BackupPolicyStatus, last: datetime | None, over: Iterable[Missed]
) -> CountedSlots:
    """Give the counts after a look: a row that a run ended is over, and was as long as it was shown, or longer."""
    if last is None or (counts.last is not None and last <= counts.last):
        return counts
    shown = status.missed_runs if status.slots is not None and status.slots.mark == counts.mark else 0
    missed_slots = max(sum(each.count for each in over), shown)
    return counts.model_copy(update={"last": last, "missed": counts.missed + missed_slots})


def runs_known(
    cron_job: Object | None, jobs: Iterable[Object], last_slot: datetime | None
) -> frozenset[datetime]:
    """Give the slots that runs started for, by the CronJob, its Jobs and the newest of the Backups."""
    told = ((cron_job or {}).get("status") or {}).get("lastScheduleTime")
    name = cron_job["metadata"]["name"] if cron_job is not None else ""
    slots = [slot_of_job(each["metadata"]["name"], name) for each in jobs]
    return frozenset(
        each for each in (datetime.fromisoformat(told) if told else None, last_slot, *slots) if each
    )


async def _told(look: _Look, found: Missed | None, around: Surroundings) -> NotificationStatus | None:
    before = look.told
    await let_go(look.policy["metadata"]["namespace"], before, around.gateway)
    if before is not None and before.state == "Pending":
        return await advance(_telling(look, before, found, around.now()), around)
    if found is None or (before is not None and before.slot == found.first):
        return before
    asked = wanted(look.spec.notifications, "Missed", None)
    return asked.model_copy(update={"slot": found.first}) if asked is not None else before


def _telling(look: _Look, pending: NotificationStatus, found: Missed | None, now: datetime) -> Telling:
    first, spec = pending.slot or now, look.spec
    since = f"since the slot of {format_time(first)} ({spec.schedule} {spec.time_zone})"
    if found is not None and found.first == first:
        many = f"{found.count}{' or more' if found.count == MOST else ''} runs did not start"
        told = f"{'no run started' if found.count == 1 else many} {since}"
    else:
        told = f"runs did not start {since}; they do again, and {look.counts.missed} were missed in all"
    return Telling(
        owner=look.policy,
        policy=look.policy,
        pending=pending,
        reason="MissedSchedule",
        message=told,
        time=now,
    )
