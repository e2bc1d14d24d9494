"""What cleanups and a Backup's own spec come to: decided purely, and the whole operator killed at every write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract.log import Answer
from avalanche_contract.names import child_name
from avalanche_contract.request import Run
from avalanche_contract.result import Decision, Result
from avalanche_contract.wire import parse_request
from avalanche_operator.api.backup import BackupSpec, BackupStatus, Refusal, Removal, Said
from avalanche_operator.api.policy import BackupPolicyStatus
from avalanche_operator.api.retention import PolicyRetention
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import backup_job
from avalanche_operator.jobs.build import job
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.jobs.series import unrecorded
from avalanche_operator.keeping.build import Where, cleanup_cron_job, delete_job, hold_job
from avalanche_operator.keeping.decide import (
    Cleaned,
    Place,
    after_change,
    after_cleanup,
    cleaned,
    conditions,
    next_step,
    retention_verdict,
    superfluous,
)
from avalanche_operator.keeping.policy import looked_at
from avalanche_operator.policies.decide import Runs, Tally
from avalanche_operator.verifying.build import verification_cron_job
from tests.fakes.world import NAMESPACE, World, Writes, undisturbed
from tests.unit.operator.objects import DATABASE, S3_SPEC, SETTINGS, applied, found, policy_spec

Object = dict[str, Any]
NOW = datetime(2026, 3, 8, 5, tzinfo=UTC)
ID = "database_20260301_020000"
RULES: Object = {"keepDaily": 7, "keepWeekly": 4, "keepMonthly": 12}
STORED = BackupStatus(
    phase="Succeeded",
    backup_id=ID,
    type="database",
    storage="s3",
    prefix="edna/nightly/",
    completion_time=NOW - timedelta(days=7),
)


def _job(name: str, ended: str | None, owner: str = "cron") -> Object:
    conditions = (
        [{"type": "Complete", "status": "True", "lastTransitionTime": ended}] if ended is not None else []
    )
    return {
        "metadata": {"name": name, "ownerReferences": [{"uid": owner, "controller": True}]},
        "status": {"conditions": conditions},
    }


CRON: Object = {"metadata": {"uid": "cron"}}
FIRST, SECOND = _job("a", "2026-03-01T05:00:00Z"), _job("b", "2026-03-08T05:00:00Z")


def test_each_cleanup_that_ended_is_recorded_once_and_in_its_order() -> None:
    running, foreign = _job("c", None), _job("d", "2026-03-09T05:00:00Z", owner="another")
    jobs = [SECOND, running, foreign, FIRST]
    assert unrecorded(jobs, CRON, None) == [FIRST, SECOND]
    last = (datetime(2026, 3, 1, 5, tzinfo=UTC), "a")
    assert unrecorded(jobs, CRON, last) == [SECOND] and unrecorded(jobs, None, None) == []


def _told(*decisions: Decision, verdict: str = "Succeeded", reason: str = "CleanedUp") -> Cleaned:
    result = Result.model_validate(
        {"nonce": "0" * 16, "verb": "cleanup", "verdict": verdict, "reason": reason, "message": "m"}
    )
    outcome = Outcome("Ended", reason, "m", result, started=NOW - timedelta(minutes=1), finished=NOW)
    return cleaned(SECOND, outcome, Answer(decisions=decisions, complete=True))


KEEP = Decision(backup_id=ID, verdict="Keep", reasons=("daily-3", "weekly-1"))
GO = Decision(backup_id=ID, verdict="Remove", reasons=("no-rule",))


def test_a_backup_that_stays_says_why() -> None:
    told = _told(KEEP.model_copy(update={"held": True, "expiration_time": NOW}))
    after = after_cleanup(STORED, told, NOW)
    assert after.kept_by == ("daily-3", "weekly-1") and after.held and after.expiration_time == NOW
    assert (told.status.kept, told.status.removed) == (1, 0)


def test_only_what_was_really_removed_is_gone() -> None:
    refused = _told(GO, verdict="Refused", reason="TooManyRemovals")
    assert after_cleanup(STORED, refused, NOW).removal is None
    assert retention_verdict(refused.status).reason == "TooManyRemovals"
    gone = after_cleanup(STORED, _told(GO, GO.model_copy(update={"removed": True})), NOW).removal
    assert gone is not None and gone.reason == "Expired" and "no-rule" in gone.message


def test_a_backup_that_is_not_in_storage_any_more_is_said_and_comes_back_when_it_is_seen_again() -> None:
    lost = after_cleanup(STORED, _told(), NOW)
    assert lost.removal is not None and lost.removal.reason == "NotFound"
    assert after_cleanup(lost, _told(KEEP), NOW).removal is None


@pytest.mark.parametrize("status", [
    STORED.model_copy(update={"completion_time": NOW - timedelta(minutes=30)}),
    STORED.model_copy(update={"completion_time": None}),
])  # fmt: skip
def test_what_a_cleanup_may_not_have_seen_yet_is_not_missing(status: BackupStatus) -> None:
    assert after_cleanup(status, _told(), NOW).removal is None


def test_a_list_that_was_cut_off_makes_nothing_missing() -> None:
    outcome = Outcome("Ended", "ResultLost", "m", None, started=NOW, finished=NOW)
    told = cleaned(SECOND, outcome, Answer(complete=False))
    assert after_cleanup(STORED, told, NOW) == STORED and not told.status.succeeded


def test_an_older_cleanup_does_not_take_back_what_was_said_since() -> None:
    status = STORED.model_copy(update={"held": True, "said": Said(hold=True, time=NOW)})
    assert after_cleanup(status, _told(KEEP), NOW).held is True
    erased = STORED.model_copy(update={"removal": Removal(reason="Erased")})
    assert after_cleanup(erased, _told(KEEP), NOW) == erased


def _spec(**more: Any) -> BackupSpec:
    return BackupSpec.model_validate({"policyRef": {"name": "nightly"}, **more})


@pytest.mark.parametrize(("spec", "status", "step"), [
    (_spec(), STORED, None),
    (_spec(hold=True), STORED, "Hold"),
    (_spec(hold=True), STORED.model_copy(update={"said": Said(hold=True, time=NOW)}), None),
    (_spec(), STORED.model_copy(update={"said": Said(hold=True)}), "Hold"),
    (_spec(hold=False, deleteRequested=True), STORED.model_copy(update={"said": Said(hold=True)}), "Hold"),
    (_spec(deleteRequested=True), STORED, "Delete"),
    (_spec(deleteRequested=True), STORED.model_copy(update={"removal": Removal(reason="Expired")}), None),
    (_spec(deleteRequested=True), STORED.model_copy(update={"phase": "Failed"}), None),
    (_spec(deleteRequested=True), STORED.model_copy(update={"refusal": Refusal(generation=2, reason="DeleteRefused")}), None),
    (_spec(deleteRequested=True), STORED.model_copy(update={"refusal": Refusal(generation=1, reason="DeleteRefused")}), "Delete"),
    (_spec(hold=True), STORED.model_copy(update={"refusal": Refusal(generation=2, reason="StorageUnavailable", passing=True)}), "Hold"),
])  # fmt: skip
def test_what_a_spec_asks_for_is_done_once_and_after_a_refusal_not_before_it_changes(
    spec: BackupSpec, status: BackupStatus, step: str | None
) -> None:
    assert next_step(spec, status, generation=2) == step


PRUNED = BackupStorageSpec.model_validate({**S3_SPEC, "pruneCredentialsSecretRef": {"name": "pruner"}})
WHERE = Where((("s3", PRUNED),))


def _account(built: Object) -> Any:
    template = built["spec"].get("jobTemplate", built)["spec"]["template"]
    return template["spec"].get("serviceAccountName")


def test_what_removes_runs_as_another_account_than_what_writes() -> None:
    accounts = {"serviceAccountName": "writer", "pruneServiceAccountName": "pruner"}
    storage = {"s3": {"bucket": "backups"}, **accounts}
    spec = BackupStorageSpec.model_validate(storage)
    policy, where = applied(storage=storage), Where((("s3", spec),))
    asked, backup = _spec(deleteRequested=True), found("Backup", "a", {"policyRef": {"name": "nightly"}})
    built = {
        "backup": job(backup_job(policy, policy.policy, "ab-run", Run())),
        "hold": job(hold_job(backup, asked, STORED, where, SETTINGS)),
        "delete": job(delete_job(backup, asked, STORED, where, SETTINGS)),
        "cleanup": cleanup_cron_job(policy, PolicyRetention.model_validate(RULES), "0 5 * * *", ()),
        "verify": verification_cron_job(policy, "0 6 * * *", ()),
    }
    assert {name: _account(each) for name, each in built.items()} == {
        "backup": "writer", "hold": "writer", "delete": "pruner", "cleanup": "pruner", "verify": "pruner",
    }  # fmt: skip
    mixed = {**S3_SPEC, "pruneServiceAccountName": "pruner"}
    cleanup = cleanup_cron_job(applied(storage=mixed), PolicyRetention.model_validate(RULES), "0 5 * * *", ())
    assert _account(cleanup) == "pruner" and "'secretName': 'bucket'" not in str(cleanup)


def _request(built: Object) -> Any:
    environment = built["spec"]["template"]["spec"]["containers"][0]["env"]
    return parse_request(environment[0]["value"].replace("$$", "$"), None)


def test_only_what_is_new_is_written_and_what_is_said_no_longer_is_taken_back() -> None:
    status = STORED.model_copy(update={"said": Said(hold=True, expiration_time=NOW)})
    backup = found("Backup", "one", {"policyRef": {"name": "nightly"}})
    request = _request(job(hold_job(backup, _spec(acceptAnomaly=True), status, WHERE, SETTINGS)))
    assert (request.held, request.never_expires, request.accept_anomaly) == (False, True, True)


def test_the_key_that_may_delete_is_mounted_for_removals_alone() -> None:
    backup = found("Backup", "one", {"policyRef": {"name": "nightly"}})
    holding = job(hold_job(backup, _spec(hold=True), STORED, WHERE, SETTINGS))
    erasing = job(delete_job(backup, _spec(deleteRequested=True), STORED, WHERE, SETTINGS))
    rules = PolicyRetention.model_validate(RULES)
    cleaning = cleanup_cron_job(applied(storage=PRUNED.model_dump(by_alias=True)), rules, "0 5 * * 0", ())
    assert "pruner" not in str(holding) and "bucket/AWS_SECRET" in str(holding)
    for removing in (erasing, cleaning):
        assert "pruner/AWS_SECRET" in str(removing) and "'secretName': 'bucket'" not in str(removing)
        assert "bucket/AWS_SECRET" not in str(removing)


@pytest.mark.parametrize("backend", [
    {"s3": {"bucket": "backups"}, "credentialsSecretRef": {"name": "writer"}},
    {"azure": {"container": "backups", "accountName": "edna"}, "serviceAccountName": "writer"},
    {"gcs": {"bucket": "backups"}, "serviceAccountName": "writer"},
], ids=lambda backend: next(iter(backend)))  # fmt: skip
def test_every_backend_takes_the_key_that_may_delete_in_place_of_the_writers(backend: Object) -> None:
    spec = BackupStorageSpec.model_validate({**backend, "pruneCredentialsSecretRef": {"name": "pruner"}})
    _, mounts = storage_part("store", spec, prune=True)
    assert {each.secret for each in mounts.secrets} == {"pruner"} and mounts.identities == ()
    _, writers = storage_part("store", spec)
    assert "pruner" not in {each.secret for each in writers.secrets}


def test_a_cleanup_says_all_that_retention_says_in_the_policys_time_zone() -> None:
    built = applied(
        timeZone="Europe/Berlin", retention={**RULES, "maxDeletePercent": 30}, activeDeadlineSeconds=7200
    )
    assert built.spec.retention is not None
    cron = cleanup_cron_job(built, built.spec.retention, "0 5 * * 0", ("node-a",))
    request = _request({"spec": cron["spec"]["jobTemplate"]["spec"]})
    assert (request.retention.keep_daily, request.retention.keep_weekly, request.retention.keep_monthly) == (
        7,
        4,
        12,
    )
    assert (request.time_zone, request.max_delete_percent) == ("Europe/Berlin", 30)
    assert request.orphan_seconds > 86400 + 7000, "no object of a run under way may look left over"
    assert (cron["spec"]["timeZone"], cron["spec"]["concurrencyPolicy"]) == ("Europe/Berlin", "Forbid")


def test_every_place_of_a_backup_is_held_erased_and_cleaned_up() -> None:
    backup = found("Backup", "one", {"policyRef": {"name": "nightly"}})
    where = Where((("s3", PRUNED), ("second", BackupStorageSpec.model_validate(S3_SPEC))))
    held = _request(job(hold_job(backup, _spec(hold=True), STORED, where, SETTINGS)))
    erased = _request(job(delete_job(backup, _spec(deleteRequested=True), STORED, where, SETTINGS)))
    for request in (held, erased):
        assert request.backup.place.storage.name == "s3"
        assert [(each.storage.name, each.prefix) for each in request.others] == [("second", "edna/nightly/")]
    both = replace(applied(), others=(("second", PRUNED),))
    cron = cleanup_cron_job(both, PolicyRetention.model_validate(RULES), "0 5 * * 0", ())
    ended = {"spec": cron["spec"]["jobTemplate"]["spec"]}
    assert looked_at(ended) == Place(frozenset({"s3", "second"}), "edna/nightly/")


def test_what_lies_elsewhere_too_is_not_judged_by_a_cleanup_that_did_not_look_there() -> None:
    place = Place(frozenset({"s3"}), "edna/nightly/")
    assert place.holds(STORED) and not place.holds(STORED.model_copy(update={"storages": ("s3", "second")}))
    assert not place.holds(STORED.model_copy(update={"prefix": "another/"}))


def test_what_was_refused_is_a_condition() -> None:
    outcome = Outcome("Ended", "BackupHeld", "it is held")
    spec = _spec(deleteRequested=True)
    after = after_change(spec, STORED, "Delete", outcome, generation=1, now=NOW)
    shown = {each.type: (each.status, each.reason) for each in conditions(spec, after, 1)}
    assert shown == {"Available": ("True", "Stored"), "ChangeApplied": ("False", "BackupHeld")}


def _failed(name: str, phase: str = "Failed", origin: str = "Scheduled", day: int = 1) -> Object:
    spec = {"policyRef": {"name": "nightly"}, "origin": origin}
    moment = f"2026-03-{day:02}T02:00:00Z"
    body = found("Backup", name, spec, {"phase": phase, "startTime": moment, "completionTime": moment})
    return {**body, "metadata": {**body["metadata"], "creationTimestamp": moment}}


def _runs(own: list[Object], before: BackupPolicyStatus | None = None) -> tuple[Runs, list[Object]]:
    tally = Tally()
    for each in own:
        tally.add(each)
    return tally.runs(before), tally.failed


def test_failed_runs_are_kept_to_their_limit_and_those_of_people_are_not_touched() -> None:
    own = [_failed("a"), _failed("by-hand", origin="Manual"), _failed("b", day=2), _failed("s", "Skipped"), _failed("c", day=3)]  # fmt: skip
    failed = _runs(own)[1]
    assert [each["metadata"]["name"] for each in superfluous(failed, 2)] == ["a"]
    assert [each["metadata"]["name"] for each in superfluous(failed, 0)] == ["a", "b", "c", "s"]


def test_failures_are_counted_although_their_backups_are_deleted_as_too_many() -> None:
    own = [_failed(str(day), day=day) for day in range(1, 8)]
    before, seen = None, []
    for count in range(1, 8):
        runs, _ = _runs(own[max(0, count - 2) : count], before)
        before = BackupPolicyStatus.model_validate(
            {"consecutiveFailures": runs.failures, "lastFailedTime": runs.last_failed}
        )
        seen.append(runs.failures)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert _runs(own[5:7], before)[0].failures == 7, "a second look counts nothing twice"


def test_what_is_no_longer_in_storage_counts_as_no_backup() -> None:
    stored = {"phase": "Succeeded", "startTime": "2026-03-01T02:00:00Z", "sizeBytes": 5}
    spec = {"policyRef": {"name": "nightly"}}
    own = [
        found("Backup", "a", spec, stored),
        found("Backup", "b", spec, {**stored, "removal": {"reason": "Expired"}}),
    ]
    runs, _ = _runs(own)
    assert (runs.succeeded, runs.size_bytes) == (1, 5)


# --- the whole operator -------------------------------------------------------------------------------------
SLOTS = [datetime(2026, 3, 1, 2, tzinfo=UTC), datetime(2026, 3, 1, 2, 10, tzinfo=UTC)]
OLD, NEW = "nightly-20260301020000", "nightly-20260301021000"


def _begin() -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, retention={"keepLast": 1}))
    return world


def _there(world: World, name: str) -> bool:
    return ("Backup", NAMESPACE, name) in world.gateway.objects


def _phase(world: World, name: str) -> str:
    return str(world.status("Backup", name).get("phase")) if _there(world, name) else ""


def _play(world: World, rounds: int = 17) -> None:
    """Two runs and one by hand; that one is held, a cleanup comes, then it is released and erased."""
    done: set[str] = set()

    def once(step: str, ready: bool) -> bool:
        if step in done or not ready:
            return False
        done.add(step)
        return True

    def each_round() -> None:
        crons = [key for key in world.gateway.objects if key[0] == "CronJob"]
        if once("fire", len(crons) == 3):
            for slot in SLOTS:
                world.fire("nightly", slot)
            world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
        if once("hold", all(_phase(world, each) == "Succeeded" for each in (OLD, NEW, "by-hand"))):
            world.change("Backup", "by-hand", hold=True)
        if once("clean", _there(world, "by-hand") and bool(world.status("Backup", "by-hand").get("held"))):
            world.fire("nightly", SLOTS[1] + timedelta(hours=3), "cleanup")
        if once("erase", "clean" in done and not _there(world, OLD)):
            world.change("Backup", "by-hand", hold=False, deleteRequested=True)

    world.run(rounds, each_round)


def _came_to(world: World) -> Object:
    objects = world.gateway.objects
    backups = {key[2]: each["status"] for key, each in objects.items() if key[0] == "Backup"}
    verbs = ("backup", "cleanup", "hold", "delete")
    return {
        "kept": {name: each.get("keptBy") for name, each in backups.items()},
        "available": {name: world.condition("Backup", name, "Available")["reason"] for name in backups},
        "applied": {name: world.condition("Backup", name, "ChangeApplied").get("reason") for name in backups},
        "held": {name: each.get("held") for name, each in backups.items()},
        "retention": world.condition("BackupPolicy", "nightly", "RetentionApplied"),
        "count": world.status("BackupPolicy", "nightly")["backupCount"],
        "bucket": sorted(each.backup_id for each in world.bucket.values()),
        "jobs": sorted(
            each["metadata"]["name"]
            for each in world.gateway.created
            if each["kind"] == "Job" and each["metadata"]["labels"]["avalanche.io/verb"] in verbs
        ),
    }  # fmt: skip


def _without_times(came_to: Object) -> Object:
    return {**came_to, "retention": {**came_to["retention"], "lastTransitionTime": ""}}


EXPECTED, WRITES = undisturbed(_begin, _play, lambda world: _without_times(_came_to(world)))


def test_undisturbed_what_is_held_stays_what_is_too_old_goes_and_what_is_erased_says_so() -> None:
    assert EXPECTED["kept"] == {NEW: ["last-1"], "by-hand": None}
    assert EXPECTED["available"] == {NEW: "Stored", "by-hand": "Erased"}
    assert EXPECTED["bucket"] == ["database_20260301_021000"] and EXPECTED["count"] == 1
    assert EXPECTED["retention"]["reason"] == "CleanedUp" and EXPECTED["retention"]["status"] == "True"
    assert len(EXPECTED["jobs"]) == 4, "one by hand, two holds, one erasure; CronJobs start the rest"


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_ends_as_undisturbed(number: int) -> None:
    world = _begin()
    writes = Writes(world, number)
    _play(world, rounds=20)
    assert writes.count >= number
    assert _without_times(_came_to(world)) == EXPECTED


def _with_runs() -> World:
    world = _begin()
    world.run(6)
    for slot in SLOTS:
        world.fire("nightly", slot)
    world.run(4)
    return world


def test_a_backup_that_retention_removed_does_not_come_back_from_its_job() -> None:
    world = _with_runs()
    world.fire("nightly", NOW, "cleanup")
    world.run(12)
    assert not _there(world, OLD) and _phase(world, NEW) == "Succeeded"
    jobs = [key[2] for key in world.gateway.objects if key[0] == "Job"]
    assert any(
        world.gateway.objects["Job", NAMESPACE, each]["metadata"]["name"].endswith(
            str(int(SLOTS[0].timestamp()) // 60)
        )
        for each in jobs
    )


def test_failed_runs_that_are_too_many_go_and_do_not_come_back_from_their_jobs() -> None:
    world = _begin()
    world.change("BackupPolicy", "nightly", failedBackupsHistoryLimit=1)
    world.run(6)
    for slot in SLOTS:
        world.fire("nightly", slot)
    world.run(4)
    for name in (OLD, NEW):
        world.gateway.objects["Backup", NAMESPACE, name]["status"]["phase"] = "Failed"
    world.run(4)
    assert not _there(world, OLD) and _there(world, NEW)
    assert world.status("BackupPolicy", "nightly")["consecutiveFailures"] == 2


def test_a_users_backup_that_retention_removed_stays_and_says_so() -> None:
    world = _begin()
    world.run(6)
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(4)
    world.fire("nightly", SLOTS[1])
    world.run(3)
    world.fire("nightly", NOW, "cleanup")
    world.run(6)
    assert world.condition("Backup", "by-hand", "Available")["reason"] == "Expired"
    assert world.condition("Backup", "by-hand")["status"] == "True", (
        "the run was good, whatever became of its data"
    )


def test_a_cleanup_that_was_refused_removes_no_object_and_is_a_condition() -> None:
    world = _with_runs()
    world.refuse_cleanup = True
    world.fire("nightly", NOW, "cleanup")
    world.run(4)
    assert _there(world, OLD) and len(world.bucket) == 2
    assert world.condition("BackupPolicy", "nightly", "RetentionApplied")["reason"] == "TooManyRemovals"


def test_what_the_first_pod_of_a_cleanup_removed_before_it_failed_is_known() -> None:
    world = _with_runs()
    world.fire("nightly", NOW, "cleanup")
    world.play()
    name = next(
        key[2]
        for key in world.gateway.objects
        if key[0] == "Pod" and "cleanup" in str(world.gateway.objects[key])
    )
    second = world.gateway.objects["Pod", NAMESPACE, name]
    first = {
        **second,
        "metadata": {**second["metadata"], "name": "first", "creationTimestamp": "2026-01-01T00:00:00Z"},
    }
    first["status"] = {"phase": "Failed", "containerStatuses": []}
    world.gateway.objects["Pod", NAMESPACE, "first"] = first
    lines = world.gateway.pod_logs[name].splitlines(keepends=True)
    removed = [line for line in lines if '"removed":true' in line]
    world.gateway.pod_logs["first"] = "".join(removed)
    kept = [line for line in lines if "database_20260301_021000" in line]
    world.gateway.pod_logs[name] = "".join([*kept, lines[-1].replace('"count":3', '"count":1')])
    world.run(3)
    assert len(removed) == 1 and not _there(world, OLD) and _there(world, NEW)


def test_a_lost_result_of_an_erasure_is_no_second_one() -> None:
    world = _with_runs()
    world.lose_results_of.add("delete")
    world.change("Backup", NEW, deleteRequested=True)
    world.run(3)
    assert world.condition("Backup", NEW, "ChangeApplied")["reason"] == "ResultLost"
    gone = next(
        key
        for key in world.gateway.objects
        if key[0] == "Job"
        and "Backup" in str(world.gateway.objects[key]["metadata"]["labels"]["avalanche.io/owner-kind"])
        and world.gateway.objects[key]["metadata"]["labels"]["avalanche.io/verb"] == "delete"
    )
    del world.gateway.objects[gone]  # as its time to live has it
    world.run(4)
    assert world.condition("Backup", NEW, "Available")["reason"] == "NotFound"


def test_without_retention_there_is_no_cleanup_and_taking_it_away_ends_it() -> None:
    world = _with_runs()
    name = child_name("nightly", "BackupPolicy", "cleanup")
    assert world.gateway.objects["CronJob", NAMESPACE, name]["spec"]["schedule"] == "0 5 * * 0"
    world.change("BackupPolicy", "nightly", retention=None)
    world.run(2)
    assert ("CronJob", NAMESPACE, name) not in world.gateway.objects
    assert world.condition("BackupPolicy", "nightly", "RetentionApplied") == {}


def test_a_schedule_of_retention_that_cannot_be_used_is_said() -> None:
    world = _begin()
    world.change("BackupPolicy", "nightly", retention={"keepLast": 1, "schedule": "0 25 * * *"})
    world.run(2)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "InvalidSchedule"


def test_drift_in_the_cleanups_cron_job_is_set_back() -> None:
    world = _with_runs()
    key = ("CronJob", NAMESPACE, child_name("nightly", "BackupPolicy", "cleanup"))
    world.gateway.objects[key]["spec"]["suspend"] = True
    world.run(1)
    assert world.gateway.objects[key]["spec"]["suspend"] is False


def test_a_second_look_writes_nothing() -> None:
    world = _begin()
    _play(world)
    writes: list[int] = []
    world.gateway.on_write = lambda: writes.append(1)
    for kind, name in (("Backup", NEW), ("Backup", "by-hand"), ("BackupPolicy", "nightly")):
        world.look(kind, name)
    assert writes == []
