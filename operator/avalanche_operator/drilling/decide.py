"""What a drill came to, what that means for its Backup, what a policy says of it, and who has to be told. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from avalanche_contract.log import Answer
from avalanche_contract.notification import QUIET
from avalanche_contract.result import Drilled
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.drill import DrillRun, DrillsStatus
from avalanche_operator.api.notification import PolicyNotification
from avalanche_operator.jobs.observe import Outcome, ended_time
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.notifications.decide import wanted

Object = dict[str, Any]


def drilled(job: Object, outcome: Outcome, answer: Answer) -> DrillRun:
    """Say what a drill came to. Without a result nothing is proven, whatever its Job or its log says.

    What a log says that makes no sense is left out: whoever took a pod over must not stop the policy.
    """
    result = outcome.result
    succeeded = result is not None and result.verdict == "Succeeded"
    lost = result is None or result.reason == "Terminated"  # broken off by its node or its deadline
    document: Object = {
        "job": job["metadata"]["name"],
        "time": outcome.finished or ended_time(job),
        "result": "Lost" if lost else "Succeeded" if succeeded else "Failed",
        "reason": (outcome.reason or "ResultLost")[:128],
        "message": _named(outcome.message)[:1024],
    }
    with suppress(ValueError, OverflowError):
        if answer.drilled is not None:
            return DrillRun.model_validate({**document, **_measured(answer.drilled)})
    return DrillRun.model_validate(document)


def _named(message: str) -> str:
    """Name the fields of a drill's pod where a message names those of every other pod of a policy."""
    return message.replace("podTemplate.resources", "verification.drill.resources").replace(
        "podTemplate.scratch", "verification.drill.scratch"
    )


def _measured(told: Drilled) -> Object:
    return {
        "backup_id": told.backup_id,
        "storage": told.storage,
        "duration_seconds": math.ceil(told.duration_seconds),
        "restore_seconds": math.ceil(told.restore_seconds),
    }


def after_drill(status: BackupStatus, run: DrillRun, prefix: str) -> BackupStatus:
    """Give the status of a Backup after a drill of its policy: that of another one, or one that was lost, says nothing."""
    own = run.backup_id is not None and (status.backup_id, status.prefix) == (run.backup_id, prefix)
    return status.model_copy(update={"drill": run}) if own and run.result != "Lost" else status


def condition(status: BackupStatus) -> Verdict | None:
    """Say of one Backup what its last drill came to; ``None`` where there was none, or nothing is left of it."""
    if status.drill is None or status.removal is not None:
        return None
    return _verdict(status.drill)


def verdict(last: DrillRun | None, *, suspended: bool = False) -> Verdict:
    """Say in a condition of the policy what the last drill came to."""
    if last is None and suspended:
        return Verdict("Drilled", "Unknown", "Suspended", "drills are switched off")
    if last is None:
        return Verdict("Drilled", "Unknown", "Waiting", "no drill has ended yet")
    return _verdict(last)


def _verdict(run: DrillRun) -> Verdict:
    return Verdict("Drilled", "True" if run.result == "Succeeded" else "False", run.reason, run.message)


def after(before: DrillsStatus, run: DrillRun, channels: Iterable[PolicyNotification]) -> DrillsStatus:
    """Give what is known after a drill, and who has to be told: of a failure once in half a day, and of its end."""
    failed = run.result != "Succeeded"
    lately = before.told_time is not None and run.time - before.told_time < QUIET
    known = lately and run.reason == before.told_reason if failed else before.told_time is None
    owed = None if known else wanted(channels, "DrillFailed" if failed else "Recovered", None)
    changes: Object = {"notification": owed.model_copy(update={"slot": run.time})} if owed else {}
    if not failed:
        changes |= {"last_successful_time": run.time, "restore_seconds": run.restore_seconds}
        changes |= {"told_time": None, "told_reason": None}
    elif owed:
        changes |= {"told_time": run.time, "told_reason": run.reason}
    return before.model_copy(update=changes)
