"""The verifications of one policy: the CronJob as it should be, and what those that ended mean for its Backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract.request import VerifyRequest
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.api.verification import VerificationRun
from avalanche_operator.applying.build import Applied
from avalanche_operator.applying.owned import apply_owned
from avalanche_operator.backups.write import write_each
from avalanche_operator.jobs.asked import request_of
from avalanche_operator.jobs.build import nonce_of
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.series import Series, ended
from avalanche_operator.keeping.decide import has_data
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.settings import Surroundings
from avalanche_operator.verifying.build import (
    storage_mounts,
    verification_cron_job,
    verification_name,
    verification_schedule,
)
from avalanche_operator.verifying.decide import Verified, after_looking, last_verified, verdict, verified

Object = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """What the verifications of a policy came to."""

    last: VerificationRun | None = None
    last_verified_time: datetime | None = None
    suspended: bool = False

    def verdict(self, damaged: Sequence[str]) -> Verdict:
        """Say so in a condition; ``damaged`` are the names of its Backups that are."""
        return verdict(self.last, damaged, suspended=self.suspended)


async def apply_verification(applied: Applied, around: Surroundings) -> None:
    """Make the CronJob that verifies as it should be.

    :raises NameTaken: a CronJob of its name is not ours.
    :raises ScheduleInvalid: the schedule cannot be used.
    """
    schedule = verification_schedule(applied)
    placement = await placed(storage_mounts(applied), applied.namespace, around.gateway)
    nodes = None if isinstance(placement, Verdict) else placement.nodes
    await apply_owned(applied.policy, verification_cron_job(applied, schedule, nodes), around.gateway)


async def look_at_verifications(found: Object, around: Surroundings) -> Read:
    """Bring what verifications found into the status of each Backup; recorded is one only when all of that is done."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    status = BackupPolicyStatus.model_validate(found.get("status") or {})
    last, time = status.last_verification, status.last_verified_time
    nonce = nonce_of(found["metadata"]["uid"], around.settings.cluster_uid)
    series = Series(found, verification_name(found), "verify", nonce)
    async for each, outcome, answer in ended(around.gateway, series, (last.time, last.job) if last else None):
        told = verified(each, outcome, answer)
        if not await _show(found, told, _prefix(each), around):
            break  # a Backup changed meanwhile: the next look goes on from here
        last, time = told.run, last_verified(time, told.run)
    return Read(last, time, suspended=spec.suspend or spec.verification.suspend)


def _prefix(job: Object) -> str:
    """Give the folder that was looked at, as the Job's own request says."""
    request = request_of(job)
    return request.backup.place.prefix if isinstance(request, VerifyRequest) else ""


async def _show(found: Object, told: Verified, prefix: str, around: Surroundings) -> bool:
    """Write what was found into each Backup; say whether all of it could be written."""

    def after(status: BackupStatus) -> BackupStatus:
        concerned = has_data(status) or status.removal is not None
        return after_looking(status, told, prefix, around.now()) if concerned else status

    return await write_each(found, after, around)
