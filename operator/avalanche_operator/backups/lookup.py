"""Asking the storage what became of a run whose result was lost: when, and what an answer means. Pure.

A question that got no answer says nothing: the backup may lie there, and ``Failed`` would be final. So it is asked
again, later each time, for a day.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from avalanche_contract.log import Answer
from avalanche_contract.result import Entry
from avalanche_operator.api.backup import BackupStatus, Lookup
from avalanche_operator.backups.decide import Told, failed
from avalanche_operator.jobs.observe import Outcome

LIFE = timedelta(hours=24)
FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 900.0
ASKING = "its result was lost: the storage is asked"


def begun(status: BackupStatus, now: datetime) -> Lookup:
    """Give the question that is open, or the first one."""
    return status.lookup or Lookup(since_time=now)


def wait_seconds(lookup: Lookup | None, now: datetime) -> float:
    """Say in how many seconds the next question is due; 0 is now."""
    if lookup is None or lookup.last_time is None:
        return 0.0
    pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(lookup.number - 2, 10))
    return max(0.0, (lookup.last_time + timedelta(seconds=pause) - now).total_seconds())


def answered(outcome: Outcome, answer: Answer, identity: str) -> Entry | Literal["NotThere", "Unknown"]:
    """Say what an ended question came to; that the run is not there is believed of a whole answer alone."""
    entry = next((each for each in answer.entries if each.run_identity == identity), None)
    if entry is not None:
        return entry
    result = outcome.result
    whole = result is not None and result.verdict == "Succeeded" and result.next_cursor is None
    return "NotThere" if whole and answer.complete else "Unknown"


def asking(status: BackupStatus, lookup: Lookup) -> BackupStatus:
    """Give the status while a question is open."""
    return status.model_copy(
        update={"phase": status.phase or "Pending", "lookup": lookup, "message": status.message or ASKING}
    )


def not_there(status: BackupStatus, told: Told) -> BackupStatus:
    """Give the status of a run that the storage knows nothing of."""
    reason = told.outcome.reason or "ResultLost"
    return failed(status.model_copy(update={"lookup": None}), told.outcome, reason, told.outcome.message)


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
