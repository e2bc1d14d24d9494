"""One look at a RestoreRequest: what it needs next, done once; the phase is recorded before anything runs.

The Job that restores is created suspended, then ``Restoring`` is recorded, then the Job is let go: an operator that
is killed between two of these finds out which one is next, and a Job that vanished later is never run again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_contract.log import Answer
from avalanche_operator.api.restore import TERMINAL, RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.jobs.build import Placement, job, nonce_of
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.jobs.placement import place
from avalanche_operator.jobs.run import look, read_answer
from avalanche_operator.kube.conditions import Verdict, merge_conditions, ready
from avalanche_operator.kube.events import changed, tell
from avalanche_operator.kube.queue import Key
from avalanche_operator.restores.build import execute_job, job_name, plan_job
from avalanche_operator.restores.decide import (
    condition,
    ended,
    failed,
    next_step,
    planned,
    under_way,
    waiting_message,
)
from avalanche_operator.restores.prepare import pin, prepare
from avalanche_operator.restores.targets import NotYet, RestoreImpossible, readers_of
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
AGAIN_SECONDS = 2.0
KEPT_SECONDS = 3600


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


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one request."""
    found = await around.gateway.get("RestoreRequest", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    status = RestoreRequestStatus.model_validate(found.get("status") or {})
    asked = Asked(found, RestoreRequestSpec.model_validate(found["spec"]), status, around)
    step = next_step(asked.spec, status, around.now())
    if step == "Done":
        await _let_go(asked)
        return None
    steps = {"Plan": _plan, "Wait": _wait, "Execute": _execute, "Watch": _watch}
    try:
        after = await steps[step](asked)
    except NotYet as waiting:
        after = status.model_copy(update={"phase": "Pending", "message": str(waiting)})
    except RestoreImpossible as impossible:
        after = failed(status, impossible.reason, str(impossible), around.now())
    await _write(asked, after)
    return 0.0 if after.phase in TERMINAL else AGAIN_SECONDS if step != "Wait" else 600.0


async def _plan(asked: Asked) -> RestoreRequestStatus:
    """Pin the backup, and have a Job look at it and at the target."""
    gateway, now = asked.around.gateway, asked.around.now()
    status = await pin(asked.found, asked.spec, asked.status, gateway)
    if status.plan is not None:  # it expired
        return status.model_copy(
            update={"phase": "Pending", "plan": None, "plan_number": status.plan_number + 1}
        )
    prepared = await prepare(asked.found, asked.spec, status, asked.around)
    name = job_name(asked.found, "Plan", status.plan_number)
    outcome = await look(gateway, asked.found, name, prepared.nonce)
    if outcome.state == "Missing":
        placement = await _placement(asked, prepared.mounts("Plan"))
        await gateway.create(job(plan_job(prepared, status.plan_number, placement)))
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
    outcome = await look(gateway, asked.found, name, prepared.nonce, owned=False)
    if outcome.state == "Missing":
        placement = await _placement(asked, prepared.mounts("Execute"))
        await gateway.create(
            job(execute_job(prepared, status.plan_number, placement, asked.spec.approved_plan))
        )
        return status
    readers = readers_of(prepared.targets, await gateway.list("BackupPolicy", asked.namespace))
    pausing = tuple(sorted(each["metadata"]["name"] for each in readers))[:64]
    return status.model_copy(
        update={
            "phase": "Restoring",
            "job": name,
            "start_time": asked.around.now(),
            "paused_policies": pausing,
            "message": None,
        }
    )


async def _watch(asked: Asked) -> RestoreRequestStatus:
    """Let the Job go, and follow it to its end."""
    gateway, status, now = asked.around.gateway, asked.status, asked.around.now()
    nonce = nonce_of(asked.found["metadata"]["uid"], asked.around.settings.cluster_uid)
    name = status.job or job_name(asked.found, "Execute", status.plan_number)
    outcome = await look(gateway, asked.found, name, nonce, owned=False)
    if outcome.state == "Suspended":
        await gateway.patch("Job", asked.namespace, name, {"spec": {"suspend": False}})
        return status
    answer = await _answer(asked, outcome, nonce)
    if outcome.state in ("Missing", "Ended"):
        return ended(asked.spec, status, outcome, answer, now)
    return under_way(status, outcome, answer)


async def _placement(asked: Asked, mounts: Mounts) -> Placement:
    gateway = asked.around.gateway
    if not mounts.claims:
        return Placement()
    found = place(
        mounts,
        await gateway.list("PersistentVolumeClaim", asked.namespace),
        await gateway.list("Pod", asked.namespace),
    )
    if isinstance(found, Verdict):
        raise RestoreImpossible(found.reason, found.message)
    return found


async def _answer(asked: Asked, outcome: Outcome, nonce: str) -> Answer:
    if outcome.pod is None:
        return Answer()
    whole = outcome.state == "Ended"
    return await read_answer(asked.around.gateway, asked.namespace, outcome.pod, nonce, whole=whole)


async def _write(asked: Asked, after: RestoreRequestStatus) -> None:
    found, around = asked.found, asked.around
    generation = found["metadata"]["generation"]
    before = (found.get("status") or {}).get("conditions") or ()
    verdict, stalled = condition(asked.spec, after)
    verdicts = ready(verdict, stalled=stalled)
    document = after.model_copy(update={"observed_generation": generation, "conditions": ()}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    if document != found.get("status") and await around.gateway.apply_status(found, document) is not None:
        await tell(around.gateway, found, changed(before, verdicts, "Ready"), around.now())


async def _let_go(asked: Asked) -> None:
    """Let the Job go some time after its result was recorded."""
    if asked.status.job is None:
        return
    there = await asked.around.gateway.get("Job", asked.namespace, asked.status.job)
    if there is not None and "ttlSecondsAfterFinished" not in there["spec"]:
        change = {"spec": {"ttlSecondsAfterFinished": KEPT_SECONDS}}
        await asked.around.gateway.patch("Job", asked.namespace, asked.status.job, change)
