"""What a cleanup came to, what it means for each Backup, and what a Backup's spec asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from avalanche_contract.log import Answer
from avalanche_contract.names import ANNOTATION_FORGOTTEN
from avalanche_contract.request import COPIES_MAX
from avalanche_contract.result import Decision
from avalanche_operator.api.backup import BackupSpec, BackupStatus, Refusal, Removal, Said, Verification
from avalanche_operator.api.retention import CleanupStatus
from avalanche_operator.backups.decide import is_at_home
from avalanche_operator.jobs.observe import Outcome, ended_time
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
Step = Literal["Hold", "Delete"]
SETTLED = timedelta(hours=1)
"""A backup that was complete so long before a cleanup began must have been seen by it, whatever the clocks say."""
_PASSING = ("StorageUnavailable", "Unexpected", "Terminated", "BackupInUse")
"""Reasons after which the same change is asked for again."""


@dataclass(frozen=True)
class Cleaned:
    """One cleanup that ended: when it began, what it came to, what it said of each backup (the last word counts)."""

    status: CleanupStatus
    began: datetime | None
    decisions: dict[str, Decision]
    complete: bool
    """Every backup that lies in storage is among the decisions."""


def cleaned(job: Object, outcome: Outcome, answer: Answer) -> Cleaned:
    """Say what a cleanup came to. Without a result it did not succeed, whatever its Job says."""
    decisions: dict[str, Decision] = {}
    for each in answer.decisions:
        if not (each.backup_id in decisions and decisions[each.backup_id].removed):
            decisions[each.backup_id] = each
    removed = sum(each.removed for each in decisions.values())
    succeeded = outcome.result is not None and outcome.result.verdict == "Succeeded"
    ended = outcome.finished or ended_time(job)
    status = CleanupStatus.model_validate(
        {
            "job": job["metadata"]["name"],
            "time": ended,
            "succeeded": succeeded,
            "reason": outcome.reason or "ResultLost",
            "message": outcome.message[:1024],
            "kept": len(decisions) - removed,
            "removed": removed,
        }
    )
    complete = answer.complete and succeeded
    return Cleaned(status, outcome.started, decisions, complete)


@dataclass(frozen=True)
class Place:
    """What was looked at: the policy's folder in each of some storages."""

    storages: frozenset[str] = frozenset()
    prefix: str = ""

    def holds(self, status: BackupStatus) -> bool:
        """Say whether all that there is of a Backup lies here: what lies elsewhere too was not looked at."""
        return status.prefix == self.prefix and set(places_of(status)) <= self.storages


def places_of(status: BackupStatus) -> tuple[str, ...]:
    """Name the storages where a Backup may lie: those that its run wrote to, and those that hold a copy made since."""
    written = status.storages or ((status.storage,) if status.storage else ())
    return tuple(dict.fromkeys([*written, *(each.storage for each in status.copies)]))


def healed_in(backup: Object, status: BackupStatus, policy: Object | None) -> tuple[str, ...]:
    """Name further storages where a verification may have made a copy that is not shown yet: its policy's by now."""
    if policy is None or not is_at_home(backup):
        return ()
    known = places_of(status)
    named = dict.fromkeys(str(each["storageRef"]["name"]) for each in policy["spec"]["destinations"])
    return tuple(each for each in named if each not in known)[: max(0, COPIES_MAX - len(known))]


def retention_verdict(last: CleanupStatus | None) -> Verdict:
    """Say in a condition what the last cleanup came to."""
    if last is None:
        return Verdict("RetentionApplied", "Unknown", "Waiting", "no cleanup has ended yet")
    return Verdict("RetentionApplied", "True" if last.succeeded else "False", last.reason, last.message)


def after_cleanup(status: BackupStatus, told: Cleaned, now: datetime) -> BackupStatus:
    """Give the status of a Backup after a cleanup of its place."""
    if status.removal is not None and status.removal.reason != "NotFound":
        return status
    decision = told.decisions.get(status.backup_id or "")
    if decision is None:
        return _not_found(status, told, now)
    if decision.removed:
        message = f"retention removed it: {', '.join(decision.reasons)}"[:1024]
        return without_data(status, Removal(reason="Expired", message=message, time=now))
    changes: dict[str, Any] = {
        "kept_by": tuple(each[:128] for each in decision.reasons[:32])
        if decision.verdict == "Keep"
        else None,
        "removal": None,
    }
    if status.said is None or status.said.time is None or (told.began and told.began > status.said.time):
        # What lies in storage is shown, whoever wrote it; but nothing older than what we wrote ourselves.
        known = decision.held or status.held is not None
        changes |= {
            "held": decision.held if known else None,
            "expiration_time": decision.expiration_time,
        }
    return status.model_copy(update=changes)


def _not_found(status: BackupStatus, told: Cleaned, now: datetime) -> BackupStatus:
    if not told.complete:
        return status
    return missing(status, told.began, f"cleanup {told.status.job}", now)


def missing(status: BackupStatus, began: datetime | None, looked: str, now: datetime) -> BackupStatus:
    """Give the status of a Backup that somebody did not find who looked at the whole of its place from ``began`` on."""
    if status.removal is not None or began is None or status.completion_time is None:
        return status
    if status.completion_time > began - SETTLED:  # not added to: it may be the last moment of the calendar
        return status
    removal = Removal(
        reason="NotFound", message=f"{looked} did not find it in storage any more"[:1024], time=now
    )
    return without_data(status, removal)


def without_data(status: BackupStatus, removal: Removal) -> BackupStatus:
    """Give the status of a Backup whose data is gone: nothing keeps it, and what was verified is no longer there."""
    before = status.verification
    verification = before and Verification(
        status="NotVerified", last_verified_time=before.last_verified_time, reason=removal.reason
    )
    return status.model_copy(update={"kept_by": None, "removal": removal, "verification": verification})


def superfluous(failed: Iterable[Object], limit: int) -> list[Object]:
    """Give the Backups of failed and of skipped scheduled runs that are too many: the oldest ones of each.

    One of which somebody still has to be told stays until that is done.
    """
    ordered = sorted(
        failed, key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"])
    )
    gone: list[Object] = []
    for phase in ("Failed", "Skipped"):
        found = [each for each in ordered if (each.get("status") or {}).get("phase") == phase]
        gone += found[: max(0, len(found) - limit)]
    return [each for each in gone if (each["status"].get("notification") or {}).get("state") != "Pending"]


def forgotten_phase(job: Object) -> str:
    """Give how the Backup of a run ended that was deleted by us, and must not come back; empty where none was."""
    return str((job["metadata"].get("annotations") or {}).get(ANNOTATION_FORGOTTEN, ""))


def has_data(status: BackupStatus) -> bool:
    """Say whether there is something in storage to hold or to erase."""
    return (
        status.phase in ("Succeeded", "Suspect") and status.removal is None and status.backup_id is not None
    )


def next_step(spec: BackupSpec, status: BackupStatus, generation: int) -> Step | None:
    """Say what a spec asks for that was not done yet; what was refused waits for a change of the spec."""
    refusal = status.refusal
    if not has_data(status) or (refusal and refusal.generation == generation and not refusal.passing):
        return None
    said = status.said or Said()
    if said.model_copy(update={"time": None}) != wanted(spec):
        return "Hold"
    return "Delete" if spec.delete_requested else None


def wanted(spec: BackupSpec) -> Said:
    """Give what is to lie beside the metadata."""
    return Said(hold=spec.hold, expiration_time=spec.expiration_time, accept_anomaly=spec.accept_anomaly)


def after_change(
    spec: BackupSpec, status: BackupStatus, step: Step, outcome: Outcome, *, generation: int, now: datetime
) -> BackupStatus:
    """Give the status after the Job of a change ended."""
    result = outcome.result
    if result is None or result.verdict != "Succeeded":
        return _refused(status, step, outcome, generation, now)
    if step == "Delete":
        removal = Removal(reason="Erased", message=result.message[:1024], time=now)
        return without_data(status, removal).model_copy(update={"refusal": None})
    mark = result.mark
    return status.model_copy(
        update={
            "said": wanted(spec).model_copy(update={"time": now}),
            "held": mark.held if mark else spec.hold,
            "expiration_time": mark.expiration_time if mark else spec.expiration_time,
            "anomaly_accepted": (mark.anomaly_accepted if mark else spec.accept_anomaly) or None,
            "refusal": None,
        }
    )


def _refused(
    status: BackupStatus, step: Step, outcome: Outcome, generation: int, now: datetime
) -> BackupStatus:
    reason = outcome.reason or "ResultLost"
    if step == "Delete" and reason == "BackupNotFound":
        removal = Removal(reason="NotFound", message=outcome.message[:1024], time=now)
        return without_data(status, removal).model_copy(update={"refusal": None})
    refusal = Refusal(
        generation=generation,
        reason=reason,
        message=outcome.message[:1024],
        passing=outcome.result is None or reason in _PASSING,
    )
    return status.model_copy(update={"refusal": refusal})


def conditions(spec: BackupSpec, status: BackupStatus, generation: int) -> tuple[Verdict, ...]:
    """Say whether the data is there, and whether what the spec asks for was done."""
    return tuple(each for each in (_available(status), _applied(spec, status, generation)) if each)


def _available(status: BackupStatus) -> Verdict | None:
    if status.phase not in ("Succeeded", "Suspect"):
        return None
    if status.removal is not None:
        return Verdict("Available", "False", status.removal.reason, status.removal.message)
    return Verdict("Available", "True", "Stored", f"it lies in BackupStorage {status.storage}")


def _applied(spec: BackupSpec, status: BackupStatus, generation: int) -> Verdict | None:
    if status.refusal is not None and status.refusal.generation == generation:
        return Verdict("ChangeApplied", "False", status.refusal.reason, status.refusal.message)
    if next_step(spec, status, generation) is not None:
        return Verdict("ChangeApplied", "Unknown", "Pending", "a Job does what the spec asks for")
    if status.said is not None:
        return Verdict("ChangeApplied", "True", "Written", "it lies beside the metadata in storage")
    return None
