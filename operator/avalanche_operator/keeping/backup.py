"""What the spec of one finished Backup asks for: hold, expiration, accepted anomaly, erasure. One Job for each change.

The Job writes into storage first; then the status shows it. Whatever is killed in between finds out from the Job.
"""

from __future__ import annotations

from typing import Any

from avalanche_contract import names
from avalanche_operator.api.backup import BackupSpec, BackupStatus, Refusal
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.applied import apply_to
from avalanche_operator.backups.write import write_status
from avalanche_operator.jobs.build import JobPlan, Placement, PlanImpossible, job, nonce_of
from avalanche_operator.jobs.observe import is_finished
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.probing import refused
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.keeping.build import Where, delete_job, hold_job, mounts_of
from avalanche_operator.keeping.decide import Step, after_change, healed_in, next_step, places_of
from avalanche_operator.keeping.forget import forget
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
AGAIN_SECONDS = 3.0
LATER_SECONDS = 60.0
_BUILD = {"Hold": hold_job, "Delete": delete_job}


async def look_at_kept(found: Object, around: Surroundings) -> float | None:
    """Look at a Backup whose run has ended."""
    spec = BackupSpec.model_validate(found["spec"])
    status = BackupStatus.model_validate(found.get("status") or {})
    if status.removal is not None and status.removal.reason != "NotFound" and spec.origin != "Manual":
        await forget(found, around.gateway)
        return None
    step = next_step(spec, status, found["metadata"]["generation"])
    if step is None:
        await write_status(found, status, around)
        return None
    after, again = await _change(found, spec, status, step, around)
    await write_status(found, after, around)
    return again


async def _change(
    found: Object, spec: BackupSpec, status: BackupStatus, step: Step, around: Surroundings
) -> tuple[BackupStatus, float]:
    generation, gateway = found["metadata"]["generation"], around.gateway
    where = await _where(found, spec, status, around)
    if isinstance(where, Verdict):
        refusal = Refusal(generation=generation, reason=where.reason, message=where.message, passing=True)
        return status.model_copy(update={"refusal": refusal}), LATER_SECONDS
    plan = _BUILD[step](found, spec, status, where, around.settings)
    nonce = nonce_of(found["metadata"]["uid"], around.settings.cluster_uid)
    try:
        outcome = await look(gateway, found, plan.name, nonce)
        if outcome.state == "Missing" and not await _busy(found, plan, around):
            await gateway.create(job(plan))
    except (NameTaken, PlanImpossible, Refused) as obstacle:
        told = _told(obstacle)
        refusal = Refusal(generation=generation, reason=told.reason, message=told.message, passing=True)
        return status.model_copy(update={"refusal": refusal}), LATER_SECONDS
    if outcome.state != "Ended":
        return status, AGAIN_SECONDS
    after = after_change(spec, status, step, outcome, generation=generation, now=around.now())
    return after, LATER_SECONDS if after.refusal else 0.0


def _told(obstacle: NameTaken | PlanImpossible | Refused) -> Verdict:
    """Say why there is no Job."""
    if isinstance(obstacle, Refused):
        return refused(obstacle)
    reason = obstacle.reason if isinstance(obstacle, PlanImpossible) else "NameTaken"
    return Verdict("ChangeApplied", "False", reason, str(obstacle)[:1024])


async def _busy(found: Object, plan: JobPlan, around: Surroundings) -> bool:
    """Say whether the Job of an earlier change is still at work: two at once could end in the wrong order."""
    meta = found["metadata"]
    jobs = await around.gateway.list("Job", meta["namespace"], {names.LABEL_OWNER_UID: meta["uid"]})
    verbs = ("hold", "delete")
    return any(
        each["metadata"]["labels"].get(names.LABEL_VERB) in verbs
        and each["metadata"]["name"] != plan.name
        and not is_finished(each)
        for each in jobs
    )


async def _where(
    found: Object, spec: BackupSpec, status: BackupStatus, around: Surroundings
) -> Where | Verdict:
    """Find how a pod gets to every place of a Backup: as the policy's own pods do, where there is still a policy."""
    namespace = found["metadata"]["namespace"]
    policy = await around.gateway.get("BackupPolicy", namespace, spec.policy_ref.name)
    storages: list[tuple[str, BackupStorageSpec]] = []
    for name in places_of(status) or ("-",):
        storage = await _storage(namespace, name, around)
        if isinstance(storage, Verdict):
            return storage
        storages.append((name, storage))
    for name in healed_in(found, status, policy):
        storage = await _storage(namespace, name, around)
        if not isinstance(storage, Verdict):  # nothing is known to lie there: it stands in nobody's way
            storages.append((name, storage))
    placement = await placed(mounts_of(tuple(storages)), namespace, around.gateway)
    if isinstance(placement, Verdict):
        return placement
    applied, _ = await apply_to(policy, around) if policy is not None else (None, None)
    if applied is None:
        return Where(tuple(storages), placement)
    user = applied.placement
    beside = Placement(placement.nodes, user.run_as_user, user.run_as_group, user.supplemental_groups)
    spec_of = applied.spec
    return Where(tuple(storages), beside, spec_of.pod_template.without_scratch, spec_of.signing)


async def _storage(namespace: str, name: str, around: Surroundings) -> BackupStorageSpec | Verdict:
    found = await around.gateway.get("BackupStorage", namespace, name)
    if found is None:
        message = f"BackupStorage {name} does not exist: create it"
        return Verdict("ChangeApplied", "False", "StorageNotFound", message)
    spec = BackupStorageSpec.model_validate(found["spec"])
    if spec.access_mode == "ReadOnly":
        message = f"BackupStorage {name} is ReadOnly: nothing is written to it, and nothing removed"
        return Verdict("ChangeApplied", "False", "StorageReadOnly", message)
    return spec
