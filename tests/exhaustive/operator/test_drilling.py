"""What drills come to: decided purely, and the whole operator killed at every write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract.log import Answer
from avalanche_contract.names import child_name
from avalanche_contract.request import DrillRequest, Newest
from avalanche_contract.result import Drilled, Result
from avalanche_contract.wire import parse_request
from avalanche_operator.api.backup import BackupStatus, Removal
from avalanche_operator.api.drill import DrillRun, DrillsStatus, PolicyDrill
from avalanche_operator.api.notification import PolicyNotification
from avalanche_operator.api.scratch import Scratch
from avalanche_operator.applying.build import Applied
from avalanche_operator.drilling.build import drill_cron_job, drill_schedule, scratch_bytes
from avalanche_operator.drilling.decide import after, after_drill, condition, drilled, verdict
from avalanche_operator.jobs.build import PlanImpossible
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.objectives.decide import measured
from tests.fakes.world import NAMESPACE, World, Writes, undisturbed
from tests.unit.operator.objects import DATABASE, MAIL, S3_SPEC, applied, policy_spec

Object = dict[str, Any]
NOW = datetime(2026, 3, 8, 7, tzinfo=UTC)
ID = "database_20260301_020000"
CHANNELS = (PolicyNotification.model_validate(MAIL),)
JOB: Object = {"metadata": {"name": "a"}, "status": {}}
TOLD = Drilled(
    backup_id=ID, storage="s3", time=NOW, succeeded=True, reason="Drilled", duration_seconds=21.4, restore_seconds=19.2
)  # fmt: skip


# --- one drill --------------------------------------------------------------------------------------------
def _ended(verdict: str | None, reason: str = "Drilled", told: Drilled | None = TOLD) -> DrillRun:
    result = Result.model_validate(
        {"nonce": "0" * 16, "verb": "drill", "verdict": verdict, "reason": reason, "message": "m"}
    ) if verdict else None  # fmt: skip
    return drilled(JOB, Outcome("Ended", reason, "m", result, finished=NOW), Answer(drilled=told))


def test_a_good_drill_says_which_backup_from_where_and_how_long() -> None:
    run = _ended("Succeeded")
    assert (run.result, run.backup_id, run.storage, run.time) == ("Succeeded", ID, "s3", NOW)
    assert (run.duration_seconds, run.restore_seconds) == (22, 20), "never told shorter than it was"


@pytest.mark.parametrize(("verdict", "reason", "result"), [
    ("Failed", "AssertionFailed", "Failed"),
    ("Failed", "NoGoodBackup", "Failed"),
    ("Failed", "Terminated", "Lost"),
    (None, "Evicted", "Lost"),
    (None, "", "Lost"),
])  # fmt: skip
def test_what_failed_and_what_was_lost_is_no_success(verdict: str | None, reason: str, result: str) -> None:
    run = _ended(verdict, reason)
    assert (run.result, run.reason) == (result, reason or "ResultLost")


@pytest.mark.parametrize(
    "strange",
    [
        {"backup_id": "x" * 65},
        {"storage": "../s3"},
        {"restore_seconds": float("inf")},
        {"duration_seconds": float("nan")},
        {"restore_seconds": -1},
    ],
    ids=str,
)
def test_what_makes_no_sense_in_a_log_is_left_out_and_stops_nothing(strange: Object) -> None:
    run = _ended("Succeeded", told=TOLD.model_copy(update=strange))
    assert (run.result, run.backup_id, run.restore_seconds) == ("Succeeded", None, None)


def test_a_remedy_names_the_field_of_drills() -> None:
    killed = "killed for lack of memory: raise podTemplate.resources.limits.memory"
    run = drilled(JOB, Outcome("Ended", "OutOfMemory", killed, finished=NOW), Answer())
    assert run.message.endswith("raise verification.drill.resources.limits.memory")


STORED = BackupStatus(phase="Succeeded", backup_id=ID, storage="s3", prefix="edna/nightly/")


@pytest.mark.parametrize(("status", "run", "shown"), [
    (STORED, _ended("Succeeded"), "True"),
    (STORED, _ended("Failed", "AssertionFailed"), "False"),
    (STORED, _ended(None, "Evicted"), None),
    (STORED, _ended("Failed", "NoGoodBackup", None), None),
    (STORED.model_copy(update={"prefix": "another/"}), _ended("Succeeded"), None),
    (STORED.model_copy(update={"backup_id": "database_20260302_020000"}), _ended("Succeeded"), None),
])  # fmt: skip
def test_only_the_backup_that_was_drilled_shows_it(
    status: BackupStatus, run: DrillRun, shown: str | None
) -> None:
    told = condition(after_drill(status, run, "edna/nightly/"))
    assert (told.status if told else None) == shown


def test_of_a_backup_whose_data_is_gone_no_drill_is_shown() -> None:
    gone = STORED.model_copy(update={"removal": Removal(reason="Expired"), "drill": _ended("Succeeded")})
    assert condition(gone) is None


# --- the policy -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("last", "suspended", "status", "reason"), [
    (None, False, "Unknown", "Waiting"),
    (None, True, "Unknown", "Suspended"),
    (_ended("Succeeded"), True, "True", "Drilled"),
    (_ended("Failed", "AssertionFailed"), False, "False", "AssertionFailed"),
    (_ended(None, "Evicted"), False, "False", "Evicted"),
])  # fmt: skip
def test_the_policy_says_what_the_last_drill_came_to(
    last: DrillRun | None, suspended: bool, status: str, reason: str
) -> None:
    told = verdict(last, suspended=suspended)
    assert (told.type, told.status, told.reason) == ("Drilled", status, reason)


def _run(result: str, hours: float = 0, reason: str = "AssertionFailed") -> DrillRun:
    good = result == "Succeeded"
    return DrillRun.model_validate(
        {
            "job": "a", "time": NOW + timedelta(hours=hours), "result": result, "reason": "Drilled" if good else reason,
            "restore_seconds": 20 if good else 1,
        }
    )  # fmt: skip


def _events(*runs: DrillRun, channels: tuple[PolicyNotification, ...] = CHANNELS) -> list[str]:
    """Give what is owed after each of some drills, where everybody is told at once."""
    status, owed = DrillsStatus(), list[str]()
    for each in runs:
        told = after(status.model_copy(update={"notification": None}), each, channels)
        owed += [told.notification.event] if told.notification else []
        status = told
    return owed


def test_a_failure_is_told_once_and_so_is_its_end() -> None:
    failed, lost = _run("Failed"), _run("Lost", 1, "Evicted")
    assert _events(failed, _run("Failed", 6), _run("Succeeded", 7), _run("Succeeded", 8)) == ["DrillFailed", "Recovered"]  # fmt: skip
    assert _events(failed, lost) == ["DrillFailed", "DrillFailed"], "another reason is other news"
    assert _events(failed, _run("Failed", 24)) == ["DrillFailed", "DrillFailed"], (
        "half a day is quiet, no more"
    )
    assert _events(_run("Succeeded")) == []
    assert _events(failed, _run("Succeeded", 1), channels=()) == []


def test_each_occasion_has_a_message_of_its_own() -> None:
    told = after(DrillsStatus(), _run("Failed", 3), CHANNELS)
    assert told.notification is not None
    assert (told.notification.state, told.notification.slot) == ("Pending", NOW + timedelta(hours=3))


def test_a_failed_drill_takes_nothing_from_what_the_last_good_one_measured() -> None:
    good = after(DrillsStatus(), _run("Succeeded"), ())
    later = after(good, _run("Failed", 1), ())
    assert (later.restore_seconds, later.last_successful_time) == (20, NOW)


def test_a_drill_measures_how_long_a_recovery_takes_until_a_restore_is_newer() -> None:
    drills = after(DrillsStatus(), _run("Succeeded"), ())
    alone = measured((), "nightly", drills)
    assert alone is not None and (alone.seconds, alone.when) == (20, NOW) and "drill" in alone.by
    backup = {
        "name": "b",
        "backupID": ID,
        "type": "database",
        "storage": "s3",
        "prefix": "edna/nightly/",
        "policy": "nightly",
    }
    status = {"phase": "Succeeded", "backup": backup, "durationSeconds": 7}
    for hours, seconds in ((1, 7), (-1, 20)):
        ended = (NOW + timedelta(hours=hours)).isoformat()
        restore = {
            "metadata": {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"backupRef": {"name": "b"}},
            "status": {**status, "completionTime": ended},
        }
        found = measured([restore], "nightly", drills)
        assert found is not None and found.seconds == seconds
    assert measured((), "nightly", DrillsStatus()) is None


# --- the CronJob ------------------------------------------------------------------------------------------
QUERY = {"sql": "SELECT count(*) FROM samples", "expect": "> 0"}


def _cron(built: Applied, nodes: tuple[str, ...] | None = ()) -> Object:
    drill = built.spec.verification.drill
    assert drill is not None
    return drill_cron_job(built, drill, drill_schedule(built, drill), nodes)


def _pod(cron: Object) -> Object:
    found: Object = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def _request(cron: Object) -> DrillRequest:
    request = parse_request(_pod(cron)["containers"][0]["env"][0]["value"].replace("$$", "$"), None)
    assert isinstance(request, DrillRequest)
    return request


def _drilling(*sources: Object, drill: Object, **more: Any) -> Applied:
    return applied(*sources, verification={"drill": drill}, **more)


def test_the_request_is_complete_in_itself() -> None:
    cron = _cron(_drilling(drill={"queries": [QUERY], "querySeconds": 5, "scratch": {"sizeLimit": "2Gi"}}))
    request = _request(cron)
    assert isinstance(request.backup, Newest)
    assert [each.prefix for each in request.backup.places] == ["edna/nightly/"]
    assert (request.backup.backup_types, request.backup.writer.policy) == (("database",), "nightly")
    assert [(each.sql, each.expect) for each in request.queries] == [(QUERY["sql"], QUERY["expect"])]
    assert (request.query_seconds, request.superuser, request.scratch_bytes) == (5, False, 2 * 2**30)
    assert cron["spec"]["schedule"] == "0 7 * * *"


def test_the_pod_knows_no_source_tells_nobody_and_has_a_bounded_folder_and_the_image_with_a_server() -> None:
    cron = _cron(_drilling(DATABASE, drill={}, notifications=[MAIL]))
    pod = _pod(cron)
    (container,) = pod["containers"]
    assert container["image"] == "localhost/drill:1"
    assert container["resources"]["limits"] == {"memory": "1Gi"}
    assert {"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}} in pod["volumes"]
    sources = [each["secret"]["name"] for volume in pod["volumes"] for each in volume.get("projected", {}).get("sources", ())]  # fmt: skip
    assert sources == ["bucket"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert cron["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert cron["spec"]["jobTemplate"]["metadata"]["labels"]["avalanche.io/verb"] == "drill"


def test_what_opens_encrypted_backups_is_mounted() -> None:
    sealed = {"recipients": ["age1" + "q" * 58], "identitySecretRef": {"name": "opener"}}
    cron = _cron(_drilling(drill={}, encryption=sealed))
    assert "opener" in str(_pod(cron)["volumes"])
    newest = _request(cron).backup
    assert newest.identity is not None and "opener" in newest.identity.described


@pytest.mark.parametrize(("more", "nodes", "suspended"), [
    ({"drill": {}}, (), False),
    ({"drill": {}, "suspend": True}, (), True),
    ({"drill": {"suspend": True}}, (), True),
    ({"drill": {}}, None, True),
])  # fmt: skip
def test_it_is_switched_off_by_the_policy_by_itself_or_where_no_pod_could_mount_the_claims(
    more: Object, nodes: tuple[str, ...] | None, suspended: bool
) -> None:
    assert _cron(_drilling(**more), nodes)["spec"]["suspend"] is suspended


def test_policies_that_are_spread_do_not_drill_all_at_once() -> None:
    drill = {"schedule": "0 7 * * *"}
    minute, rest = str(_cron(_drilling(drill=drill, jitterSeconds=3000))["spec"]["schedule"]).split(" ", 1)
    assert rest == "7 * * *" and 0 < int(minute) <= 50


def test_an_expectation_that_slipped_past_the_api_server_is_named() -> None:
    with pytest.raises(PlanImpossible, match="queries"):
        _cron(_drilling(drill={"queries": [{"sql": "SELECT 1", "expect": "\u00a0> many"}]}))


@pytest.mark.parametrize(("scratch", "size"), [
    (PolicyDrill().scratch, 10 * 2**30),
    (Scratch(size_limit="500M"), 500_000_000),
    (Scratch.model_validate({"ephemeral": {"size": "1Ti"}}), None),
])  # fmt: skip
def test_a_volume_of_its_own_says_itself_how_large_it_is(scratch: Scratch, size: int | None) -> None:
    assert scratch_bytes(scratch) == size


# --- the whole operator -------------------------------------------------------------------------------------
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)
NAME = "nightly-20260301020000"


def _begin(**more: Any) -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    spec = policy_spec(DATABASE, verification={"drill": {}}, notifications=[MAIL], **more)
    world.person("BackupPolicy", "nightly", spec)
    return world


def _play(world: World, rounds: int = 20) -> None:
    """A run; a drill fails, twice; one is lost; then one is good."""
    done: set[str] = set()

    def once(step: str, ready: bool) -> bool:
        if step in done or not ready:
            return False
        done.add(step)
        return True

    def recorded(number: int) -> bool:
        last = world.status("BackupPolicy", "nightly").get("lastDrill", {})
        return bool(last.get("job", "").endswith(str(int(SLOT.timestamp()) // 60 + 300 + number)))

    def drill(number: int) -> None:
        world.fire("nightly", SLOT + timedelta(hours=5, minutes=number), "drill")

    def each_round() -> None:
        crons = [key for key in world.gateway.objects if key[0] == "CronJob"]
        if once("fire", len(crons) == 3):
            world.fire("nightly", SLOT)
        if once("first", bool(world.gateway.objects.get(("Backup", NAMESPACE, NAME), {}).get("status", {}).get("copies"))):  # fmt: skip
            world.drill_fails = "AssertionFailed"
            drill(0)
        if once("second", recorded(0)):
            drill(1)
        if once("third", recorded(1)):
            world.lose_results_of.add("drill")
            drill(2)
        if once("fourth", recorded(2)):
            world.drill_fails = None
            drill(3)

    world.run(rounds, each_round)


def _came_to(world: World) -> Object:
    policy, backup = world.status("BackupPolicy", "nightly"), world.status("Backup", NAME)
    return {
        "last": (policy["lastDrill"]["job"], policy["lastDrill"]["result"], policy["lastDrill"]["backupID"]),
        "measured": policy["drills"]["restoreSeconds"],
        "notification": policy["drills"]["notification"]["state"],
        "condition": world.condition("BackupPolicy", "nightly", "Drilled")["status"],
        "backup": (backup["drill"]["result"], backup["drill"]["restoreSeconds"]),
        "shown": world.condition("Backup", NAME, "Drilled")["status"],
        "told": world.told,
    }


EXPECTED, WRITES = undisturbed(_begin, _play, _came_to)


def test_undisturbed_each_failure_is_told_once_and_its_end_as_well() -> None:
    assert EXPECTED["last"][1:] == ("Succeeded", ID) and EXPECTED["backup"] == ("Succeeded", 3)
    assert (EXPECTED["measured"], EXPECTED["condition"], EXPECTED["shown"]) == (3, "True", "True")
    assert EXPECTED["told"] == [
        ("DrillFailed", "mail", "AssertionFailed"),
        ("DrillFailed", "mail", "ResultLost"),
        ("Recovered", "mail", "Drilled"),
    ]


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_ends_as_undisturbed(number: int) -> None:
    world = _begin()
    writes = Writes(world, number)
    _play(world, rounds=26)
    assert writes.count >= number
    assert _came_to(world) == EXPECTED


def _drilled_at(world: World, hours: int) -> None:
    world.fire("nightly", SLOT + timedelta(hours=hours), "drill")
    world.run(5)


def _with_run(**more: Any) -> World:
    world = _begin(**more)
    world.run(6)
    world.fire("nightly", SLOT)
    world.run(4)
    return world


def test_a_drill_before_the_first_backup_fails_and_says_why() -> None:
    world = _begin()
    world.run(6)
    _drilled_at(world, 5)
    told = world.condition("BackupPolicy", "nightly", "Drilled")
    assert (told["status"], told["reason"]) == ("False", "NoGoodBackup")


def test_a_failed_drill_is_an_event_and_no_word_of_it_is_said_of_ready() -> None:
    world = _with_run()
    world.drill_fails = "TablesDiffer"
    _drilled_at(world, 5)
    events = [each for key, each in world.gateway.objects.items() if key[0] == "Event"]
    assert "TablesDiffer" in [each["reason"] for each in events]
    assert world.condition("BackupPolicy", "nightly")["status"] == "True"


def test_a_drill_shows_how_long_a_recovery_takes() -> None:
    world = _with_run(objectives={"recoveryTimeSeconds": 2})
    _drilled_at(world, 5)
    told = world.condition("BackupPolicy", "nightly", "ObjectivesMet")
    assert (told["status"], told["reason"]) == ("False", "RecoveryTimeMissed") and "the drill of" in told[
        "message"
    ]


def test_a_policy_that_drills_no_longer_has_no_cron_job_and_says_nothing_of_it() -> None:
    world = _with_run()
    _drilled_at(world, 5)
    world.change("BackupPolicy", "nightly", verification={})
    world.run(3)
    name = child_name("nightly", "BackupPolicy", "drill")
    assert ("CronJob", NAMESPACE, name) not in world.gateway.objects
    assert world.condition("BackupPolicy", "nightly", "Drilled") == {}
    assert world.condition("Backup", NAME, "Drilled")["status"] == "True", (
        "what was proven of it stays proven"
    )


def test_a_schedule_of_drills_that_cannot_be_used_is_said() -> None:
    world = _begin()
    world.change("BackupPolicy", "nightly", verification={"drill": {"schedule": "0 25 * * *"}})
    world.run(2)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "InvalidSchedule"


def test_a_second_look_writes_nothing() -> None:
    world = _begin()
    _play(world)
    writes: list[int] = []
    world.gateway.on_write = lambda: writes.append(1)
    for kind, name in (("Backup", NAME), ("BackupPolicy", "nightly")):
        world.look(kind, name)
    assert writes == []
