"""The cleanups of one policy: the CronJob as it should be, and what those that ended mean for its Backups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract.request import CleanupRequest
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.api.retention import CleanupStatus
from avalanche_operator.applying.build import Applied
from avalanche_operator.applying.owned import apply_owned, remove_owned
from avalanche_operator.applying.schedule import resolve
from avalanche_operator.backups.write import write_each
from avalanche_operator.jobs.asked import request_of
from avalanche_operator.jobs.build import nonce_of
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.series import Series, ended
from avalanche_operator.keeping.build import cleanup_cron_job, cleanup_name, mounts_of
from avalanche_operator.keeping.decide import (
    Cleaned,
    Place,
    after_cleanup,
    cleaned,
    has_data,
    retention_verdict,
    superfluous,
)
from avalanche_operator.keeping.forget import forget
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """What the cleanups of a policy came to; both ``None`` without retention."""

    verdict: Verdict | None = None
    last: CleanupStatus | None = None


def looked_at(job: Object) -> Place:
    """Give what the Job of a cleanup looked at, as its own request says: the policy may have changed since."""
    request = request_of(job)
    if not isinstance(request, CleanupRequest):
        return Place()
    places = (request.place, *request.others)
    return Place(frozenset(each.storage.name for each in places), request.place.prefix)


async def apply_cleanup(applied: Applied, around: Surroundings) -> None:
    """Make the CronJob that cleans up as it should be; without retention there is none.

    :raises NameTaken: a CronJob of its name is not ours.
    :raises ScheduleInvalid: the schedule cannot be used.
    """
    keep, name = applied.spec.retention, cleanup_name(applied.policy)
    if keep is None:
        await remove_owned(applied.policy, name, around.gateway)
        return
    schedule = resolve(keep.schedule, applied.policy["metadata"]["uid"])
    placement = await placed(mounts_of(applied.storages), applied.namespace, around.gateway)
    nodes = None if isinstance(placement, Verdict) else placement.nodes
    await apply_owned(applied.policy, cleanup_cron_job(applied, keep, schedule, nodes), around.gateway)


async def look_at_cleanups(found: Object, around: Surroundings) -> Kept:
    """Bring what the cleanups said into the status of each Backup; recorded is one only when all of that is done."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    if spec.retention is None:
        return Kept()
    last = BackupPolicyStatus.model_validate(found.get("status") or {}).last_cleanup
    nonce = nonce_of(found["metadata"]["uid"], around.settings.cluster_uid)
    series = Series(found, cleanup_name(found), "cleanup", nonce)
    async for each, outcome, answer in ended(around.gateway, series, (last.time, last.job) if last else None):
        told = cleaned(each, outcome, answer)
        if not await _show(found, told, looked_at(each), around):
            break  # a Backup changed meanwhile: the next look goes on from here
        last = told.status
    return Kept(retention_verdict(last), last)


async def _show(found: Object, told: Cleaned, place: Place, around: Surroundings) -> bool:
    """Write what a cleanup said into each Backup of its place; say whether all of it could be written."""

    def after(status: BackupStatus) -> BackupStatus:
        concerned = place.holds(status) and (has_data(status) or status.removal is not None)
        return after_cleanup(status, told, around.now()) if concerned else status

    return await write_each(found, after, around)


async def forget_superfluous(found: Object, failed: list[Object], around: Surroundings) -> None:
    """Delete the Backups of failed scheduled runs that are too many."""
    limit = BackupPolicySpec.model_validate(found["spec"]).failed_backups_history_limit
    for each in superfluous(failed, limit):
        await forget(each, around.gateway)
