"""Asking every storage that a run writes to what became of it: a Job for each. What the answers mean is in ``lookup``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from avalanche_contract import names
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.backups import lookup
from avalanche_operator.backups.build import Lookup, lookup_job
from avalanche_operator.backups.decide import Told, succeeded_by_entry
from avalanche_operator.backups.lookup import Answered, Partial, Unknown
from avalanche_operator.backups.runs import Watched, heard
from avalanche_operator.jobs.build import JobPlan, job
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.kube.gateway import Refused

Object = dict[str, Any]


@dataclass(frozen=True)
class _Question:
    """What is asked, and of whom."""

    watched: Watched
    number: int
    storages: tuple[str, ...]
    prefix: str


async def ask_storages(watched: Watched, status: BackupStatus, told: Told) -> BackupStatus:
    """Find out by the catalogs what became of a run whose result was lost."""
    now = watched.around.now()
    open_question = lookup.begun(status, now)
    if lookup.wait_seconds(open_question, now) > 0:
        return lookup.asking(status, open_question)
    status = await _with_storages(watched, status)
    if status.storage is None:
        return lookup.unanswered(
            status, told, open_question, "its policy is gone, which named the storage", now
        )
    stored = status.storages or (status.storage,)
    question = _Question(watched, open_question.number, stored, status.prefix or "")
    answers = {name: await _ask(question, name) for name in stored}
    heard_of = {name: each for name, each in answers.items() if each != "Open"}
    if len(heard_of) < len(answers):
        return lookup.asking(status, open_question)
    found = lookup.concluded(heard_of, status.min_copies)
    if isinstance(found, Unknown):
        return lookup.unanswered(status, told, open_question, found.why, now)
    if isinstance(found, Partial):
        return lookup.too_few(status, told, found)
    return lookup.not_there(status, told) if found is None else succeeded_by_entry(status, found)


async def _ask(question: _Question, name: str) -> Answered | Literal["Open"]:
    """Have a Job ask one storage, or read what it answered."""
    watched = question.watched
    gateway = watched.around.gateway
    plan = await _plan(question, name)
    if isinstance(plan, Verdict):
        return Unknown(plan.message)
    try:
        outcome = await look(gateway, watched.found, plan.name, plan.request.nonce)
        if outcome.state == "Missing":
            await gateway.create(job(plan))
    except (NameTaken, Refused) as obstacle:
        return Unknown(str(obstacle))
    if outcome.state != "Ended":
        return "Open"
    answer = (await heard(watched, outcome, plan.request.nonce)).answer
    return lookup.answered(outcome, answer, watched.identity)


async def _plan(question: _Question, name: str) -> JobPlan | Verdict:
    """Plan the Job that asks a storage, or say why it cannot be asked."""
    watched, around = question.watched, question.watched.around
    storage = await around.gateway.get("BackupStorage", watched.namespace, name)
    if storage is None:
        return Verdict("Ready", "False", "StorageNotFound", f"BackupStorage {name} does not exist: create it")
    spec = BackupStorageSpec.model_validate(storage["spec"])
    _, mounts = storage_part(name, spec)
    placement = await placed(mounts, watched.namespace, around.gateway)
    if isinstance(placement, Verdict):
        return placement
    policy = await around.gateway.get("BackupPolicy", watched.namespace, watched.spec.policy_ref.name)
    signing = BackupPolicySpec.model_validate(policy["spec"]).signing if policy is not None else None
    alone = len(question.storages) == 1
    where = Lookup(name, spec, question.prefix, placement, alone=alone, signing=signing)
    return lookup_job(watched.found, where, watched.identity, around.settings, question.number)


async def _with_storages(watched: Watched, status: BackupStatus) -> BackupStatus:
    """Give the status with where the run writes: what its Job said, else what its policy names by now."""
    if status.storage is not None:
        return status
    policy_name = watched.spec.policy_ref.name
    policy = await watched.around.gateway.get("BackupPolicy", watched.namespace, policy_name)
    if policy is None:
        return status
    stored = tuple(str(each["storageRef"]["name"]) for each in policy["spec"]["destinations"])
    where = {
        "storage": stored[0],
        "storages": stored if len(stored) > 1 else (),
        "min_copies": policy["spec"].get("minCopies"),
        "prefix": names.policy_prefix(watched.namespace, policy_name),
    }
    return status.model_copy(update=where)
