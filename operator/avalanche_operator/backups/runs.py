"""Reading what is to be known of a run: its Job, pods and log; starting the Job of a manual one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract import names
from avalanche_contract.log import Answer
from avalanche_operator.api.backup import BackupSpec, BackupStatus
from avalanche_operator.applying.applied import apply_to
from avalanche_operator.applying.build import backup_job, manual_run
from avalanche_operator.backups.build import manual_identity, manual_job_name, run_of_job
from avalanche_operator.backups.decide import Told
from avalanche_operator.jobs.asked import backup_of
from avalanche_operator.jobs.build import PlanImpossible, job, nonce_of
from avalanche_operator.jobs.observe import Outcome, controlled_by
from avalanche_operator.jobs.run import NameTaken, look, look_at, read_answer
from avalanche_operator.kube.conditions import find_condition
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
GONE = Outcome("Missing", "ResultLost", "the Job is gone, and left no result")
STILL_ENDING = Outcome("Waiting", "PodEnding", "the Job is gone, and its pod has not ended yet")


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


async def read_run(watched: Watched) -> tuple[Told, BackupStatus]:
    """Give what was heard of a run, and the status with where it writes, which its own Job says."""
    if watched.spec.origin == "Scheduled":
        return await _scheduled(watched)
    return await _manual(watched)


async def heard(watched: Watched, outcome: Outcome, nonce: str) -> Told:
    """Read the log that belongs to an outcome."""
    if outcome.pod is None:
        return Told(outcome, Answer(), watched.identity)
    whole = outcome.state == "Ended"
    answer = await read_answer(watched.around.gateway, watched.namespace, outcome.pod, nonce, whole=whole)
    return Told(outcome, answer, watched.identity)


async def _scheduled(watched: Watched) -> tuple[Told, BackupStatus]:
    """Read the Job that the policy's CronJob started; no other Job is believed."""
    gateway, reference = watched.around.gateway, watched.spec.job
    there = await gateway.get("Job", watched.namespace, reference.name) if reference else None
    if reference is None or there is None or there["metadata"]["uid"] != reference.uid:
        uid = reference.uid if reference else ""
        return await _gone(watched, reference.name if reference else "", uid), watched.status
    policy = await _policy_behind(watched, there)
    if policy is None:
        return Told(GONE, Answer(), watched.identity), watched.status
    policy_uid, cron_job = policy
    nonce = nonce_of(policy_uid, watched.around.settings.cluster_uid)
    told = await heard(watched, await look_at(gateway, there, nonce), nonce)
    identity = run_of_job(policy_uid, there, cron_job)[0]
    return Told(told.outcome, told.answer, identity), pinned(watched.status, there)


async def _policy_behind(watched: Watched, there: Object) -> tuple[str, str] | None:
    """Follow the controllers by UID: Job, CronJob, the policy that this Backup names. Give its UID and the CronJob's name."""
    owner = _controller(there, "CronJob")
    if owner is None:
        return None
    cron = await watched.around.gateway.get("CronJob", watched.namespace, owner["name"])
    if cron is None or cron["metadata"]["uid"] != owner["uid"]:
        return None
    policy = _controller(cron, "BackupPolicy")
    if policy is None or policy["name"] != watched.spec.policy_ref.name:
        return None
    return str(policy["uid"]), str(owner["name"])


async def _manual(watched: Watched) -> tuple[Told, BackupStatus]:
    """Read the Job of a manual run, or start it: an attempt of a run that is committed finds that commit."""
    gateway, status = watched.around.gateway, watched.status
    nonce = nonce_of(watched.found["metadata"]["uid"], watched.around.settings.cluster_uid)
    name = manual_job_name(watched.found)
    try:
        outcome = await look(gateway, watched.found, name, nonce)
        if outcome.state == "Missing":
            return await _start(watched, name)
    except PlanImpossible as impossible:
        return _waiting(watched, impossible.reason, str(impossible)), status
    except (NameTaken, Refused) as obstacle:
        return _waiting(watched, type(obstacle).__name__, str(obstacle)), status
    there = await gateway.get("Job", watched.namespace, name)
    status = pinned(status, there) if there is not None else status
    return await heard(watched, outcome, nonce), status.model_copy(update={"job": name})


async def _start(watched: Watched, name: str) -> tuple[Told, BackupStatus]:
    """Create the Job of a manual run, as soon as its policy is known to be usable or not."""
    gateway, status, policy_name = watched.around.gateway, watched.status, watched.spec.policy_ref.name
    gone = await _gone(watched, name, "")
    if gone.outcome.state == "Waiting":
        return gone, status
    policy = await gateway.get("BackupPolicy", watched.namespace, policy_name)
    if policy is None and status.job is not None:
        return gone, status
    if policy is None:
        missing = f"BackupPolicy {policy_name} does not exist: create it"
        return _waiting(watched, "PolicyNotFound", missing), status
    found = find_condition((policy.get("status") or {}).get("conditions") or (), "Ready")
    if found is None or found["status"] == "Unknown":
        return _waiting(watched, "PolicyNotProbed", f"BackupPolicy {policy_name} is being looked at"), status
    applied, obstacle = await apply_to(policy, watched.around)
    if applied is None or obstacle is not None:
        reason, why = (obstacle.reason, obstacle.message) if obstacle else ("Pending", "")
        return _waiting(watched, reason, f"waiting for BackupPolicy {policy_name}: {why}"), status
    made = job(backup_job(applied, watched.found, name, manual_run(watched.found)))
    await gateway.create(made)
    return _waiting(watched, "Pending", "the Job was created"), pinned(status, made).model_copy(
        update={"job": name}
    )


async def _gone(watched: Watched, job_name: str, job_uid: str) -> Told:
    """Say that a Job is gone; not before the last of its pods has ended, which may commit yet."""
    uid = watched.found["metadata"]["uid"]
    pods = await watched.around.gateway.list(
        "Pod", watched.namespace, {"batch.kubernetes.io/job-name": job_name}
    )
    own = (
        pod for pod in pods if controlled_by(pod, job_uid) or _labels(pod).get(names.LABEL_OWNER_UID) == uid
    )
    living = any(pod.get("status", {}).get("phase") in ("Pending", "Running") for pod in own)
    return Told(STILL_ENDING if living else GONE, Answer(), watched.identity)


def pinned(status: BackupStatus, there: Object) -> BackupStatus:
    """Remember where a Job writes: its policy may name another storage by now, or be gone."""
    request = backup_of(there)
    if status.storage is not None or request is None:
        return status
    names = tuple(each.storage.name for each in request.destinations)
    first = request.destinations[0]
    return status.model_copy(
        update={
            "storage": first.storage.name,
            "prefix": first.prefix,
            "storages": names if len(names) > 1 else (),
            "min_copies": request.min_copies,
        }
    )


def _waiting(watched: Watched, reason: str, message: str) -> Told:
    return Told(Outcome("Waiting", reason, message), Answer(), watched.identity)


def _controller(found: Object, kind: str) -> Object | None:
    references = found["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller") and each["kind"] == kind), None)


def _labels(found: Object) -> Object:
    return found["metadata"].get("labels") or {}
