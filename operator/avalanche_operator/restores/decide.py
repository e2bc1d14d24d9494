"""The phase of a RestoreRequest, from its plan, its approval and the outcome of its Jobs. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from avalanche_contract.log import Answer
from avalanche_contract.result import Plan
from avalanche_operator.api.restore import (
    PlannedTarget,
    RestorePlan,
    RestoreProgress,
    RestoreRequestSpec,
    RestoreRequestStatus,
)
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
PLAN_LIFE = timedelta(hours=24)
RECIPIENTS_MAX, RECIPIENT_MAX = 16, 62
"""What the status has room for; a backup may have been encrypted for more from elsewhere."""
Step = Literal["Plan", "Wait", "Execute", "Watch", "Done"]


def next_step(spec: RestoreRequestSpec, status: RestoreRequestStatus, now: datetime) -> Step:
    """Say what a request needs next."""
    if status.phase in ("Succeeded", "Failed"):
        return "Done"
    if status.phase in ("Restoring", "Verifying"):
        return "Watch"
    plan = status.plan
    expired = plan is not None and plan.expiration_time is not None and now > plan.expiration_time
    if plan is None or (expired and not spec.dry_run):
        return "Plan"
    if spec.dry_run:
        return "Done"
    return "Wait" if plan.needs_approval and spec.approved_plan != plan.digest else "Execute"


def planned(
    status: RestoreRequestStatus, plan: Plan, spec: RestoreRequestSpec, now: datetime
) -> RestoreRequestStatus:
    """Give the status with a new plan."""
    waits = plan.needs_approval and not spec.dry_run
    return status.model_copy(
        update={
            "phase": "AwaitingApproval" if waits else "Planned",
            "plan": written(plan, now),
            "progress": None,
            "message": waiting_message(plan.digest) if waits else None,
        }
    )


def replan(status: RestoreRequestStatus, why: str) -> RestoreRequestStatus:
    """Give the status of a request whose plan, and every approval of it, counts no more: another one is made."""
    return status.model_copy(
        update={
            "phase": "Pending",
            "plan": None,
            "plan_number": status.plan_number + 1,
            "job": None,
            "job_uid": None,
            "start_time": None,
            "progress": None,
            "message": why,
        }
    )


def waiting_message(digest: str) -> str:
    """Say how a plan is approved."""
    return f"read status.plan, then set spec.approvedPlan to {digest}"


def written(plan: Plan, now: datetime) -> RestorePlan:
    """Write a plan as the status shows it."""
    return RestorePlan(
        digest=plan.digest,
        backup_id=plan.backup_id or None,
        checksum=plan.checksum or None,
        storage=plan.storage or None,
        location=plan.location[:1024],
        snapshot_time=plan.snapshot_time,
        recipients=tuple(each for each in plan.recipients if len(each) <= RECIPIENT_MAX)[:RECIPIENTS_MAX],
        anomaly=plan.anomaly[:1024],
        targets=tuple(
            PlannedTarget.model_validate(
                {
                    **each.model_dump(),
                    "target": each.target[:1024],
                    "found": each.found[:1024],
                    "action": each.action[:1024],
                    "strategy_reason": each.strategy_reason[:1024],
                    "warnings": tuple(warning[:1024] for warning in each.warnings[:10]),
                }
            )
            for each in plan.targets
        ),
        needs_approval=plan.needs_approval,
        estimated_seconds=plan.estimated_seconds,
        expiration_time=now + PLAN_LIFE,
    )


def under_way(status: RestoreRequestStatus, outcome: Outcome, answer: Answer) -> RestoreRequestStatus:
    """Give the status of a restore that has not ended."""
    told = answer.progress
    if told is None:
        return status.model_copy(update={"message": outcome.message or None})
    phase = "Verifying" if told.phase == "Verifying" or status.phase == "Verifying" else "Restoring"
    done = RestoreProgress(source=told.source[:30], done_bytes=told.done_bytes, total_bytes=told.total_bytes)
    return status.model_copy(update={"phase": phase, "progress": done, "message": None})


def ended(
    spec: RestoreRequestSpec, status: RestoreRequestStatus, outcome: Outcome, answer: Answer, now: datetime
) -> RestoreRequestStatus:
    """Give the status of a restore whose Job ended, or went away: a restore is never run a second time."""
    result = outcome.result
    if outcome.state == "Missing" or result is None:
        reason = outcome.reason if outcome.state == "Ended" else "ResultLost"
        why = outcome.message or "the Job is gone"
        return failed(
            status, reason, f"{why}; whether the target is whole is not known: look at it, and ask again", now
        )
    if result.verdict == "Succeeded":
        return _closed(status, now, phase="Succeeded", message=result.message)
    if result.reason == "PlanChanged" and answer.plan is not None:
        again = planned(replan(status, result.message), answer.plan, spec, now)
        return again.model_copy(
            update={"message": f"{result.message}: {waiting_message(answer.plan.digest)}"}
        )
    return failed(status, result.reason, result.message, now)


def failed(status: RestoreRequestStatus, reason: str, message: str, now: datetime) -> RestoreRequestStatus:
    """Give the status of a restore that did not succeed."""
    return _closed(status, now, phase="Failed", failure_reason=reason, message=message)


def condition(spec: RestoreRequestSpec, status: RestoreRequestStatus) -> tuple[Verdict, bool]:
    """Say in Ready how far a request is, and whether nothing will change that any more."""
    message = status.message or ""
    if status.phase == "Succeeded":
        return Verdict("Ready", "True", "Succeeded", message), False
    if status.phase == "Failed":
        return Verdict("Ready", "False", status.failure_reason or "Failed", message), True
    if status.phase == "Planned" and spec.dry_run:
        return Verdict("Ready", "True", "Planned", "the plan is in the status; dryRun stops there"), False
    return Verdict("Ready", "Unknown", status.phase or "Pending", message), False


def _closed(status: RestoreRequestStatus, now: datetime, **changes: Any) -> RestoreRequestStatus:
    duration = int((now - status.start_time).total_seconds()) if status.start_time else None
    common = {"progress": None, "completion_time": now, "duration_seconds": duration}
    return status.model_copy(update={**common, **changes})
