"""What became of a Job is told by its own pods, and a Job's word alone is no success."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_contract.result import Result, dump_result
from avalanche_operator.jobs.observe import observe

Object = dict[str, Any]
NONCE = "0123456789abcdef"
COMPLETE, FAILED = "Complete", "Failed"


def _job(condition: str | None = None, **more: Any) -> Object:
    conditions = (
        [{"type": condition, "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z", **more}]
        if condition
        else []
    )
    return {
        "metadata": {"uid": "job", "name": "one"},
        "spec": {},
        "status": {"conditions": conditions, "startTime": "2026-01-01T00:00:00Z"},
    }


def _pod(state: Object | None = None, *, owner: str = "job", name: str = "pod", **status: Any) -> Object:
    statuses = [{"name": "backup", "state": state}] if state else []
    meta = {
        "name": name,
        "ownerReferences": [{"uid": owner, "controller": True}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": meta, "status": {"containerStatuses": statuses, **status}}


def _terminated(
    verdict: str = "Succeeded", nonce: str = NONCE, *, may_be_committed: bool = False, **more: Any
) -> Object:
    result = Result.model_validate(
        {"nonce": nonce, "verb": "backup", "verdict": verdict, "reason": verdict, "message": "told",
         "mayBeCommitted": may_be_committed}
    )  # fmt: skip
    return {"terminated": {"exitCode": 0, "message": dump_result(result), **more}}


def test_a_result_of_its_own_pod_is_believed() -> None:
    outcome = observe(_job(COMPLETE), [_pod(_terminated())], NONCE)
    assert outcome.state == "Ended" and outcome.result is not None and outcome.pod == "pod"


@pytest.mark.parametrize("first", ["Suspect", "Failed"])
def test_a_suspect_result_counts_before_a_failed_one_whatever_order_they_came_in(first: str) -> None:
    verdicts = [first, "Failed" if first == "Suspect" else "Suspect"]
    pods = [_pod(_terminated(each), name=f"pod-{number}") for number, each in enumerate(verdicts)]
    outcome = observe(_job(FAILED), pods, NONCE)
    assert outcome.result is not None and outcome.result.verdict == "Suspect"


def test_a_pod_that_only_carries_the_label_is_not_believed() -> None:
    outcome = observe(_job(COMPLETE), [_pod(_terminated(), owner="another")], NONCE)
    assert outcome.result is None and outcome.reason == "ResultLost"


def test_a_result_with_another_mark_is_not_believed() -> None:
    assert observe(_job(COMPLETE), [_pod(_terminated(nonce="f" * 16))], NONCE).result is None


def test_the_attempt_that_succeeded_counts() -> None:
    pods = [_pod(_terminated(), name="good"), _pod(_terminated("Failed"), name="late")]
    assert observe(_job(COMPLETE), pods, NONCE).pod == "good"


def test_an_attempt_that_left_no_result_or_was_committing_makes_the_outcome_uncertain() -> None:
    denied = _pod(_terminated("Failed"), name="second")
    killed = _pod({"terminated": {"exitCode": 137}}, name="first")
    committing = _pod(_terminated("Failed", may_be_committed=True), name="first")
    assert not observe(_job(FAILED), [denied], NONCE).uncertain
    assert observe(_job(FAILED), [killed, denied], NONCE).uncertain
    assert observe(_job(FAILED), [committing, denied], NONCE).uncertain
    counted = _job(FAILED)
    counted["status"]["failed"] = 2
    assert observe(counted, [denied], NONCE).uncertain, "a pod that is gone counts"


def test_a_pod_out_of_memory_says_what_to_raise() -> None:
    outcome = observe(_job(FAILED), [_pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})], NONCE)
    assert outcome.reason == "OutOfMemory" and "limits.memory" in outcome.message


def test_an_evicted_pod_says_why() -> None:
    outcome = observe(_job(FAILED), [_pod(reason="Evicted", message="The node was low on disk")], NONCE)
    assert (outcome.reason, outcome.message) == ("Evicted", "The node was low on disk")


def test_an_evicted_pod_that_was_told_to_stop_says_why_as_well() -> None:
    told = Result(nonce=NONCE, verb="drill", verdict="Failed", reason="Terminated", message="told to stop")
    state = {"terminated": {"exitCode": 143, "message": dump_result(told)}}
    outcome = observe(_job(FAILED), [_pod(state, reason="Evicted", message="scratch is full")], NONCE)
    assert (outcome.reason, outcome.message) == ("Terminated", "told to stop: scratch is full")


def test_a_deadline_tells_what_the_pod_waited_for() -> None:
    waiting = _pod({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    outcome = observe(_job(FAILED, reason="DeadlineExceeded"), [waiting], NONCE)
    assert outcome.reason == "DeadlineExceeded" and "no such image" in outcome.message


def test_a_killed_pod_leaves_its_exit_code() -> None:
    outcome = observe(_job(FAILED), [_pod({"terminated": {"exitCode": 137}})], NONCE)
    assert outcome.reason == "ResultLost" and "137" in outcome.message


def test_a_pod_without_a_node_says_what_it_needs() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    outcome = observe(_job(), [_pod(conditions=[condition])], NONCE)
    assert (outcome.state, outcome.reason, outcome.message) == ("Waiting", "Unschedulable", "0/1 nodes")


def test_a_running_pod_is_named_for_its_log() -> None:
    assert observe(_job(), [_pod({"running": {}}, phase="Running")], NONCE).pod == "pod"


def test_no_job_is_missing_and_a_suspended_one_waits_for_us() -> None:
    suspended = {**_job(), "spec": {"suspend": True}}
    assert observe(None, [], NONCE).state == "Missing" and observe(suspended, [], NONCE).state == "Suspended"


@pytest.mark.parametrize(("job", "pod"), [
    (_job(FAILED, reason="DeadlineExceeded"), {}),
    (_job(FAILED, reason="BackoffLimitExceeded"), {"reason": "DeadlineExceeded"}),
], ids=["the Job's", "the pod's own"])  # fmt: skip
def test_a_run_that_a_deadline_cut_off_says_so(job: Object, pod: Object) -> None:
    told = Result(nonce=NONCE, verb="backup", verdict="Failed", reason="Terminated", message="told to stop")
    stopped = _pod({"terminated": {"exitCode": 143, "message": dump_result(told)}}, **pod)
    outcome = observe(job, [stopped], NONCE)
    assert outcome.reason == "DeadlineExceeded" and "deadline" in outcome.message
    assert (
        observe(_job(FAILED), [_pod(stopped["status"]["containerStatuses"][0]["state"])], NONCE).reason
        == "Terminated"
    )


def test_a_job_whose_pods_are_refused_says_where_to_look() -> None:
    """A quota or Pod Security tells the Job alone."""
    assert "`kubectl describe job one` says why" in observe(_job(), [], NONCE).message
    cut_off = observe(_job(FAILED, reason="DeadlineExceeded"), [], NONCE)
    assert cut_off.reason == "DeadlineExceeded" and "`kubectl describe job one` says why" in cut_off.message
