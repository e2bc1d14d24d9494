"""What a verification came to, what it means for each Backup, and what a policy says of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract.log import Answer
from avalanche_contract.result import Checked
from avalanche_contract.result import Copy as CopyTold
from avalanche_operator.api.backup import BackupStatus, Copy, Verification
from avalanche_operator.api.verification import VerificationRun
from avalanche_operator.jobs.observe import Outcome, ended_time
from avalanche_operator.keeping.decide import Place, has_data, missing
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
NAMED_MAX = 10
_NOT_WHOLE = ("CopiesIncomplete", "BackupsNotRead", "TombstonesNotTrusted")
"""Reasons of verifications that ended, and did not find everything whole."""


@dataclass(frozen=True)
class Verified:
    """One verification that ended: what it came to, and what it found of each backup (the last word counts)."""

    run: VerificationRun
    checked: Mapping[str, Checked]
    """By backup ID."""
    began: datetime | None = None
    listed: frozenset[str] | None = None
    """All that lies in the storages that were looked into; ``None`` where that is not known."""
    storages: frozenset[str] = frozenset()


def verified(job: Object, outcome: Outcome, answer: Answer) -> Verified:
    """Say what a verification came to. Without a result it did not succeed, whatever its Job says."""
    checked = {each.backup_id: each for each in answer.checked}
    count = {"Verified": 0, "VerificationFailed": 0, "NotVerified": 0}
    for each in checked.values():
        count[each.status] += 1
    succeeded = outcome.result is not None and outcome.result.verdict == "Succeeded"
    run = VerificationRun.model_validate(
        {
            "job": job["metadata"]["name"],
            "time": outcome.finished or ended_time(job),
            "succeeded": succeeded,
            "reason": outcome.reason or "ResultLost",
            "message": outcome.message[:1024],
            "verified": count["Verified"],
            "failed": count["VerificationFailed"],
        }
    )
    listed = {name for page in answer.listed for name in page.backup_ids}
    looked = [frozenset(page.storages) for page in answer.listed]
    return Verified(
        run,
        checked,
        began=outcome.started,
        listed=frozenset(listed) if answer.complete and looked else None,
        storages=frozenset.intersection(*looked) if looked else frozenset(),
    )


def after_looking(status: BackupStatus, told: Verified, prefix: str, now: datetime) -> BackupStatus:
    """Give the status of a Backup after a verification of its policy: whether it is there, and what was read of it."""
    if status.backup_id is None or status.prefix != prefix:
        return status
    after = _there_or_not(status, status.backup_id, told, now)
    checked = told.checked.get(status.backup_id)
    return after_verification(after, checked) if checked is not None and has_data(after) else after


def _there_or_not(status: BackupStatus, backup_id: str, told: Verified, now: datetime) -> BackupStatus:
    if told.listed is None:
        return status
    if backup_id in told.listed:
        back = status.removal is not None and status.removal.reason == "NotFound"
        return status.model_copy(update={"removal": None}) if back else status
    if Place(told.storages, status.prefix or "").holds(status):
        return missing(status, told.began, f"verification {told.run.job}", now)
    return status  # it may lie in a storage that was not looked into


def after_verification(status: BackupStatus, told: Checked) -> BackupStatus:
    """Give the status of a Backup after its copies were read."""
    copies = _copies(status.copies, told.copies)
    elsewhere = {each.storage for each in copies} - {each.storage for each in told.copies}
    if told.status == "NotVerified" or (told.status == "VerificationFailed" and elsewhere):
        return status.model_copy(update={"copies": copies})
    before = status.verification or Verification()
    verification = Verification(
        status=told.status,
        last_verified_time=told.verified_time or before.last_verified_time,
        reason=told.reason[:128],
        message=told.message[:1024] or None,
    )
    storage = copies[0].storage if copies else status.storage
    return status.model_copy(update={"copies": copies, "storage": storage, "verification": verification})


def _copies(before: Sequence[Copy], told: Sequence[CopyTold]) -> tuple[Copy, ...]:
    """Bring what was found together with what was known: of a place that could not be looked into, nothing is new."""
    known = {each.storage: each for each in before}
    order = dict.fromkeys([*(each.storage for each in told), *known])
    found = {each.storage: _copy(each, known.get(each.storage)) for each in told}
    merged = (found.get(name, known.get(name)) for name in order)
    return tuple(each for each in merged if each is not None)


def _copy(told: CopyTold, before: Copy | None) -> Copy | None:
    if told.status == "Verified":
        return Copy(
            storage=told.storage,
            location=told.location[:1024],
            checksum=told.checksum,
            verified_time=told.verified_time,
        )
    gone = told.status == "VerificationFailed" or told.reason == "CopyMissing"
    return None if gone else before


def condition(status: BackupStatus) -> Verdict | None:
    """Say of one Backup what was found; ``None`` where nothing was written that could be read."""
    found = status.verification
    if status.phase not in ("Succeeded", "Suspect") or found is None or status.removal is not None:
        return None
    if found.status == "NotVerified":
        return Verdict("Verified", "Unknown", "NotRead", "it was not read yet")
    if found.status == "VerificationFailed":
        return Verdict("Verified", "False", found.reason or found.status, found.message or "")
    return Verdict("Verified", "True", found.reason or "Verified", found.message or "")


def verdict(last: VerificationRun | None, damaged: Sequence[str], *, suspended: bool = False) -> Verdict:
    """Say in a condition of the policy what verifications found: damage lasts until the Backup is gone or good again."""
    if damaged:
        more = len(damaged) - NAMED_MAX
        named = ", ".join(sorted(damaged)[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        message = (
            f"damaged in storage, with no good copy: {named}. They take no slot of the retention; make a new backup now,"
            " and look at the storage"
        )
        return Verdict("BackupsVerified", "False", "VerificationFailed", message)
    if last is None and suspended:
        return Verdict("BackupsVerified", "Unknown", "Suspended", "verifications are switched off")
    if last is None:
        return Verdict("BackupsVerified", "Unknown", "Waiting", "no verification has ended yet")
    good = last.succeeded and last.reason not in _NOT_WHOLE
    return Verdict("BackupsVerified", "True" if good else "False", last.reason, last.message)


def last_verified(before: datetime | None, last: VerificationRun | None) -> datetime | None:
    """Say when a verification last found everything whole that it read."""
    if last is None or not last.succeeded or last.reason == "BackupsNotRead":
        return before
    return max(last.time, before) if before else last.time
