"""The Backup objects and Jobs of runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import CatalogRequest
from avalanche_contract.storage import Place
from avalanche_operator.api.policy import PolicySigning
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import JobPlan, Placement, nonce_of
from avalanche_operator.jobs.mounts import storage_part, trusting
from avalanche_operator.settings import Settings

Object = dict[str, Any]
LOOKUP_SECONDS = 600
LOOKUP_KEPT_SECONDS = 600
"""A question may be asked again, so its Job needs nobody to let it go."""


def run_of_job(policy_uid: str, job: Object, cron_job: str) -> tuple[str, datetime]:
    """Give the identity of a CronJob's Job, and the moment that its Backup is named by."""
    meta = job["metadata"]
    slot = names.slot_of_job(meta["name"], cron_job)
    if slot is not None:
        return f"scheduled/{policy_uid}/{int(slot.timestamp()) // 60}", slot
    return f"job/{meta['uid']}", datetime.fromisoformat(meta["creationTimestamp"])


def scheduled_backup(policy: Object, job: Object, cron_job: str, *, distinct: bool = False) -> Object:
    """Give the Backup that shows a Job of a policy's CronJob; ``distinct`` where another has the plain name."""
    meta = policy["metadata"]
    identity, moment = run_of_job(meta["uid"], job, cron_job)
    name = names.backup_object_name(meta["name"], moment)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Backup",
        "metadata": {
            "name": f"{name}-{job['metadata']['uid'][:6]}" if distinct else name,
            "namespace": meta["namespace"],
            "labels": {names.LABEL_POLICY: meta["name"], names.LABEL_POLICY_UID: meta["uid"]},
        },
        "spec": {
            "policyRef": {"name": meta["name"]},
            "origin": "Scheduled",
            "job": {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]},
            "runIdentity": identity,
        },
    }


def manual_identity(backup: Object) -> str:
    """Give the identity of a manual run."""
    return f"manual/{backup['metadata']['uid']}"


def manual_job_name(backup: Object) -> str:
    """Name the Job of a manual run."""
    meta = backup["metadata"]
    return names.child_name(meta["name"], "Backup", meta["uid"], "backup")


@dataclass(frozen=True)
class Lookup:
    """Where a run would lie, and how to get there."""

    storage_name: str
    storage_spec: BackupStorageSpec
    prefix: str
    placement: Placement
    alone: bool = True
    """The run writes there and nowhere else."""
    signing: PolicySigning | None = None
    """Whom the policy trusts: what none of these signed is not the run."""

    @property
    def mark(self) -> tuple[str, ...]:
        """Keep the Jobs that ask several storages apart."""
        return () if self.alone else (self.storage_name,)


def lookup_job(backup: Object, where: Lookup, identity: str, settings: Settings, number: int) -> JobPlan:
    """Plan the Job that asks the storage whether a run whose result was lost was committed."""
    meta = backup["metadata"]
    storage, mounts = storage_part(where.storage_name, where.storage_spec)
    place = trusting(Place(storage=storage, prefix=where.prefix), where.signing)
    request = CatalogRequest(
        nonce=nonce_of(meta["uid"], settings.cluster_uid),
        storage=place.storage,
        prefixes=(where.prefix,),
        run_identity=identity,
    )
    return JobPlan(
        name=names.child_name(meta["name"], "Backup", meta["uid"], "lookup", *where.mark, str(number)),
        owner=backup,
        request=request,
        mounts=mounts,
        image=settings.backup_image,
        placement=where.placement,
        deadline_seconds=LOOKUP_SECONDS,
        backoff_limit=3,
        ttl_seconds=LOOKUP_KEPT_SECONDS,
    )
