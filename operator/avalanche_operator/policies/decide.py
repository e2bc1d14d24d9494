"""What a policy's state is, from what was observed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_operator.kube.conditions import Verdict, find_condition

Object = dict[str, Any]
RESTORING = ("Restoring", "Verifying")


@dataclass(frozen=True)
class Runs:
    """What the runs of a policy came to."""

    succeeded: int
    size_bytes: int
    last_successful: str | None
    failures: int
    """Since the last success."""
    verdict: Verdict | None
    """LastRunSucceeded; ``None`` before the first run ended."""


def storage_verdict(storage: Object | None, name: str) -> Verdict | None:
    """Say what is wrong with the storage of a policy, or ``None``."""
    if storage is None:
        return Verdict("Ready", "False", "StorageNotFound", f"BackupStorage {name} does not exist: create it")
    found = find_condition((storage.get("status") or {}).get("conditions") or (), "Ready")
    if found is None or found["status"] == "Unknown":
        return Verdict(
            "Ready", "Unknown", "StorageNotProbed", f"BackupStorage {name} is not known to be usable yet"
        )
    if found["status"] == "False":
        return Verdict(
            "Ready",
            "False",
            "StorageNotReady",
            f"BackupStorage {name}: {found['reason']}: {found.get('message', '')}",
        )
    if storage["spec"].get("accessMode") == "ReadOnly":
        return Verdict(
            "Ready", "False", "StorageReadOnly", f"BackupStorage {name} is ReadOnly: nothing is written to it"
        )
    return None


def backups_of(backups: Iterable[Object], policy: str) -> list[Object]:
    """Give the Backups of a policy, the oldest first."""
    own = [each for each in backups if each["spec"].get("policyRef", {}).get("name") == policy]
    return sorted(
        own,
        key=lambda each: (
            str((each.get("status") or {}).get("startTime") or each["metadata"]["creationTimestamp"]),
            each["metadata"]["name"],
        ),
    )


def summarize(own: list[Object]) -> Runs:
    """Count what the runs came to; skipped ones count neither way."""
    ended = [each for each in own if _phase(each) in ("Succeeded", "Suspect", "Failed")]
    good = [each for each in ended if _phase(each) == "Succeeded"]
    failures = 0
    for each in reversed(ended):
        if _phase(each) == "Succeeded":
            break
        failures += 1
    return Runs(
        succeeded=len(good),
        size_bytes=sum(each["status"].get("sizeBytes", 0) for each in good),
        last_successful=max((each["status"].get("completionTime", "") for each in good), default="") or None,
        failures=failures,
        verdict=_last_run(ended[-1]) if ended else None,
    )


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


def missing_backups(jobs: Iterable[Object], own: Iterable[Object], cron_job: Object | None) -> list[Object]:
    """Give the Jobs of the CronJob that no Backup object shows yet."""
    if cron_job is None:
        return []
    known = {each["spec"]["job"]["uid"] for each in own if each["spec"].get("job")}
    uid = cron_job["metadata"]["uid"]
    references = ((each, each["metadata"].get("ownerReferences") or ()) for each in jobs)
    ours = (
        job for job, refs in references if any(ref.get("controller") and ref["uid"] == uid for ref in refs)
    )
    return [job for job in ours if job["metadata"]["uid"] not in known]


def time_of(text: str | None) -> datetime | None:
    """Read a moment of the API."""
    return datetime.fromisoformat(text) if text else None


def _last_run(newest: Object) -> Verdict:
    name, status = newest["metadata"]["name"], newest["status"]
    if _phase(newest) == "Succeeded":
        return Verdict("LastRunSucceeded", "True", "Succeeded", f"Backup {name} succeeded")
    reason = status.get("failureReason") or _phase(newest)
    return Verdict("LastRunSucceeded", "False", reason, f"Backup {name}: {status.get('message', '')}")


def _phase(backup: Object) -> str:
    return str((backup.get("status") or {}).get("phase") or "")
