"""One look at a Backup: read its policy, Job, pods and log; decide; write the status once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract import names
from avalanche_contract.log import Answer
from avalanche_operator.api.backup import TERMINAL, BackupSpec, BackupStatus
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.backups.build import Lookup, lookup_job, manual_identity, manual_job_name
from avalanche_operator.backups.decide import (
    Told,
    condition,
    ended,
    failed,
    is_lost,
    succeeded_by_entry,
    under_way,
)
from avalanche_operator.jobs.build import job, nonce_of
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.jobs.run import look, look_at, read_answer
from avalanche_operator.kube.conditions import Verdict, find_condition, merge_conditions, ready
from avalanche_operator.kube.events import changed, tell
from avalanche_operator.kube.queue import Key
from avalanche_operator.policies.applied import apply_to
from avalanche_operator.policies.build import backup_job, manual_run
from avalanche_operator.settings import Surroundings
from avalanche_operator.storages.reconcile import placement_of

Object = dict[str, Any]
AGAIN_SECONDS = 3.0
KEPT_SECONDS = 600
"""How long a Job of ours stays after its result was recorded, for who wants to read its log."""


@dataclass(frozen=True)
class Watched:
    """A Backup with all that a look at it needs."""

    found: Object
    spec: BackupSpec
    status: BackupStatus
    around: Surroundings

    @property
    def namespace(self) -> str:
        """Give its namespace."""
        return str(self.found["metadata"]["namespace"])

    @property
    def identity(self) -> str:
        """Give the identity of its run."""
        return self.spec.run_identity or manual_identity(self.found)


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one Backup."""
    found = await around.gateway.get("Backup", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    status = BackupStatus.model_validate(found.get("status") or {})
    watched = Watched(found, BackupSpec.model_validate(found["spec"]), status, around)
    if status.phase in TERMINAL:
        await _let_go(watched)
        return None
    after = await _look(watched)
    await _write(watched, after)
    return 0.0 if after.phase in TERMINAL else AGAIN_SECONDS


async def _look(watched: Watched) -> BackupStatus:
    status = await _pinned(watched)
    if watched.spec.origin == "Scheduled":
        told = await _scheduled(watched)
    else:
        told, status = await _manual(watched, status)
    if is_lost(told):
        return await _ask_storage(watched, status, told)
    return ended(status, told) if told.outcome.state == "Ended" else under_way(status, told)


async def _pinned(watched: Watched) -> BackupStatus:
    """Remember where the run writes: the policy may be gone when the storage has to be asked."""
    if watched.status.storage is not None:
        return watched.status
    policy = await watched.around.gateway.get("BackupPolicy", watched.namespace, watched.spec.policy_ref.name)
    if policy is None:
        return watched.status
    storage = policy["spec"]["destinations"][0]["storageRef"]["name"]
    prefix = names.policy_prefix(watched.namespace, watched.spec.policy_ref.name)
    return watched.status.model_copy(update={"storage": storage, "prefix": prefix})


async def _scheduled(watched: Watched) -> Told:
    """Read the Job that the CronJob started; its request carries the policy's mark."""
    gateway, reference = watched.around.gateway, watched.spec.job
    there = await gateway.get("Job", watched.namespace, reference.name) if reference else None
    if there is None or reference is None or there["metadata"]["uid"] != reference.uid:
        return Told(
            Outcome("Missing", "ResultLost", "the Job is gone, and left no result"),
            Answer(),
            watched.identity,
        )
    owner_uid = (there["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID, "")
    nonce = nonce_of(owner_uid, watched.around.settings.cluster_uid)
    return await _heard(watched, await look_at(gateway, there, nonce), nonce)


async def _manual(watched: Watched, status: BackupStatus) -> tuple[Told, BackupStatus]:
    """Read the Job of a manual run, or start it: an attempt of a run that is committed finds that commit."""
    nonce = nonce_of(watched.found["metadata"]["uid"], watched.around.settings.cluster_uid)
    name = manual_job_name(watched.found)
    outcome = await look(watched.around.gateway, watched.found, name, nonce)
    if outcome.state == "Missing":
        reason, message = await _start(watched, name)
        waiting = Outcome("Waiting", reason, message)
        return Told(waiting, Answer(), watched.identity), status.model_copy(update={"job": name})
    return await _heard(watched, outcome, nonce), status.model_copy(update={"job": name})


async def _start(watched: Watched, name: str) -> tuple[str, str]:
    """Create the Job of a manual run, as soon as its policy is known to be usable or not."""
    policy_name = watched.spec.policy_ref.name
    policy = await watched.around.gateway.get("BackupPolicy", watched.namespace, policy_name)
    if policy is None:
        return "PolicyNotFound", f"BackupPolicy {policy_name} does not exist: create it"
    found = find_condition((policy.get("status") or {}).get("conditions") or (), "Ready")
    if found is None or found["status"] == "Unknown":
        return "PolicyNotProbed", f"BackupPolicy {policy_name} is being looked at"
    applied, obstacle = await apply_to(policy, watched.around)
    if applied is None or obstacle is not None:
        message = obstacle.message if obstacle else ""
        return (
            obstacle.reason if obstacle else "Pending"
        ), f"waiting for BackupPolicy {policy_name}: {message}"
    await watched.around.gateway.create(
        job(backup_job(applied, watched.found, name, manual_run(watched.found)))
    )
    return "Pending", "the Job was created"


async def _heard(watched: Watched, outcome: Outcome, nonce: str) -> Told:
    """Read the log that belongs to an outcome."""
    if outcome.pod is None:
        return Told(outcome, Answer(), watched.identity)
    whole = outcome.state == "Ended"
    answer = await read_answer(watched.around.gateway, watched.namespace, outcome.pod, nonce, whole=whole)
    return Told(outcome, answer, watched.identity)


async def _ask_storage(watched: Watched, status: BackupStatus, told: Told) -> BackupStatus:
    """Find out by the catalog what became of a run whose result was lost."""
    gateway = watched.around.gateway
    reason, message = told.outcome.reason or "ResultLost", told.outcome.message
    storage = await gateway.get("BackupStorage", watched.namespace, status.storage or "-")
    if storage is None:
        return failed(status, told.outcome, reason, f"{message}; its storage is gone as well")
    spec = BackupStorageSpec.model_validate(storage["spec"])
    placement = await placement_of(storage, spec, watched.around)
    if isinstance(placement, Verdict):
        return failed(
            status, told.outcome, reason, f"{message}; the storage cannot be asked: {placement.message}"
        )
    where = Lookup(status.storage or "", spec, status.prefix or "", placement)
    plan = lookup_job(watched.found, where, watched.identity, watched.around.settings)
    outcome = await look(gateway, watched.found, plan.name, plan.request.nonce)
    if outcome.state == "Missing":
        await gateway.create(job(plan))
    if outcome.state != "Ended":
        return status.model_copy(
            update={
                "phase": status.phase or "Pending",
                "message": "its result was lost: the storage is asked",
            }
        )
    found = await _heard(watched, outcome, plan.request.nonce)
    entry = next((each for each in found.answer.entries if each.run_identity == watched.identity), None)
    if entry is not None:
        return succeeded_by_entry(status, entry)
    return failed(status, told.outcome, reason, message)


async def _write(watched: Watched, after: BackupStatus) -> None:
    found, around = watched.found, watched.around
    generation = found["metadata"]["generation"]
    before = (found.get("status") or {}).get("conditions") or ()
    verdict = condition(after)
    verdicts = ready(verdict, stalled=after.phase in TERMINAL)
    document = after.model_copy(update={"observed_generation": generation, "conditions": ()}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    if document != found.get("status"):
        written = await around.gateway.apply_status(found, document)
        if written is not None and after.phase in TERMINAL:
            await tell(around.gateway, found, changed(before, verdicts, "Ready"), around.now())


async def _let_go(watched: Watched) -> None:
    """Let the Job of a manual run go some time after its result was recorded."""
    if watched.status.job is None:
        return
    there = await watched.around.gateway.get("Job", watched.namespace, watched.status.job)
    if there is not None and "ttlSecondsAfterFinished" not in there["spec"]:
        change = {"spec": {"ttlSecondsAfterFinished": KEPT_SECONDS}}
        await watched.around.gateway.patch("Job", watched.namespace, watched.status.job, change)
