"""Asking the storage what became of a run whose result was lost: when, and what an answer means. Pure.

A question that got no answer says nothing: the backup may lie there, and ``Failed`` would be final. So it is asked
again, later each time, for a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from avalanche_contract.log import Answer
from avalanche_contract.result import Copy, Entry
from avalanche_operator.api.backup import BackupStatus, Lookup
from avalanche_operator.backups.decide import Told, failed, needed, with_copies
from avalanche_operator.jobs.observe import Outcome

LIFE = timedelta(hours=24)
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 900.0
ASKING = "its result was lost: the storage is asked"


@dataclass(frozen=True)
class Unknown:
    """A storage did not answer: whether the run is there is not known."""

    why: str


Answered = Entry | Unknown | None
"""What one storage says of a run; ``None`` is that it is not there."""


@dataclass(frozen=True)
class Partial:
    """A run that was committed in fewer storages than it needs."""

    entry: Entry


def begun(status: BackupStatus, now: datetime) -> Lookup:
    """Give the question that is open, or the first one."""
    return status.lookup or Lookup(since_time=now)


def wait_seconds(lookup: Lookup | None, now: datetime) -> float:
    """Say in how many seconds the next question is due; 0 is now."""
    if lookup is None or lookup.last_time is None:
        return 0.0
    pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(lookup.number - 2, 10))
    return max(0.0, (lookup.last_time + timedelta(seconds=pause) - now).total_seconds())


def answered(outcome: Outcome, answer: Answer, identity: str) -> Answered:
    """Say what an ended question came to; that the run is not there is believed of a whole answer alone."""
    entry = next((each for each in answer.entries if each.run_identity == identity), None)
    if entry is not None:
        return entry
    result = outcome.result
    whole = result is not None and result.verdict == "Succeeded" and result.next_cursor is None
    return None if whole and answer.complete else Unknown(outcome.message or outcome.reason)


def concluded(answers: Mapping[str, Answered], min_copies: int | None) -> Answered | Partial:
    """Bring the answers of all storages of a run together, by name and in their order.

    Enough copies are a backup, whatever the others say. That there are too few, or none, is believed once every storage
    has answered.
    """
    found = [each for each in answers.values() if isinstance(each, Entry)]
    unknown = [each for each in answers.values() if isinstance(each, Unknown)]
    if len(found) < (min_copies or len(answers)) and unknown:
        return Unknown("; ".join(each.why for each in unknown))
    if not found:
        return None
    whole = found[0].model_copy(update={"copies": _copies(answers)}) if len(answers) > 1 else found[0]
    return whole if len(found) >= (min_copies or len(answers)) else Partial(whole)


def _copies(answers: Mapping[str, Answered]) -> tuple[Copy, ...]:
    return tuple(_copy(name, each) for name, each in answers.items())


def _copy(name: str, answer: Answered) -> Copy:
    if isinstance(answer, Entry):
        where = {"location": answer.location, "checksum": answer.checksum}
        return Copy(storage=name, status="Verified", verified_time=answer.verified_time, **where)
    if answer is None:
        return Copy(
            storage=name, status="NotVerified", reason="CopyMissing", message="it does not hold this backup"
        )
    return Copy(storage=name, status="NotVerified", reason="StorageUnavailable", message=answer.why)


def asking(status: BackupStatus, lookup: Lookup) -> BackupStatus:
    """Give the status while a question is open."""
    return status.model_copy(
        update={"phase": status.phase or "Pending", "lookup": lookup, "message": status.message or ASKING}
    )


def not_there(status: BackupStatus, told: Told) -> BackupStatus:
    """Give the status of a run that the storage knows nothing of."""
    reason = told.outcome.reason or "ResultLost"
    return failed(status.model_copy(update={"lookup": None}), told.outcome, reason, told.outcome.message)


def too_few(status: BackupStatus, told: Told, partial: Partial) -> BackupStatus:
    """Give the status of a run that has copies, and fewer than it needs."""
    held = with_copies(status, partial.entry)
    names = ", ".join(each.storage for each in held.copies)
    message = (
        f"{partial.entry.backup_id} was committed in {names} alone, and {needed(status)} copies are needed"
    )
    return failed(held.model_copy(update={"lookup": None}), told.outcome, "CopiesMissing", message)


def unanswered(status: BackupStatus, told: Told, lookup: Lookup, why: str, now: datetime) -> BackupStatus:
    """Give the status after a question without an answer: another one is due, or a day is over."""
    reason, message = told.outcome.reason or "ResultLost", told.outcome.message
    if now - lookup.since_time >= LIFE:
        text = f"{message}; the storage could not be asked for a day ({why}): whether the backup is there is not known"
        return failed(status, told.outcome, reason, text)
    later = lookup.model_copy(update={"number": lookup.number + 1, "last_time": now})
    text = f"{ASKING}, and does not answer yet: {why}"
    return status.model_copy(
        update={"phase": status.phase or "Pending", "lookup": later, "message": text[:4096]}
    )
