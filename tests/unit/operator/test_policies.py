"""What a policy's runs came to, and what stands in its way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from avalanche_contract.request import Run
from avalanche_operator.api.retention import PolicyRetention
from avalanche_operator.applying.build import backup_job, probe_job
from avalanche_operator.applying.copies import storage_verdict
from avalanche_operator.jobs.build import job
from avalanche_operator.keeping.build import cleanup_cron_job
from avalanche_operator.policies.decide import (
    STRANDED_SECONDS,
    Runs,
    Tally,
    paused,
    stranded,
    surplus_jobs,
)
from avalanche_operator.verifying.build import verification_cron_job
from tests.unit.operator.objects import S3_SPEC, applied, found

Object = dict[str, Any]


def _backup(name: str, phase: str, start: str = "2026-01-01T00:00:00Z", **status: Any) -> Object:
    body = found(
        "Backup", name, {"policyRef": {"name": "nightly"}}, {"phase": phase, "startTime": start, **status}
    )
    return {**body, "metadata": {**body["metadata"], "creationTimestamp": start}}


def _counted(*backups: Object) -> Runs:
    tally = Tally()
    for each in backups:
        tally.add(each)
    return tally.runs()


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
    for order in permutations(backups):
        runs = _counted(*order)
        assert (runs.succeeded, runs.size_bytes, runs.failures) == (1, 5, 2)
        assert runs.last_successful == "2026-01-02T00:01:00Z"
        assert runs.verdict is not None and runs.verdict.reason == "SourceEmpty"


def test_before_the_first_run_nothing_is_said_of_it() -> None:
    assert _counted().verdict is None


def test_a_policy_pauses_for_a_restore_of_what_it_reads_and_for_no_other() -> None:
    restore = found("RestoreRequest", "back", {}, {"phase": "Restoring", "pausedPolicies": ["nightly"]})
    assert paused([restore], "nightly") is not None and paused([restore], "another") is None
    ended = {**restore, "status": {**restore["status"], "phase": "Succeeded"}}
    assert paused([ended], "nightly") is None


def _job(uid: str, created: int) -> Object:
    moment = f"2026-01-01T00:{created:02}:00Z"
    return {"metadata": {"name": f"job-{uid}", "uid": uid, "creationTimestamp": moment}}


def test_the_newest_jobs_stay_and_none_goes_whose_end_no_backup_tells() -> None:
    phases = {"a": "Succeeded", "b": "Succeeded", "c": "Failed", "d": "Skipped", "e": "Running"}
    jobs = [_job(uid, number) for number, uid in enumerate("abcdef")]
    assert [each["metadata"]["uid"] for each in surplus_jobs(jobs, phases, good=1, bad=1)] == ["c", "a"]
    assert surplus_jobs(jobs, phases, good=2, bad=2) == []


def _waiting(pinned: str, phase: str = "Pending") -> Object:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [pinned]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    owner = {"kind": "Job", "name": f"run-on-{pinned}", "uid": "job", "controller": True}
    metadata = {"name": "pod", "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [owner]}
    return {
        "metadata": metadata,
        "spec": {"affinity": {"nodeAffinity": required}},
        "status": {"phase": phase},
    }


def test_a_run_that_waits_for_the_node_that_its_claims_left_is_ended_and_no_other() -> None:
    late = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=STRANDED_SECONDS + 1)
    pods = [_waiting("old"), _waiting("new"), _waiting("gone", "Running")]
    assert stranded(pods, ("new",), late) == ["run-on-old"]
    assert stranded(pods, (), late) == [] == stranded(pods, ("new",), late - timedelta(seconds=5))


def test_only_backups_and_their_probe_may_adopt_the_folder_of_another_cluster() -> None:
    policy = applied(takeOver="lost")
    cleanup = cleanup_cron_job(policy, PolicyRetention.model_validate({"keepDaily": 1}), "0 5 * * *", ())
    pods = {
        "backup": job(backup_job(policy, policy.policy, "ab-run", Run())),
        "probe": job(probe_job(policy, 1)),
        "cleanup": cleanup,
        "verify": verification_cron_job(policy, "0 6 * * *", ()),
    }
    assert {name for name, built in pods.items() if '"takeOver":"lost"' in str(built)} == {"backup", "probe"}
