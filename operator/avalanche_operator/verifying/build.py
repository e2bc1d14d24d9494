"""The CronJob that verifies a policy's backups. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import Rotation, VerifyRequest
from avalanche_contract.storage import Place
from avalanche_operator.applying.build import Applied, keeping_cron_job
from avalanche_operator.applying.schedule import spread
from avalanche_operator.jobs.build import JobPlan, nonce_of
from avalanche_operator.jobs.mounts import Mounts, storage_part, trusting
from avalanche_operator.notifications.build import notifications_part

Object = dict[str, Any]


def verification_name(policy: Object) -> str:
    """Name the CronJob that verifies."""
    return names.child_name(policy["metadata"]["name"], "BackupPolicy", "verify")


def verification_schedule(applied: Applied) -> str:
    """Give when to verify; policies that are spread by ``jitterSeconds`` do not verify all at once either.

    :raises ScheduleInvalid: the schedule cannot be used.
    """
    spec, uid = applied.spec, applied.policy["metadata"]["uid"]
    return spread(spec.verification.schedule, uid, spec.jitter_seconds)


def storage_mounts(applied: Applied) -> Mounts:
    """Give what a pod mounts that verifies: the storages alone, and no identity that opens what is encrypted."""
    return sum((mounts for _, mounts in _parts(applied)), Mounts())


def verification_cron_job(applied: Applied, schedule: str, nodes: tuple[str, ...] | None) -> Object:
    """Give the CronJob that verifies, as the user that writes the backups.

    ``nodes`` are those of the storages' claims; ``None`` where no pod can mount them now.
    """
    spec, wanted = applied.spec, applied.spec.verification
    first, *others = (place for place, _ in _parts(applied))
    told, secrets = notifications_part(spec.notifications, retried=False)
    request = VerifyRequest(
        nonce=nonce_of(applied.policy["metadata"]["uid"], applied.settings.cluster_uid),
        backup=Rotation(
            place=first,
            writer=applied.keeper,
            max_backups=wanted.max_backups,
            max_bytes=wanted.max_bytes,
        ),
        others=tuple(others),
        heal=bool(others),
        notifications=told if told.channels else None,
    )
    plan = JobPlan(
        name=verification_name(applied.policy),
        owner=applied.policy,
        request=request,
        mounts=storage_mounts(applied) + secrets,
        image=applied.settings.backup_image,
        template=spec.pod_template.without_scratch,
        placement=replace(applied.placement, nodes=nodes or ()),
        deadline_seconds=spec.active_deadline_seconds,
        backoff_limit=spec.backoff_limit,
    )
    return keeping_cron_job(applied, plan, schedule, suspend=wanted.suspend or nodes is None)


def _parts(applied: Applied) -> list[tuple[Place, Mounts]]:
    """Give the places and their mounts, with the key that may delete: a verdict or a damaged copy is replaced by it."""
    parts = [storage_part(*each, prune=True) for each in applied.storages]
    prefix, signing = applied.place.prefix, applied.spec.signing
    return [(trusting(Place(storage=storage, prefix=prefix), signing), mounts) for storage, mounts in parts]
