"""What a verb is given besides its request: where to report, what time it is, which Job it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from avalanche_contract.notification import Told
from avalanche_contract.result import Checked, Decision, Drilled, Entry, Listed, Plan, Unreadable


class Report(Protocol):
    """Where a verb tells what it does: lines of the log for the operator, a progress bar for a person."""

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Say how far the run is; called often, the receiver thins it out."""

    def entry(self, entry: Entry) -> None:
        """Give one backup of a longer answer."""

    def plan(self, plan: Plan) -> None:
        """Give the plan of a restore."""

    def told(self, told: Told) -> None:
        """Say who was told of what, and who was not."""

    def decision(self, decision: Decision) -> None:
        """Give what retention says of one backup."""

    def checked(self, checked: Checked) -> None:
        """Give what a verification of several found of one."""

    def drilled(self, drilled: Drilled) -> None:
        """Give what a drill came to."""

    def listed(self, listed: Listed) -> None:
        """Give a page of what is there."""

    def unreadable(self, found: Unreadable) -> None:
        """Say of a metadata file that it cannot be read."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Context:
    """The surroundings of one run."""

    report: Report
    scratch: Path
    """An empty folder for what must pass through a file; removed by whoever made it."""
    now: Callable[[], datetime] = field(default=_utc_now)
    job_name: str = ""
    job_uid: str = ""
    """Empty without Kubernetes."""

    def copied(self, source: str, done_bytes: int) -> None:
        """Say how far a copy is."""
        self.report.progress("Copying", source, done_bytes, None)
