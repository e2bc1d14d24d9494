"""One look at a RestoreRequest: what it needs next, done once; the phase is recorded before anything runs.

The Job that restores is created suspended, then ``Restoring`` is recorded with the Job's UID, then the Job is let go, and in the same write
marked as let go: an operator that is killed between two of these finds out which one is next. A Job that vanished later, was replaced,
or was suspended by somebody once it was let go, is never run again. What may stand in the way of letting it go is in ``release``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract import names
from avalanche_contract.log import Answer
from avalanche_operator.api.policy import BackupPolicyStatus
from avalanche_operator.api.restore import TERMINAL, RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.jobs.asked import request_of
from avalanche_operator.jobs.build import Placement, PlanImpossible, job, nonce_of
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.run import NameTaken, look, look_at, read_answer
from avalanche_operator.jobs.tidy import let_go
from avalanche_operator.kube.conditions import Verdict, merge_conditions, ready
from avalanche_operator.kube.events import changed, write_status
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.kube.queue import Key
from avalanche_operator.restores.build import KEPT_SECONDS, asked_for, execute_job, job_name, plan_job
from avalanche_operator.restores.decide import (
    Step,
    condition,
    ended,
    failed,
    next_step,
    planned,
    replan,
    under_way,
    waiting_message,
)
from avalanche_operator.restores.prepare import pin, prepare
from avalanche_operator.restores.release import running_backup
from avalanche_operator.restores.targets import NotYet, RestoreImpossible
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
AGAIN_SECONDS = 2.0
HELD_UP_SECONDS = 30.0


@dataclass(frozen=True)
class Asked:
    """A request with all that a look at it needs."""

    found: Object
    spec: RestoreRequestSpec
    status: RestoreRequestStatus
    around: Surroundings

    @property
    def namespace(self) -> str:
        """Give its namespace."""
        return str(self.found["metadata"]["namespace"])


@dataclass(frozen=True)
class Looked:
    """What one look came to; ``obstacle`` is what keeps the request from going on, and ``stalled`` whether that stays."""

    status: RestoreRequestStatus
    obstacle: Verdict | None = None
    stalled: bool = False


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one request; what worked for one that is gone is let go as well."""
    found = await around.gateway.get("RestoreRequest", key.namespace, key.name)
    if found is not None and found["metadata"].get("deletionTimestamp"):
        return None
    asked = _asked(found, around) if found is not None else None
    step = next_step(asked.spec, asked.status, around.now()) if asked is not None else "Done"
    if step in ("Done", "Wait"):
        for verb in ("restore", "undo"):
            await let_go(around.gateway, key, verb=verb, kept_seconds=KEPT_SECONDS)
    if asked is None or step == "Done":
        return None
    looked = await _look(asked, step)
    await _write(asked, looked)
    return _again(step, looked)


def _asked(found: Object, around: Surroundings) -> Asked:
    status = RestoreRequestStatus.model_validate(found.get("status") or {})
    return Asked(found, RestoreRequestSpec.model_validate(found["spec"]), status, around)


def _again(step: Step, looked: Looked) -> float:
    if looked.status.phase in TERMINAL:
        return 0.0
    if looked.obstacle is not None:
        return HELD_UP_SECONDS
    return AGAIN_SECONDS if step != "Wait" else 600.0


async def _look(asked: Asked, step: Step) -> Looked:
    steps = {"Plan": _plan, "Wait": _wait, "Execute": _execute, "Watch": _watch}
    status, now = asked.status, asked.around.now()
    try:
        return Looked(await steps[step](asked))
    except NotYet as waiting:
        return Looked(status.model_copy(update={"phase": "Pending", "message": str(waiting)}))
    except RestoreImpossible as impossible:
        return Looked(failed(status, impossible.reason, str(impossible), now))
    except PlanImpossible as impossible:
        return Looked(failed(status, impossible.reason, str(impossible), now))
    except (NameTaken, Refused) as obstacle:
        return _held_up(status, obstacle)


def _held_up(status: RestoreRequestStatus, obstacle: NameTaken | Refused) -> Looked:
    """Say what keeps a request from going on; it is tried again, and goes on once that is mended."""
    reason, message, stalled = "NameTaken", str(obstacle), False
    if isinstance(obstacle, Refused):
        message = f"the API server refuses what the restore needs: {obstacle.message}"
        stalled = obstacle.mended_by_spec
        reason = "JobInvalid" if stalled else "Forbidden"
    told = status.model_copy(update={"phase": status.phase or "Pending", "message": message})
    return Looked(told, Verdict("Ready", "False", reason, message), stalled)


async def _plan(asked: Asked) -> RestoreRequestStatus:
    """Pin the backup, and have a Job look at it and at the target."""
    gateway, now = asked.around.gateway, asked.around.now()
    status = await pin(asked.found, asked.spec, asked.status, gateway)
    if status.plan is not None:
        return replan(status, "the plan has expired: another one is made")
    prepared = await prepare(asked.found, asked.spec, status, asked.around)
    name = job_name(asked.found, "Plan", status.plan_number)
    outcome = await look(gateway, asked.found, name, prepared.nonce)
    if outcome.state == "Missing":
        placement = await _placement(asked, prepared.mounts("Plan"), prepared.backup.policy)
        await gateway.create(job(plan_job(prepared, placement)))
    if outcome.state != "Ended":
        return status.model_copy(
            update={"phase": "Pending", "message": outcome.message or "the plan is being made"}
        )
    answer = await _answer(asked, outcome, prepared.nonce)
    if outcome.result is None or outcome.result.verdict != "Succeeded":
        return failed(status, outcome.reason or "PlanFailed", outcome.message, now)
    if answer.plan is None or not answer.complete or answer.plan.digest != outcome.result.plan_digest:
        return failed(
            status, "ResultLost", "the plan was made, and its text is gone from the log: ask again", now
        )
    return planned(status, answer.plan, asked.spec, now)


async def _wait(asked: Asked) -> RestoreRequestStatus:
    """Wait for an approval of this very plan."""
    plan, approved = asked.status.plan, asked.spec.approved_plan
    told = waiting_message(plan.digest) if plan else None
    if approved is not None and told is not None:
        told = f"{approved} was approved, and that is not this plan: {told}"
    return asked.status.model_copy(update={"phase": "AwaitingApproval", "message": told})


async def _execute(asked: Asked) -> RestoreRequestStatus:
    """Create the Job suspended, then record that it is going to run."""
    gateway, status = asked.around.gateway, asked.status
    prepared = await prepare(asked.found, asked.spec, status, asked.around)
    name = job_name(asked.found, "Execute", status.plan_number)
    there = await gateway.get("Job", asked.namespace, name)
    if there is None:
        placement = await _placement(asked, prepared.mounts("Execute"), prepared.backup.policy)
        there = await gateway.create(job(execute_job(prepared, placement)))
    if there is None:
        return status  # somebody was faster: the next look finds whose it is
    labels = there["metadata"].get("labels") or {}
    if labels.get(names.LABEL_OWNER_UID) != asked.found["metadata"]["uid"]:
        raise NameTaken(f"Job {name} exists and is not ours: delete or rename it")
    pausing = tuple(sorted(each["metadata"]["name"] for each in prepared.readers))[:64]
    return status.model_copy(
        update={
            "phase": "Restoring",
            "job": name,
            "job_uid": there["metadata"]["uid"],
            "start_time": asked.around.now(),
            "paused_policies": pausing,
            "message": None,
        }
    )


async def _watch(asked: Asked) -> RestoreRequestStatus:
    """Let the Job go, and follow it to its end."""
    gateway, status, now = asked.around.gateway, asked.status, asked.around.now()
    nonce = nonce_of(asked.found["metadata"]["uid"], asked.around.settings.cluster_uid)
    there = await _recorded_job(asked)
    outcome = await look_at(gateway, there, nonce) if there is not None else Outcome("Missing")
    if there is not None and outcome.state == "Suspended":
        return await _release(asked, there)
    answer = await _answer(asked, outcome, nonce)
    if outcome.state in ("Missing", "Ended"):
        return ended(asked.spec, status, outcome, answer, now)
    return under_way(status, outcome, answer)


async def _recorded_job(asked: Asked) -> Object | None:
    """Give the very Job that was recorded."""
    status = asked.status
    name = status.job or job_name(asked.found, "Execute", status.plan_number)
    there = await asked.around.gateway.get("Job", asked.namespace, name)
    return there if there is not None and there["metadata"]["uid"] == status.job_uid else None


async def _release(asked: Asked, held: Object) -> RestoreRequestStatus:
    """Let the Job go, once, where it still fits and nothing that runs reads the target."""
    gateway, status, meta = asked.around.gateway, asked.status, held["metadata"]
    if names.ANNOTATION_RELEASED in (meta.get("annotations") or {}):
        lost = Outcome("Missing", message="somebody suspended the Job midway, which ended its pod")
        return ended(asked.spec, status, lost, Answer(), asked.around.now())
    prepared = await prepare(asked.found, asked.spec, status, asked.around)
    if request_of(held) != asked_for(prepared, "Execute"):
        return replan(
            status, "policies or approval have changed since the Job was made: another plan is made"
        )
    waiting = await running_backup(prepared, held, gateway)
    if waiting is not None:
        return status.model_copy(update={"message": waiting})
    annotations = {names.ANNOTATION_RELEASED: "true"}
    unchanged = {"resourceVersion": meta["resourceVersion"]}
    change = {"metadata": {"annotations": annotations, **unchanged}, "spec": {"suspend": False}}
    await gateway.patch("Job", asked.namespace, meta["name"], change)
    return status.model_copy(update={"message": None})


async def _placement(asked: Asked, mounts: Mounts, policy: str) -> Placement:
    """Find where and as whom a restore runs: who writes is often stopped for it, so the policy remembers the user."""
    gateway = asked.around.gateway
    there = await gateway.get("BackupPolicy", asked.namespace, policy) if mounts.claims else None
    known = BackupPolicyStatus.model_validate((there or {}).get("status") or {}).identity
    found = await placed(mounts, asked.namespace, gateway, known=known)
    if isinstance(found, Verdict):
        raise RestoreImpossible(found.reason, found.message)
    return found


async def _answer(asked: Asked, outcome: Outcome, nonce: str) -> Answer:
    if outcome.pod is None:
        return Answer()
    whole = outcome.state == "Ended"
    return await read_answer(asked.around.gateway, asked.namespace, outcome.pod, nonce, whole=whole)


async def _write(asked: Asked, looked: Looked) -> None:
    found, around, after = asked.found, asked.around, looked.status
    generation = found["metadata"]["generation"]
    before = (found.get("status") or {}).get("conditions") or ()
    verdict, stalled = condition(asked.spec, after)
    if looked.obstacle is not None:
        verdict, stalled = looked.obstacle, looked.stalled
    verdicts = ready(verdict, stalled=stalled)
    document = after.model_copy(update={"observed_generation": generation, "conditions": ()}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    news = changed(before, verdicts, "Ready")
    await write_status(around.gateway, found, document, news=news, now=around.now())
