"""What an outcome is worth telling. Pure.

Told is what is final: a failure that another pod of the same Job may mend is nobody's business yet, and a state that
was told already is not told again. So there is one message for each change, however often a run is tried.
"""

from __future__ import annotations

from datetime import datetime

from avalanche_contract.exitcodes import PERMANENT, ExitCode
from avalanche_contract.notification import QUIET, Event
from avalanche_contract.result import Verdict


def told_lately(reason: str, told_reason: str, told_time: datetime | None, now: datetime) -> bool:
    """Say whether people know of just this failure already."""
    return reason == told_reason and told_time is not None and now - told_time < QUIET


def of_failure(exit_code: ExitCode, *, retried: bool, lately: bool = False) -> Event | None:
    """Say what a failed run is worth; one that was left out on purpose, or that people know of, is nothing."""
    if exit_code is ExitCode.SKIPPED or lately:
        return None
    return "Failed" if exit_code in PERMANENT or not retried else None


def of_success(verdict: Verdict, *, failing: bool) -> Event | None:
    """Say what a run is worth that left a backup; ``failing``: people were told of a failure since the last one."""
    if verdict == "Suspect":
        return "Suspect"
    return "Recovered" if verdict == "Succeeded" and failing else None
