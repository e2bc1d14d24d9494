"""The drills of one policy: the CronJob as it should be, what those that ended mean, and telling of it.

One after the other: the next one is recorded when people were told of the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract.request import DrillRequest, Newest
from avalanche_operator.api.drill import DrillRun, DrillsStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.applying.build import Applied
from avalanche_operator.applying.owned import apply_owned, remove_owned
from avalanche_operator.backups.write import write_each
from avalanche_operator.drilling.build import drill_cron_job, drill_mounts, drill_name, drill_schedule
from avalanche_operator.drilling.decide import after, after_drill, drilled, verdict
from avalanche_operator.jobs.asked import request_of
from avalanche_operator.jobs.build import nonce_of
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.series import Series, ended
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.run import advance, let_go
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
TELLING_SECONDS = 1.0


@dataclass(frozen=True)
class Drills:
    """What the drills of a policy came to; nothing where there are none."""

    verdict: Verdict | None = None
    last: DrillRun | None = None
    status: DrillsStatus | None = None

    @property
    def again_seconds(self) -> float | None:
        """Say when telling goes on."""
        return TELLING_SECONDS if self.status is not None and _pending(self.status) else None


def _pending(status: DrillsStatus) -> bool:
    return status.notification is not None and status.notification.state == "Pending"


async def apply_drill(applied: Applied, around: Surroundings) -> None:
    """Make the CronJob that drills as it should be; where none is asked for, there is none.

    :raises NameTaken: a CronJob of its name is not ours.
    :raises ScheduleInvalid: the schedule cannot be used.
    :raises PlanImpossible: a question is none.
    """
    drill = applied.spec.verification.drill
    if drill is None:
        await remove_owned(applied.policy, drill_name(applied.policy), around.gateway)
        return
    schedule = drill_schedule(applied, drill)
    placement = await placed(drill_mounts(applied), applied.namespace, around.gateway)
    nodes = None if isinstance(placement, Verdict) else placement.nodes
    await apply_owned(applied.policy, drill_cron_job(applied, drill, schedule, nodes), around.gateway)


async def look_at_drills(found: Object, around: Surroundings) -> Drills:
    """Bring what a drill came to into the status of its Backup; recorded is one only when that is done."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    drill = spec.verification.drill
    if drill is None:
        return Drills()
    before = BackupPolicyStatus.model_validate(found.get("status") or {})
    last, status = before.last_drill, await _told(found, before, around)
    nonce = nonce_of(found["metadata"]["uid"], around.settings.cluster_uid)
    series = Series(found, drill_name(found), "drill", nonce)
    async for each, outcome, answer in ended(around.gateway, series, (last.time, last.job) if last else None):
        run = drilled(each, outcome, answer)
        if _pending(status) or not await _show(found, run, _prefix(each), around):
            break  # somebody is told, or a Backup changed meanwhile: the next look goes on from here
        last, status = run, after(status, run, spec.notifications)
    return Drills(verdict(last, suspended=spec.suspend or drill.suspend), last, status)


def _prefix(job: Object) -> str:
    """Give the folder that was drilled from, as the Job's own request says."""
    request = request_of(job)
    newest = request.backup if isinstance(request, DrillRequest) else None
    return newest.places[0].prefix if isinstance(newest, Newest) else ""


async def _show(found: Object, run: DrillRun, prefix: str, around: Surroundings) -> bool:
    """Write what a drill came to into its Backup; say whether that could be written."""
    if run.backup_id is None:
        return True
    return await write_each(found, lambda status: after_drill(status, run, prefix), around)


async def _told(found: Object, before: BackupPolicyStatus, around: Surroundings) -> DrillsStatus:
    """Go on telling what an earlier look has written down, and let the Job of what is told go."""
    status, last = before.drills or DrillsStatus(), before.last_drill
    pending = status.notification
    await let_go(found["metadata"]["namespace"], pending, around.gateway)
    if pending is None or pending.state != "Pending" or last is None:
        return status
    failed = last.result != "Succeeded" and last.backup_id is not None
    telling = Telling(
        owner=found,
        policy=found,
        pending=pending,
        reason=last.reason,
        message=f"{last.backup_id}: {last.message}" if failed else last.message,
        time=last.time,
    )
    return status.model_copy(update={"notification": await advance(telling, around)})
