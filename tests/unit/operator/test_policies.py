"""What a policy's runs came to, and what stands in its way."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_operator.policies.decide import (
    backups_of,
    missing_backups,
    paused,
    storage_verdict,
    summarize,
)
from tests.unit.operator.objects import S3_SPEC, found

Object = dict[str, Any]


def _backup(name: str, phase: str, start: str = "2026-01-01T00:00:00Z", **status: Any) -> Object:
    body = found(
        "Backup", name, {"policyRef": {"name": "nightly"}}, {"phase": phase, "startTime": start, **status}
    )
    return {**body, "metadata": {**body["metadata"], "creationTimestamp": start}}


def _storage(status: str = "True", reason: str = "Usable", **spec: Any) -> Object:
    conditions = [{"type": "Ready", "status": status, "reason": reason, "message": "told"}]
    return found("BackupStorage", "s3", {**S3_SPEC, **spec}, {"conditions": conditions})


@pytest.mark.parametrize(("storage", "reason"), [
    (None, "StorageNotFound"),
    (found("BackupStorage", "s3", S3_SPEC), "StorageNotProbed"),
    (_storage("False", "BucketNotFound"), "StorageNotReady"),
    (_storage(accessMode="ReadOnly"), "StorageReadOnly"),
], ids=["missing", "unknown", "broken", "read only"])  # fmt: skip
def test_a_storage_that_cannot_be_used_is_named(storage: Object | None, reason: str) -> None:
    verdict = storage_verdict(storage, "s3")
    assert verdict is not None and verdict.reason == reason and "s3" in verdict.message


def test_a_usable_storage_is_no_obstacle() -> None:
    assert storage_verdict(_storage(), "s3") is None


def test_failures_are_counted_since_the_last_success_and_skipped_runs_not_at_all() -> None:
    backups = [
        _backup("d", "Failed", "2026-01-04T00:00:00Z", failureReason="SourceEmpty"),
        _backup("a", "Failed", "2026-01-01T00:00:00Z"),
        _backup("b", "Succeeded", "2026-01-02T00:00:00Z", sizeBytes=5, completionTime="2026-01-02T00:01:00Z"),
        _backup("c", "Failed", "2026-01-03T00:00:00Z"),
        _backup("e", "Skipped", "2026-01-05T00:00:00Z"),
    ]
    runs = summarize(backups_of(backups, "nightly"))
    assert (runs.succeeded, runs.size_bytes, runs.failures, runs.last_successful) == (
        1,
        5,
        2,
        "2026-01-02T00:01:00Z",
    )
    assert runs.verdict is not None and runs.verdict.reason == "SourceEmpty"


def test_before_the_first_run_nothing_is_said_of_it() -> None:
    assert summarize([]).verdict is None


def test_a_policy_pauses_for_a_restore_of_what_it_reads_and_for_no_other() -> None:
    restore = found("RestoreRequest", "back", {}, {"phase": "Restoring", "pausedPolicies": ["nightly"]})
    assert paused([restore], "nightly") is not None and paused([restore], "another") is None
    ended = {**restore, "status": {**restore["status"], "phase": "Succeeded"}}
    assert paused([ended], "nightly") is None


def test_only_jobs_of_the_cron_job_that_no_backup_shows_are_missing() -> None:
    cron_job = {"metadata": {"uid": "cron"}}

    def job(uid: str, owner: str) -> Object:
        return {"metadata": {"uid": uid, "ownerReferences": [{"uid": owner, "controller": True}]}}

    shown = found("Backup", "shown", {"job": {"name": "j", "uid": "known"}})
    jobs = [job("known", "cron"), job("new", "cron"), job("foreign", "another")]
    assert [each["metadata"]["uid"] for each in missing_backups(jobs, [shown], cron_job)] == ["new"]
    assert missing_backups(jobs, [], None) == []
