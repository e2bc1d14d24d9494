"""The phase of a Backup, from the outcome of its Job and from the catalog. Pure.

``Succeeded`` needs a result or a catalog entry of this very run: a Job's ``Complete`` alone is no success.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from avalanche_contract.log import Answer
from avalanche_contract.names import parse_backup_id, policy_prefix
from avalanche_contract.result import Copy as CopyTold
from avalanche_contract.result import Entry, Result
from avalanche_operator.api.backup import (
    BackupArtifact,
    BackupStatus,
    Copy,
    Phase,
    Progress,
    Verification,
)
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
AGAIN_SECONDS = 3.0
LONGEST_WAIT_SECONDS = 60.0
PENDING_LIFE = timedelta(hours=6)
"""How long a run by hand waits for what it needs: as long as a run may take where its policy says nothing else."""
DISTRUSTED = "SignatureInvalid"
"""Why a backup is not believed where its policy trusts only what is signed."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True)
class Told:
    """What was heard of a run: the outcome of its Job, and the lines of its log."""

    outcome: Outcome
    answer: Answer
    identity: str


def readable(backup: Object) -> BackupStatus | None:
    """Give the status of a Backup; ``None`` where it says what cannot be understood: one such object stops no other."""
    try:
        return BackupStatus.model_validate(backup.get("status") or {})
    except ValidationError:
        return None


def is_at_home(backup: Object) -> bool:
    """Say whether a Backup lies in the folder of the policy that it names, or nowhere yet; else it is another policy's."""
    prefix = (backup.get("status") or {}).get("prefix")
    policy = str(backup["spec"]["policyRef"]["name"])
    return prefix is None or prefix == policy_prefix(backup["metadata"]["namespace"], policy)


def is_lost(told: Told) -> bool:
    """Say whether the storage must be asked what became of the run."""
    outcome = told.outcome
    if outcome.state == "Missing":
        return True
    if outcome.state != "Ended":
        return False
    result = outcome.result
    return result is None or (result.verdict == "Failed" and outcome.uncertain)


def again_seconds(status: BackupStatus, found: Object, now: datetime) -> float:
    """Say when to look again: soon, and less often at one that has been waiting for long to be started."""
    if status.job is not None or status.phase != "Pending":
        return AGAIN_SECONDS
    return min(LONGEST_WAIT_SECONDS, max(AGAIN_SECONDS, _age(found, now).total_seconds() / 10))


def under_way(status: BackupStatus, told: Told, found: Object, now: datetime) -> BackupStatus:
    """Give the status of a run that has not ended; one that could not be started for hours fails."""
    outcome, progress = told.outcome, told.answer.progress
    never_started = status.job is None and status.storage is None and outcome.state == "Waiting"
    if never_started and _age(found, now) >= PENDING_LIFE:
        return failed(status, outcome, outcome.reason, f"waited for hours: {outcome.message}")
    if outcome.state != "Running":
        return status.model_copy(
            update={"phase": status.phase or "Pending", "message": outcome.message or None}
        )
    phase: Phase = "Verifying" if progress is not None and progress.phase == "Verifying" else "Running"
    if status.phase == "Verifying":
        phase = "Verifying"  # a phase does not go back, whatever line was read last
    done = (
        Progress(done_bytes=progress.done_bytes, total_bytes=progress.total_bytes)
        if progress
        else status.progress
    )
    start = status.start_time or outcome.started
    return status.model_copy(update={"phase": phase, "progress": done, "start_time": start, "message": None})


def ended(status: BackupStatus, told: Told) -> BackupStatus:
    """Give the status of a run whose Job left a result."""
    result = told.outcome.result
    if result is None:
        return failed(status, told.outcome, "ResultLost", told.outcome.message)
    if result.verdict == "Skipped":
        return _closed(status, told.outcome, "Skipped", result.reason, result.message)
    entry = next((each for each in told.answer.entries if each.run_identity == told.identity), None)
    if result.verdict not in ("Succeeded", "Suspect"):
        held = with_copies(status, entry) if entry is not None else status
        return failed(held, told.outcome, result.reason, result.message)
    if result.run_identity != told.identity:
        return failed(
            status, told.outcome, "ResultInvalid", f"the result is that of another run: {result.run_identity}"
        )
    return succeeded_by_entry(status, entry) if entry is not None else _succeeded(status, result)


def succeeded_by_entry(status: BackupStatus, entry: Entry) -> BackupStatus:
    """Give the status of a committed run, from its catalog entry."""
    duration = int((entry.completion_time - entry.start_time).total_seconds())
    return with_copies(status, entry).model_copy(
        update={
            "phase": entry.status,
            "lookup": None,
            "run_identity": entry.run_identity,
            "type": entry.backup_type,
            "start_time": entry.start_time,
            "completion_time": entry.completion_time,
            "snapshot_time": entry.snapshot_time,
            "duration_seconds": max(0, duration),
            "progress": None,
            "size_bytes": entry.size_bytes,
            "size": for_people(entry.size_bytes),
            "source_bytes": entry.source_bytes,
            "checksum": entry.checksum,
            "artifacts": tuple(BackupArtifact.model_validate(each.model_dump()) for each in entry.artifacts),
            "warnings": entry.warnings,
            "verification": _verification(entry),
            "failure_reason": (entry.reason or "Suspect") if entry.status == "Suspect" else None,
            "anomaly_accepted": entry.anomaly_accepted or status.anomaly_accepted,
            "message": entry.message[:4096] or _missing(entry.copies) or None,
        }
    )


def _verification(entry: Entry) -> Verification:
    if not entry.distrust:
        return Verification(status=entry.verification, last_verified_time=entry.verified_time)
    return Verification(status="VerificationFailed", reason=DISTRUSTED, message=entry.distrust[:1024])


def with_copies(status: BackupStatus, entry: Entry) -> BackupStatus:
    """Give the status with where the backup lies; where a restore reads it is the first of these."""
    if entry.copies:
        copies = tuple(_copy(each) for each in entry.copies if each.status == "Verified")
    else:
        copies = (
            Copy(
                storage=status.storage or "",
                location=entry.location,
                checksum=entry.checksum,
                verified_time=entry.verified_time,
            ),
        )
    storage = copies[0].storage if copies else status.storage
    return status.model_copy(update={"backup_id": entry.backup_id, "copies": copies, "storage": storage})


def needed(status: BackupStatus) -> int:
    """Say how many copies the run needs."""
    return status.min_copies or max(1, len(status.storages))


def copies_complete(status: BackupStatus) -> Verdict | None:
    """Say whether every destination of a good run holds a copy; ``None`` where there is one, or the run is not good."""
    if len(status.storages) < 2 or status.phase not in ("Succeeded", "Suspect"):
        return None
    held = {each.storage for each in status.copies}
    missing = [each for each in status.storages if each not in held]
    if not missing:
        return Verdict("CopiesComplete", "True", "CopiesComplete", f"{len(held)} copies were read back")
    why = f": {status.message}" if status.message else ""
    return Verdict("CopiesComplete", "False", "CopiesMissing", f"no copy in {', '.join(missing)}{why}")


def failed(status: BackupStatus, outcome: Outcome, reason: str, message: str) -> BackupStatus:
    """Give the status of a run that left no backup."""
    return _closed(status, outcome, "Failed", reason, message)


def condition(status: BackupStatus) -> Verdict:
    """Say in one condition what a Backup is worth: kstatus waits for Ready."""
    message = status.message or ""
    if status.phase == "Succeeded":
        return Verdict("Ready", "True", "Succeeded", f"{status.backup_id} was written and read back")
    if status.phase == "Suspect" and status.anomaly_accepted:
        return Verdict("Ready", "True", "AnomalyAccepted", f"{status.backup_id} counts as it is")
    if status.phase in ("Failed", "Suspect", "Skipped"):
        return Verdict("Ready", "False", status.failure_reason or status.phase, message)
    return Verdict("Ready", "Unknown", status.phase or "Pending", message)


def for_people(size: int) -> str:
    """Write a size with three significant digits: ``17.3 MiB``."""
    value = float(size)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.3g} {unit}" if unit != "B" else f"{size} B"
        value /= 1024
    return f"{size} B"


def _succeeded(status: BackupStatus, result: Result) -> BackupStatus:
    start, end = result.start_time, result.completion_time
    duration = int((end - start).total_seconds()) if start and end else None
    backup_type = parse_backup_id(result.backup_id or "")[0]
    verification = Verification(status="Verified", last_verified_time=result.verified_time)
    told = result.copies or (CopyTold(storage=status.storage or "", status="Verified"),)
    where = {
        "location": status.prefix or "",
        "checksum": result.checksum,
        "verified_time": result.verified_time,
    }
    found = [each.model_copy(update=where) for each in told if each.status == "Verified" and result.checksum]
    copies = tuple(_copy(each) for each in found)
    return status.model_copy(
        update={
            "phase": result.verdict,
            "lookup": None,
            "failure_reason": result.reason if result.verdict == "Suspect" else None,
            "backup_id": result.backup_id,
            "run_identity": result.run_identity,
            "type": backup_type,
            "start_time": start,
            "completion_time": end,
            "snapshot_time": result.snapshot_time,
            "duration_seconds": duration,
            "progress": None,
            "size_bytes": result.size_bytes,
            "size": for_people(result.size_bytes or 0),
            "source_bytes": result.source_bytes,
            "checksum": result.checksum,
            "copies": copies,
            "storage": copies[0].storage if copies else status.storage,
            "verification": verification,
            "message": (result.message if result.verdict == "Suspect" else _missing(result.copies)) or None,
        }
    )


def _copy(told: CopyTold) -> Copy:
    return Copy(
        storage=told.storage,
        location=told.location[:1024],
        checksum=told.checksum,
        verified_time=told.verified_time,
    )


def _missing(copies: Iterable[CopyTold]) -> str:
    """Say why copies are missing."""
    missing = [each for each in copies if each.status != "Verified"]
    return "; ".join(f"{each.storage}: {each.message or each.reason}" for each in missing)[:4096]


def _age(found: Object, now: datetime) -> timedelta:
    return now - datetime.fromisoformat(found["metadata"]["creationTimestamp"])


def _closed(status: BackupStatus, outcome: Outcome, phase: Phase, reason: str, message: str) -> BackupStatus:
    start = status.start_time or outcome.started
    end: datetime | None = outcome.finished
    duration = int((end - start).total_seconds()) if start and end else None
    return status.model_copy(
        update={
            "phase": phase,
            "lookup": None,
            "start_time": start,
            "completion_time": end,
            "duration_seconds": max(0, duration) if duration is not None else None,
            "progress": None,
            "failure_reason": reason,
            "message": message or None,
        }
    )
