"""The phase of a Backup: success needs a result of this very run, or the catalog's word."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from avalanche_contract.log import Answer, Progress
from avalanche_contract.names import child_name, job_of_slot
from avalanche_contract.result import Entry, Result
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.backups.build import run_of_job, scheduled_backup
from avalanche_operator.backups.decide import (
    Told,
    again_seconds,
    condition,
    ended,
    for_people,
    is_lost,
    succeeded_by_entry,
    under_way,
)
from avalanche_operator.jobs.observe import Outcome, State
from tests.unit.operator.objects import UID, found, policy_spec

MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
IDENTITY = "manual/one"


def _told(state: State = "Ended", answer: Answer | None = None, **result: Any) -> Told:
    given_result = (
        Result.model_validate({"nonce": "0" * 16, "verb": "backup", "reason": "R", "message": "m", **result})
        if result
        else None
    )
    return Told(Outcome(state, "R", "m", given_result, finished=MOMENT), answer or Answer(), IDENTITY)


def _succeeded(**more: Any) -> Told:
    times: dict[str, Any] = dict.fromkeys(("startTime", "completionTime", "snapshotTime"), MOMENT)
    result: dict[str, Any] = {
        "verdict": "Succeeded", "backupID": "database_20260301_020000", "runIdentity": IDENTITY, "sizeBytes": 10,
        "checksum": "sha256:" + "a" * 64, **times, **more,
    }  # fmt: skip
    return _told(**result)


def _seen(status: BackupStatus, told: Told, now: datetime = MOMENT) -> BackupStatus:
    return under_way(status, told, found("Backup", "b", {}), now)


def test_a_result_of_this_run_is_a_success() -> None:
    status = ended(BackupStatus(storage="s3"), _succeeded())
    assert (status.phase, status.backup_id, status.type) == (
        "Succeeded",
        "database_20260301_020000",
        "database",
    )
    assert condition(status).status == "True"


def test_the_result_of_another_run_is_no_success() -> None:
    told = _succeeded()
    status = ended(BackupStatus(), Told(told.outcome, told.answer, "manual/another"))
    assert (status.phase, status.failure_reason) == ("Failed", "ResultInvalid")


def test_a_job_without_a_result_is_no_success_but_a_question_to_the_storage() -> None:
    assert is_lost(_told()) and is_lost(_told("Missing"))
    assert ended(BackupStatus(), _told()).phase == "Failed"


def test_a_failure_after_which_the_metadata_may_lie_there_is_asked_for() -> None:
    told = _told(verdict="Failed", reason="StorageUnavailable")
    assert not is_lost(told) and not is_lost(_told("Running"))
    assert is_lost(replace(told, outcome=replace(told.outcome, uncertain=True)))


def test_a_backup_that_gave_way_to_a_restore_is_skipped_and_not_failed() -> None:
    status = ended(BackupStatus(), _told(verdict="Skipped", reason="TargetBeingRestored"))
    assert (status.phase, status.failure_reason) == ("Skipped", "TargetBeingRestored")


def test_a_phase_does_not_go_back() -> None:
    answer = Answer(progress=Progress(phase="Running", done_bytes=1))
    assert _seen(BackupStatus(phase="Verifying"), _told("Running", answer)).phase == "Verifying"
    assert _seen(BackupStatus(), _told("Running", answer)).phase == "Running"


def test_what_a_pod_waits_for_is_said() -> None:
    status = _seen(
        BackupStatus(job="j"), Told(Outcome("Waiting", "Unschedulable", "0/1 nodes"), Answer(), IDENTITY)
    )
    assert (status.phase, status.message) == ("Pending", "0/1 nodes")


def test_a_run_that_cannot_be_started_for_hours_fails_and_says_what_it_waited_for() -> None:
    waits = Told(Outcome("Waiting", "PolicyNotFound", "BackupPolicy p does not exist"), Answer(), IDENTITY)
    assert _seen(BackupStatus(), waits, CREATED + timedelta(hours=5)).phase == "Pending"
    status = _seen(BackupStatus(), waits, CREATED + timedelta(hours=6))
    assert (status.phase, status.failure_reason) == ("Failed", "PolicyNotFound")


def test_one_that_waits_for_long_is_looked_at_less_often() -> None:
    waiting, made = BackupStatus(phase="Pending"), found("Backup", "b", {})
    pauses = [again_seconds(waiting, made, CREATED + timedelta(seconds=age)) for age in (0, 100, 9000)]
    assert pauses == [3.0, 10.0, 60.0]


def test_a_suspect_backup_is_shown_as_one() -> None:
    told = _succeeded(verdict="Suspect", reason="Shrunken")
    status = ended(BackupStatus(storage="s3"), told)
    assert (status.phase, status.failure_reason) == ("Suspect", "Shrunken")
    shown = condition(status)
    assert (shown.status, shown.reason) == ("False", "Shrunken") and shown.message == status.message != ""
    accepted = condition(status.model_copy(update={"anomaly_accepted": True}))
    assert (accepted.status, accepted.reason) == ("True", "AnomalyAccepted")


def test_a_suspect_backup_that_only_storage_tells_of_says_why() -> None:
    times: dict[str, Any] = dict.fromkeys(("startTime", "completionTime", "snapshotTime"), MOMENT)
    entry = Entry.model_validate(
        {"backupID": "database_20260301_020000", "backupType": "database", "runIdentity": IDENTITY, "sizeBytes": 1,
         "sourceBytes": 1, "checksum": "sha256:" + "a" * 64, "status": "Suspect", "reason": "TablesGone",
         "message": "no table", **times}
    )  # fmt: skip
    status = succeeded_by_entry(BackupStatus(storage="s3"), entry)
    assert (status.phase, status.failure_reason, status.message) == ("Suspect", "TablesGone", "no table")


@given(st.integers(0, 10**18))
def test_a_size_for_people_fits_its_column(size: int) -> None:
    text = for_people(size)
    assert len(text) <= 16 and text.split()[1] in ("B", "KiB", "MiB", "GiB", "TiB")


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2045, 1, 1)).map(
        lambda moment: moment.replace(second=0, microsecond=0, tzinfo=UTC)
    )
)
def test_a_scheduled_run_is_named_by_its_slot_whoever_looks_and_when(slot: datetime) -> None:
    cron_job = child_name("nightly", "BackupPolicy", "backup")
    job = {
        "metadata": {
            "name": job_of_slot(cron_job, slot),
            "uid": "j",
            "creationTimestamp": "2026-01-01T00:00:07Z",
        }
    }
    assert run_of_job(UID, job, cron_job) == (f"scheduled/{UID}/{int(slot.timestamp()) // 60}", slot)
    backup = scheduled_backup(found("BackupPolicy", "nightly", policy_spec()), job, cron_job)
    assert backup["metadata"]["name"] == f"nightly-{slot:%Y%m%d%H%M}00"


def test_a_job_that_a_person_made_from_the_cron_job_is_a_run_of_its_own() -> None:
    job = {"metadata": {"name": "by-hand", "uid": "job-uid", "creationTimestamp": "2026-03-01T02:00:07Z"}}
    identity, moment = run_of_job(UID, job, "ab-nightly-12345678")
    assert identity == "job/job-uid" and moment == datetime(2026, 3, 1, 2, 0, 7, tzinfo=UTC)
