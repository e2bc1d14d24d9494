"""What a policy's state is, from what was observed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from avalanche_contract.base import format_time, parse_time
from avalanche_operator.api.backup import TERMINAL
from avalanche_operator.api.policy import BackupPolicyStatus
from avalanche_operator.backups.decide import is_at_home
from avalanche_operator.jobs.build import pinned_nodes
from avalanche_operator.keeping.decide import forgotten_phase
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.notifications.decide import Order, order_of

Object = dict[str, Any]
RESTORING = ("Restoring", "Verifying")
STRANDED_SECONDS = 180


@dataclass(frozen=True)
class Runs:
    """What the runs of a policy came to."""

    succeeded: int
    size_bytes: int
    last_successful: str | None
    failures: int
    """Since the last success."""
    last_failed: str | None
    """When the last of them ended."""
    verdict: Verdict | None
    """LastRunSucceeded; ``None`` before the first run ended."""
    damaged: tuple[str, ...] = ()
    """The Backups that were found damaged, with no good copy."""


class Tally:
    """Counts the Backups of a policy as they pass, in any order, and keeps none of them."""

    def __init__(self, jobs: Iterable[Object] = (), until: datetime | None = None) -> None:
        self.phases: dict[str, str] = {}
        """Of the Backups that show one of these Jobs, by its UID."""
        self._jobs = {each["metadata"]["uid"] for each in jobs}
        self._succeeded = self._size_bytes = 0
        self._last_successful = ""
        self._good: Order = ("", "")
        self._bad: list[tuple[Order, str]] = []
        """When each that is no good backup began, and when it ended."""
        self.failed: list[Object] = []
        """The Backups of failed and skipped scheduled runs; there are few, because those beyond a limit are deleted."""
        self._newest: tuple[Order, Verdict] | None = None
        self.last_slot: datetime | None = None
        """The newest slot that a scheduled Backup is of."""
        self._damaged: list[str] = []
        self.newest: datetime | None = None
        """The moment of the data of the newest backup that could be restored; none that claims to be of after ``until``."""
        self._until = until

    def add(self, backup: Object) -> None:
        """Count one; skipped ones count neither way, and one of another folder is none of this policy."""
        if not is_at_home(backup):
            return
        status, phase = backup.get("status") or {}, _phase(backup)
        uid: str = (backup["spec"].get("job") or {}).get("uid", "")
        if uid in self._jobs:
            self.phases[uid] = phase
        self.last_slot = max((each for each in (self.last_slot, _slot(backup)) if each), default=None)
        if phase in ("Failed", "Skipped") and backup["spec"].get("origin") == "Scheduled":
            self.failed.append(backup)
        if phase not in ("Succeeded", "Suspect", "Failed"):
            return
        order = order_of(backup)
        if self._newest is None or order > self._newest[0]:
            self._newest = (order, _last_run(backup))
        if not _is_good(backup):
            end = str(status.get("completionTime") or backup["metadata"]["creationTimestamp"])
            self._bad.append((order, end))
            return
        self._good = max(self._good, order)
        if _is_damaged(backup):
            self._damaged.append(backup["metadata"]["name"])
        elif not status.get("removal"):
            moment = _moment(backup)
            if moment is not None and (self._until is None or moment <= self._until):
                self.newest = max(moment, self.newest or moment)
            self._succeeded += 1
            self._size_bytes += status.get("sizeBytes", 0)
        self._last_successful = max(self._last_successful, status.get("completionTime", ""))

    def runs(self, before: BackupPolicyStatus | None = None) -> Runs:
        """Say what they came to; ``before`` is what was recorded when Backups were there that are deleted now."""
        ends = [end for order, end in self._bad if order > self._good]
        failures, last_failed = _failures(ends, self._last_successful, before)
        recorded = before.last_successful_time if before is not None else None
        return Runs(
            succeeded=self._succeeded,
            size_bytes=self._size_bytes,
            last_successful=self._last_successful or (format_time(recorded) if recorded else None),
            failures=failures,
            last_failed=last_failed,
            verdict=self._newest[1] if self._newest else None,
            damaged=tuple(self._damaged),
        )


def _slot(backup: Object) -> datetime | None:
    """Give the slot of a run that a CronJob here started: what was discovered says what it likes."""
    kind, _, rest = str(backup["spec"].get("runIdentity") or "").partition("/")
    minutes = rest.rpartition("/")[2]
    if backup["spec"].get("origin") != "Scheduled" or kind != "scheduled" or not minutes.isdecimal():
        return None
    try:
        return datetime.fromtimestamp(int(minutes) * 60, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _failures(
    ends: list[str], last_successful: str, before: BackupPolicyStatus | None
) -> tuple[int, str | None]:
    """Count the failures since the last success, those included whose Backups were deleted as too many."""
    newest = max(ends, default="")
    known = before.last_failed_time if before is not None else None
    if before is None or known is None or last_successful > format_time(known):
        return len(ends), newest or None
    new = sum(each > format_time(known) for each in ends)
    return max(len(ends), before.consecutive_failures + new), max(newest, format_time(known))


def surplus_jobs(jobs: Iterable[Object], phases: Mapping[str, str], *, good: int, bad: int) -> list[Object]:
    """Give the Jobs that nobody needs: their Backups tell what they came to, and there are newer ones enough."""
    room = {True: good, False: bad}
    found: list[Object] = []
    for job in sorted(jobs, key=_creation, reverse=True):
        phase = phases.get(job["metadata"]["uid"]) or forgotten_phase(job)
        if phase not in TERMINAL:
            continue
        room[phase == "Succeeded"] -= 1
        if room[phase == "Succeeded"] < 0:
            found.append(job)
    return found


def paused(restores: Iterable[Object], policy: str) -> Verdict | None:
    """Say that a restore works on what this policy reads."""
    for each in restores:
        status = each.get("status") or {}
        if status.get("phase") in RESTORING and policy in (status.get("pausedPolicies") or ()):
            name = each["metadata"]["name"]
            return Verdict(
                "Paused",
                "True",
                "RestoreInProgress",
                f"RestoreRequest {name} works on the sources: runs are skipped",
            )
    return None


def stranded(pods: Iterable[Object], nodes: Iterable[str], now: datetime) -> list[str]:
    """Name the Jobs whose pod waits for a node that its claims have left: it would wait until its deadline.

    ``nodes`` are those of the claims now; a Job's own are fixed when it is made.
    """
    here = set(nodes)
    return [
        owner["name"]
        for pod in pods
        if here and (pinned := pinned_nodes(pod["spec"])) and not pinned & here
        if (pod.get("status") or {}).get("phase") == "Pending"
        if (now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])).total_seconds()
        > STRANDED_SECONDS
        for owner in pod["metadata"].get("ownerReferences") or ()
        if owner.get("controller")
    ]


def _last_run(newest: Object) -> Verdict:
    name, status = newest["metadata"]["name"], newest["status"]
    if _is_good(newest):
        return Verdict("LastRunSucceeded", "True", "Succeeded", f"Backup {name} succeeded")
    reason = status.get("failureReason") or _phase(newest)
    return Verdict("LastRunSucceeded", "False", reason, f"Backup {name}: {status.get('message', '')}")


def _is_good(backup: Object) -> bool:
    accepted = _phase(backup) == "Suspect" and bool(backup["status"].get("anomalyAccepted"))
    return _phase(backup) == "Succeeded" or accepted


def _is_damaged(backup: Object) -> bool:
    status = backup["status"]
    verification = status.get("verification") or {}
    return verification.get("status") == "VerificationFailed" and not status.get("removal")


def _moment(backup: Object) -> datetime | None:
    """Give the moment of the data of a backup that was verified."""
    status = backup["status"]
    verified = (status.get("verification") or {}).get("status") == "Verified"
    return parse_time(status.get("snapshotTime")) if verified else None


def _creation(found: Object) -> tuple[str, str]:
    return str(found["metadata"].get("creationTimestamp") or ""), found["metadata"]["name"]


def _phase(backup: Object) -> str:
    return str((backup.get("status") or {}).get("phase") or "")
