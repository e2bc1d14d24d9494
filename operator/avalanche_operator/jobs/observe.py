"""What became of a Job: from the Job and its pods to one outcome. Pure.

Only pods whose controller is the Job, by UID, are believed; a pod that merely carries our labels says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from avalanche_contract.names import CONTAINER
from avalanche_contract.result import Result, parse_result

Object = dict[str, Any]
State = Literal["Missing", "Suspended", "Waiting", "Running", "Ended"]
_UNPULLED = ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "CreateContainerConfigError",
             "CreateContainerError")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """Where a Job stands; ``reason`` and ``message`` say why it waits, or how it ended without a result."""

    state: State
    reason: str = ""
    message: str = ""
    result: Result | None = None
    pod: str | None = None
    """The pod whose log belongs to the result, or that runs."""
    started: datetime | None = None
    finished: datetime | None = None
    uncertain: bool = False
    """Some attempt may have committed without anybody hearing of it: it left no result, or one that says so."""


def observe(job: Object | None, pods: Iterable[Object], nonce: str) -> Outcome:
    """Say where a Job stands."""
    if job is None:
        return Outcome("Missing")
    uid = job["metadata"]["uid"]
    own = sorted((pod for pod in pods if controlled_by(pod, uid)), key=_creation)
    if _finished(job) is not None:
        return _ended(job, own, nonce)
    started = _time(job.get("status", {}).get("startTime"))
    if job["spec"].get("suspend"):
        return Outcome("Suspended")
    running = [pod for pod in own if pod.get("status", {}).get("phase") == "Running"]
    if running:
        return Outcome("Running", pod=running[-1]["metadata"]["name"], started=started)
    reason, message = (
        _waits(own[-1]) if own else ("Pending", f"the Job has no pod yet; where that lasts, {_told_of(job)}")
    )
    return Outcome("Waiting", reason, message, started=started)


def _told_of(job: Object) -> str:
    """Say where to look: what refuses pods (a quota, Pod Security) says why to their Job alone."""
    return f"`kubectl describe job {job['metadata']['name']}` says why"


def is_finished(job: Object) -> bool:
    """Say whether a Job has ended, well or not."""
    return _finished(job) is not None


def ended_time(job: Object) -> datetime | None:
    """Give the moment at which a Job ended, well or not."""
    condition = _finished(job)
    return _time(condition.get("lastTransitionTime")) if condition is not None else None


def controlled_by(found: Object, uid: str) -> bool:
    """Say whether an object's controller is the one of this UID."""
    references = found["metadata"].get("ownerReferences") or ()
    return any(each.get("controller") and each["uid"] == uid for each in references)


def _ended(job: Object, pods: list[Object], nonce: str) -> Outcome:
    found = [(pod, result) for pod in pods if (result := _result(pod, nonce)) is not None]
    committed = [each for each in found if each[1].verdict in ("Succeeded", "Suspect")]
    condition = _finished(job) or {}
    started = _time(job.get("status", {}).get("startTime"))
    finished = _time(condition.get("lastTransitionTime"))
    if found:
        pod, result = (committed or found)[-1]
        name = pod["metadata"]["name"]
        uncertain = _attempts(job, pods) > len(found) or any(each.may_be_committed for _, each in found)
        reason, message = result.reason, result.message
        if reason == "Terminated" and _cut_off(pod, condition):
            reason, message = "DeadlineExceeded", "it took longer than its deadline, and was told to stop"
        elif reason == "Terminated" and (why := pod.get("status", {}).get("message")):
            message = f"{message}: {why}"  # an eviction: the node says what ran out
        return Outcome("Ended", reason, message, result, name, started, finished, uncertain)
    reason, message = _explain(pods[-1] if pods else None, condition)
    if not pods and reason == "DeadlineExceeded":
        message = f"{message} No pod of it is there: {_told_of(job)}"
    return Outcome("Ended", reason, message, None, None, started, finished, uncertain=True)


def _attempts(job: Object, pods: list[Object]) -> int:
    """Count the attempts that ran: those that the Job counts, as a pod may be gone; or those that are seen."""
    status = job.get("status", {})
    return max(int(status.get("failed") or 0) + int(status.get("succeeded") or 0), sum(map(_ran, pods)))


def _ran(pod: Object) -> bool:
    state = _container(pod).get("state", {})
    return "terminated" in state or "running" in state or bool(pod.get("status", {}).get("reason"))


def _cut_off(pod: Object, condition: Object) -> bool:
    """Say whether a deadline stopped it: the pod's own, or the Job's, which comes first from the second attempt on."""
    return "DeadlineExceeded" in (pod.get("status", {}).get("reason"), condition.get("reason"))


def _result(pod: Object, nonce: str) -> Result | None:
    terminated = _container(pod).get("state", {}).get("terminated") or {}
    text = terminated.get("message")
    return parse_result(text, nonce) if text else None


def _explain(pod: Object | None, condition: Object) -> tuple[str, str]:
    """Say how a Job ended that left no result."""
    status = (pod or {}).get("status", {})
    terminated = _container(pod or {}).get("state", {}).get("terminated") or {}
    if terminated.get("reason") == "OOMKilled":
        return (
            "OutOfMemory",
            "the pod was killed for lack of memory: raise podTemplate.resources.limits.memory",
        )
    if status.get("reason"):
        return str(status["reason"]), str(status.get("message") or "the pod was taken away by its node")
    if condition.get("reason") == "DeadlineExceeded":
        _, why = _waits(pod) if pod is not None else ("", "")
        return "DeadlineExceeded", f"it took longer than its deadline. {why}".strip()
    if terminated:
        code = terminated.get("exitCode")
        return "ResultLost", f"the pod ended with exit code {code} and left no result"
    return "ResultLost", "the pod went away and left no result"


def _waits(pod: Object) -> tuple[str, str]:
    waiting = _container(pod).get("state", {}).get("waiting") or {}
    if waiting.get("reason") in _UNPULLED:
        return str(waiting["reason"]), str(waiting.get("message", ""))[:500]
    for each in pod.get("status", {}).get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return str(each.get("reason", "Unschedulable")), str(each.get("message", ""))[:500]
    return "Pending", "the pod is being prepared"


def _container(pod: Object) -> Object:
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((each for each in statuses if each["name"] == CONTAINER), {})


def _finished(job: Object) -> Object | None:
    conditions = job.get("status", {}).get("conditions") or ()
    return next(
        (each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True"),
        None,
    )


def _creation(found: Object) -> str:
    return str(found["metadata"].get("creationTimestamp") or "")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
