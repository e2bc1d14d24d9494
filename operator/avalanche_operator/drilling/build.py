"""The CronJob that drills: a pod that may read the storages, knows no source, and has nobody to talk to besides. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from avalanche_contract import names
from avalanche_contract.request import DrillRequest, Newest, Query
from avalanche_operator.api.drill import PolicyDrill
from avalanche_operator.api.scratch import Scratch
from avalanche_operator.applying.build import Applied, keeping_cron_job
from avalanche_operator.applying.schedule import spread
from avalanche_operator.jobs.build import JobPlan, PlanImpossible, nonce_of
from avalanche_operator.jobs.mounts import Mounts, identity_part, storage_part

Object = dict[str, Any]


def drill_name(policy: Object) -> str:
    """Name the CronJob that drills."""
    return names.child_name(policy["metadata"]["name"], "BackupPolicy", "drill")


def drill_schedule(applied: Applied, drill: PolicyDrill) -> str:
    """Give when to drill; policies that are spread by ``jitterSeconds`` do not drill all at once either.

    :raises ScheduleInvalid: the schedule cannot be used.
    """
    return spread(drill.schedule, applied.policy["metadata"]["uid"], applied.spec.jitter_seconds)


def drill_mounts(applied: Applied) -> Mounts:
    """Give what a pod mounts that drills: the storages, and what opens what is encrypted."""
    storages = (storage_part(*each)[1] for each in applied.storages)
    encryption = applied.spec.encryption
    return sum(storages, identity_part(encryption.identity_secret_ref if encryption else None)[1])


def drill_cron_job(
    applied: Applied, drill: PolicyDrill, schedule: str, nodes: tuple[str, ...] | None
) -> Object:
    """Give the CronJob that drills, once each time: what killed a pod would kill the next one as well.

    ``nodes`` are those of the storages' claims; ``None`` where no pod can mount them now.

    :raises PlanImpossible: a question is none.
    """
    spec = applied.spec
    plan = JobPlan(
        name=drill_name(applied.policy),
        owner=applied.policy,
        request=_request(applied, drill),
        mounts=drill_mounts(applied),
        image=applied.settings.drill_image,
        template=spec.pod_template.model_copy(
            update={"scratch": drill.scratch, "resources": drill.resources}
        ),
        placement=replace(applied.placement, nodes=nodes or ()),
        deadline_seconds=drill.active_deadline_seconds,
    )
    return keeping_cron_job(applied, plan, schedule, suspend=drill.suspend or nodes is None)


def _request(applied: Applied, drill: PolicyDrill) -> DrillRequest:
    encryption = applied.spec.encryption
    try:
        return DrillRequest(
            nonce=nonce_of(applied.policy["metadata"]["uid"], applied.settings.cluster_uid),
            backup=Newest(
                backup_types=(applied.spec.backup_type,),
                places=applied.places,
                writer=applied.writer,
                identity=identity_part(encryption.identity_secret_ref if encryption else None)[0],
            ),
            queries=tuple(
                Query(source=each.source, sql=each.sql, expect=each.expect) for each in drill.queries
            ),
            query_seconds=drill.query_seconds,
            superuser=drill.superuser,
            scratch_bytes=scratch_bytes(drill.scratch),
        )
    except ValueError as error:  # what the CRD's rule lets pass: white space that is none of ASCII
        raise PlanImpossible(f"verification.drill.queries: {error}") from None


def scratch_bytes(scratch: Scratch) -> int | None:
    """Give the size of the folder for temporary files; a volume of its own says itself how large it is."""
    limit = scratch.size_limit
    return int(parse_quantity(limit)) if limit is not None else None  # type: ignore[no-untyped-call]
