"""The CronJob that cleans up after a policy, and the Jobs that say something of one Backup or erase it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import (
    BackupReference,
    CleanupRequest,
    DeleteRequest,
    HoldRequest,
    Retention,
    Writer,
)
from avalanche_contract.storage import Place
from avalanche_operator.api.backup import BackupSpec, BackupStatus, Said
from avalanche_operator.api.pod import PodTemplate
from avalanche_operator.api.policy import PolicySigning
from avalanche_operator.api.retention import PolicyRetention
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import Applied, keeping_cron_job
from avalanche_operator.jobs.build import JobPlan, Placement, nonce_of
from avalanche_operator.jobs.mounts import Mounts, signing_part, storage_part, trusting
from avalanche_operator.settings import Settings

Object = dict[str, Any]
DAY_SECONDS = 86400
CHANGE_SECONDS = 600
"""How long a change of one Backup may take, and how long its Job stays: it may be done twice."""


def cleanup_name(policy: Object) -> str:
    """Name the CronJob that cleans up."""
    return names.child_name(policy["metadata"]["name"], "BackupPolicy", "cleanup")


def cleanup_cron_job(
    applied: Applied, keep: PolicyRetention, schedule: str, nodes: tuple[str, ...] | None
) -> Object:
    """Give the CronJob that cleans up: it mounts the storages alone, as the user that writes the backups.

    ``nodes`` are those of the storages' claims; ``None`` where no pod can mount them now.
    """
    spec = applied.spec
    places = _places(applied.storages, applied.place.prefix, prune=True)
    first, *others = (trusting(each, spec.signing) for each in places)
    signing_key, signing = signing_part(spec.signing)
    request = CleanupRequest(
        nonce=nonce_of(applied.policy["metadata"]["uid"], applied.settings.cluster_uid),
        place=first,
        others=tuple(others),
        writer=applied.keeper,
        retention=Retention(**keep.model_dump(include=set(Retention.model_fields))),
        time_zone=spec.time_zone,
        max_delete_percent=keep.max_delete_percent,
        orphan_seconds=DAY_SECONDS + spec.active_deadline_seconds,
        signing_key=signing_key,
    )
    plan = JobPlan(
        name=cleanup_name(applied.policy),
        owner=applied.policy,
        request=request,
        mounts=mounts_of(applied.storages, prune=True) + signing,
        image=applied.settings.backup_image,
        template=spec.pod_template.without_scratch,
        placement=replace(applied.placement, nodes=nodes or ()),
        deadline_seconds=spec.active_deadline_seconds,
        backoff_limit=spec.backoff_limit,
    )
    read_only = any(each.access_mode == "ReadOnly" for _, each in applied.storages)
    return keeping_cron_job(applied, plan, schedule, suspend=nodes is None or read_only)


Storages = tuple[tuple[str, BackupStorageSpec], ...]
"""By their names, in the policy's order."""


def mounts_of(storages: Storages, *, prune: bool = False) -> Mounts:
    """Give what a pod mounts for some storages."""
    return sum((storage_part(*each, prune=prune)[1] for each in storages), Mounts())


def _places(storages: Storages, prefix: str, *, prune: bool = False) -> list[Place]:
    return [Place(storage=storage_part(*each, prune=prune)[0], prefix=prefix) for each in storages]


@dataclass(frozen=True)
class Where:
    """Where copies of a Backup lie, and how a pod gets there."""

    storages: Storages
    placement: Placement = field(default_factory=Placement)
    template: PodTemplate = field(default_factory=PodTemplate)
    signing: PolicySigning | None = None


def hold_job(
    found: Object, spec: BackupSpec, status: BackupStatus, where: Where, settings: Settings
) -> JobPlan:
    """Plan the Job that writes beside the metadata what the spec says, where that is new."""
    said = status.said or Said()
    new_time = spec.expiration_time != said.expiration_time
    first, *others = _places(where.storages, status.prefix or "")
    request = HoldRequest(
        nonce=nonce_of(found["metadata"]["uid"], settings.cluster_uid),
        backup=_reference(status, first),
        others=tuple(others),
        writer=_writer(found, spec, settings),
        held=_switch(said.hold, spec.hold),
        expiration_time=spec.expiration_time if new_time else None,
        never_expires=new_time and spec.expiration_time is None,
        accept_anomaly=_switch(said.accept_anomaly, spec.accept_anomaly),
    )
    return _job(found, where, request, settings, mounts_of(where.storages))


def delete_job(
    found: Object, spec: BackupSpec, status: BackupStatus, where: Where, settings: Settings
) -> JobPlan:
    """Plan the Job that erases a Backup's data, with the key that may delete."""
    first, *others = _places(where.storages, status.prefix or "", prune=True)
    signing_key, signing = signing_part(where.signing)
    request = DeleteRequest(
        nonce=nonce_of(found["metadata"]["uid"], settings.cluster_uid),
        backup=_reference(status, first),
        others=tuple(others),
        writer=_writer(found, spec, settings),
        signing_key=signing_key,
    )
    return _job(found, where, request, settings, mounts_of(where.storages, prune=True) + signing)


def _switch(before: bool | None, now: bool | None) -> bool | None:
    """Give what is new; what was said before and is said no longer is off again."""
    if now == before:
        return None
    return bool(now)


def _reference(status: BackupStatus, place: Place) -> BackupReference:
    return BackupReference.model_validate(
        {"place": place, "backup_type": status.type, "backup_id": status.backup_id}
    )


def _writer(found: Object, spec: BackupSpec, settings: Settings) -> Writer:
    return Writer(
        cluster_uid=settings.cluster_uid,
        namespace=found["metadata"]["namespace"],
        policy=spec.policy_ref.name,
    )


def _job(
    found: Object, where: Where, request: HoldRequest | DeleteRequest, settings: Settings, mounts: Mounts
) -> JobPlan:
    meta = found["metadata"]
    return JobPlan(
        name=names.child_name(meta["name"], "Backup", meta["uid"], request.verb, str(meta["generation"])),
        owner=found,
        request=request,
        mounts=mounts,
        image=settings.backup_image,
        template=where.template,
        placement=where.placement,
        deadline_seconds=CHANGE_SECONDS,
        backoff_limit=3,
        ttl_seconds=CHANGE_SECONDS,
    )
