"""The CronJob of a policy, the Job of a manual run, and the probe: one request each. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import (
    Anomaly,
    BackupRequest,
    Compression,
    Encryption,
    ProbeRequest,
    Run,
    Writer,
)
from avalanche_contract.source import Source
from avalanche_contract.storage import Place
from avalanche_operator.api.policy import BackupPolicySpec, Identity
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import (
    JobPlan,
    Placement,
    fingerprint,
    job_spec,
    labels,
    nonce_of,
    owner_reference,
)
from avalanche_operator.jobs.mounts import (
    Mounts,
    encryption_part,
    signing_part,
    source_part,
    storage_part,
    trusting,
)
from avalanche_operator.jobs.probing import DEADLINE_SECONDS
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.notifications.build import notifications_part
from avalanche_operator.settings import Settings

Object = dict[str, Any]
HISTORY_LIMIT = 10_000
"""So many Jobs the CronJob controller leaves: a week of one a minute. It counts what no Backup shows yet as well, so
how many stay is not its to say, but the operator's, once their Backups tell what they came to."""


@dataclass(frozen=True)
class Applied:
    """A policy together with the storages that it names: what every Job of it is built from."""

    policy: Object
    spec: BackupPolicySpec
    storage_name: str
    """The first destination."""
    storage_spec: BackupStorageSpec
    settings: Settings
    placement: Placement = field(default_factory=Placement)
    unplaceable: bool = False
    """No pod can have all the claims now: nothing is tried."""
    identity: Identity | None = None
    """As whom the pods that use the claims run, or ran."""
    others: tuple[tuple[str, BackupStorageSpec], ...] = ()
    """Further destinations by their names, in the policy's order."""
    copies: Verdict | None = None
    """CopiesComplete, where there are several destinations."""
    unusable: frozenset[str] = frozenset()
    """Destinations that are not known to be usable: runs try them, a probe does not wait for them."""

    @property
    def namespace(self) -> str:
        """Give the policy's namespace."""
        return str(self.policy["metadata"]["namespace"])

    @property
    def place(self) -> Place:
        """Give where its backups lie first of all."""
        return self.places[0]

    @property
    def places(self) -> tuple[Place, ...]:
        """Give where its backups lie."""
        prefix = names.policy_prefix(self.namespace, self.policy["metadata"]["name"])
        found = (Place(storage=storage_part(*each)[0], prefix=prefix) for each in self.storages)
        return tuple(trusting(each, self.spec.signing) for each in found)

    @property
    def storages(self) -> tuple[tuple[str, BackupStorageSpec], ...]:
        """Give the destinations by their names, in the policy's order."""
        return ((self.storage_name, self.storage_spec), *self.others)

    @property
    def min_copies(self) -> int | None:
        """Give how many copies a run needs, where that is not one in each place."""
        needed = self.spec.min_copies
        return needed if needed is not None and needed < len(self.storages) else None

    @property
    def writer(self) -> Writer:
        """Give who writes."""
        meta = self.policy["metadata"]
        return Writer(
            cluster_uid=self.settings.cluster_uid,
            namespace=self.namespace,
            policy=meta["name"],
            policy_uid=meta["uid"],
            take_over=self.spec.take_over,
        )

    @property
    def keeper(self) -> Writer:
        """Give whose backups are cleaned up and verified: that never adopts what is another's."""
        return self.writer.model_copy(update={"take_over": None})

    def sources(self) -> tuple[tuple[Source, ...], Mounts]:
        """Give the sources of a request, and what a pod must mount for them, the storages and whom it encrypts for."""
        parts = [source_part(source, "backup") for source in self.spec.sources]
        mounts = sum((storage_part(*each)[1] for each in self.storages), Mounts())
        _, recipients = encryption_part(self.spec.encryption)
        return tuple(part for part, _ in parts), sum((each for _, each in parts), mounts + recipients)

    @property
    def encryption(self) -> Encryption | None:
        """Give whom backups are encrypted for."""
        return encryption_part(self.spec.encryption)[0]


def cron_job_name(policy: Object) -> str:
    """Name the CronJob of a policy."""
    return names.child_name(policy["metadata"]["name"], "BackupPolicy", "backup")


def backup_job(applied: Applied, owner: Object, name: str, run: Run) -> JobPlan:
    """Plan the Job of one run; ``owner`` is the policy for scheduled ones, the Backup for a manual one."""
    sources, mounts = applied.sources()
    spec = applied.spec
    told, secrets = notifications_part(spec.notifications, retried=spec.backoff_limit > 0)
    signing_key, signing = signing_part(spec.signing)
    request = BackupRequest(
        nonce=nonce_of(owner["metadata"]["uid"], applied.settings.cluster_uid),
        writer=applied.writer,
        run=run,
        backup_type=spec.backup_type,
        sources=sources,
        destinations=applied.places,
        min_copies=applied.min_copies,
        compression=Compression(algorithm=spec.compression.algorithm, level=spec.compression.level),
        encryption=applied.encryption,
        anomaly=Anomaly(max_shrink_percent=spec.anomaly.max_shrink_percent),
        signing_key=signing_key,
        notifications=told if told.channels else None,
    )
    return JobPlan(
        name=name,
        owner=owner,
        request=request,
        mounts=mounts + secrets + signing,
        image=applied.settings.backup_image,
        template=spec.pod_template,
        placement=applied.placement,
        deadline_seconds=spec.active_deadline_seconds,
        backoff_limit=spec.backoff_limit,
    )


def manual_run(backup: Object) -> Run:
    """Name the run of a manual Backup."""
    meta = backup["metadata"]
    return Run(backup_uid=meta["uid"], created_time=datetime.fromisoformat(meta["creationTimestamp"]))


def cron_job(applied: Applied, schedule: str) -> Object:
    """Give the CronJob of a policy: complete in itself, it fires while the operator is away."""
    name = cron_job_name(applied.policy)
    return cron_job_of(applied, backup_job(applied, applied.policy, name, Run(cron_job=name)), schedule)


def cron_job_of(applied: Applied, plan: JobPlan, schedule: str) -> Object:
    """Give a CronJob of a policy for one Job of it."""
    policy, spec = applied.policy, applied.spec
    metadata = {"labels": labels(plan), "annotations": {names.ANNOTATION_OWNER: policy["metadata"]["name"]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": plan.name,
            "namespace": applied.namespace,
            **metadata,
            "ownerReferences": [owner_reference(policy)],
        },
        "spec": {
            "schedule": schedule,
            "timeZone": spec.time_zone,
            "suspend": spec.suspend or applied.unplaceable,
            "startingDeadlineSeconds": spec.starting_deadline_seconds,
            "concurrencyPolicy": spec.concurrency_policy,
            "successfulJobsHistoryLimit": HISTORY_LIMIT,
            "failedJobsHistoryLimit": HISTORY_LIMIT,
            "jobTemplate": {"metadata": metadata, "spec": job_spec(plan)},
        },
    }


def keeping_cron_job(applied: Applied, plan: JobPlan, schedule: str, *, suspend: bool) -> Object:
    """Give a CronJob of a policy that looks after its backups: one run at a time; the CronJob controller keeps its Jobs in number."""
    found, spec = cron_job_of(applied, plan, schedule), applied.spec
    found["spec"] |= {
        "concurrencyPolicy": "Forbid",
        "suspend": spec.suspend or suspend,
        "successfulJobsHistoryLimit": spec.successful_jobs_history_limit,
        "failedJobsHistoryLimit": spec.failed_jobs_history_limit,
    }
    return found


def probe_job(applied: Applied, number: int) -> JobPlan:
    """Plan the Job that looks whether the sources can be read and the place is ours."""
    sources, mounts = applied.sources()
    meta = applied.policy["metadata"]
    request = ProbeRequest(
        nonce=nonce_of(meta["uid"], applied.settings.cluster_uid),
        sources=sources,
        places=tuple(each for each in applied.places if each.storage.name not in applied.unusable),
        writer=applied.writer,
        encryption=applied.encryption,
    )
    plan = JobPlan(
        name="",
        owner=applied.policy,
        request=request,
        mounts=mounts,
        image=applied.settings.backup_image,
        template=applied.spec.pod_template.without_scratch,
        placement=applied.placement,
        deadline_seconds=DEADLINE_SECONDS,
    )
    name = names.child_name(
        meta["name"], "BackupPolicy", meta["uid"], "probe", fingerprint(request), str(number)
    )
    return replace(plan, name=name)
