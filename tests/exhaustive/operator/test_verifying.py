"""What verifications come to: decided purely, and the whole operator killed at every write."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract.log import Answer
from avalanche_contract.names import child_name
from avalanche_contract.request import Rotation
from avalanche_contract.result import Checked, Listed, Result
from avalanche_contract.result import Copy as CopyTold
from avalanche_contract.wire import parse_request
from avalanche_operator.api.backup import BackupStatus, Copy, Verification
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.api.verification import PolicyVerification, VerificationRun
from avalanche_operator.applying.build import Applied
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.policies.decide import Tally
from avalanche_operator.verifying.build import verification_cron_job, verification_schedule
from avalanche_operator.verifying.decide import (
    after_looking,
    after_verification,
    condition,
    last_verified,
    verdict,
    verified,
)
from tests.fakes.world import NAMESPACE, World, Writes, undisturbed
from tests.unit.operator.objects import DATABASE, MAIL, S3_SPEC, applied, found, policy_spec

Object = dict[str, Any]
NOW = datetime(2026, 3, 8, 6, tzinfo=UTC)
ID = "database_20260301_020000"
CHECKSUM = "sha256:" + "a" * 64


def _copy(storage: str) -> Copy:
    return Copy(storage=storage, location=f"{storage}:/", checksum=CHECKSUM, verified_time=NOW)


STORED = BackupStatus(
    phase="Succeeded",
    backup_id=ID,
    storage="first",
    storages=("first", "second"),
    prefix="edna/nightly/",
    copies=(_copy("first"), _copy("second")),
    verification=Verification(status="Verified", last_verified_time=NOW),
)
LATER = NOW + timedelta(days=1)
GOOD = {"status": "Verified", "location": "x:/", "checksum": CHECKSUM, "verified_time": LATER}
DAMAGED = {"status": "VerificationFailed", "reason": "ArtifactDamaged", "message": "bits"}
AWAY = {"status": "NotVerified", "reason": "StorageUnavailable", "message": "no answer"}
MISSING = {"status": "NotVerified", "reason": "CopyMissing", "message": "none"}


def _told(status: str, **places: Object) -> Checked:
    copies = tuple(CopyTold.model_validate({"storage": name, **each}) for name, each in places.items())
    time = LATER if status == "Verified" else None
    return Checked.model_validate(
        {"backup_id": ID, "status": status, "reason": "R", "message": "m", "verified_time": time, "copies": copies}
    )  # fmt: skip


# --- one Backup -------------------------------------------------------------------------------------------
def test_what_was_read_and_found_whole_says_when() -> None:
    after = after_verification(STORED, _told("Verified", first=GOOD, second=GOOD))
    assert after.verification is not None and after.verification.last_verified_time == LATER
    assert {each.verified_time for each in after.copies} == {LATER}


def test_a_damaged_copy_is_no_copy_any_more_and_the_good_one_is_restored_from() -> None:
    after = after_verification(STORED, _told("Verified", first=DAMAGED, second=GOOD))
    assert [each.storage for each in after.copies] == ["second"] and after.storage == "second"
    assert after.verification is not None and after.verification.status == "Verified"


def test_a_copy_that_was_made_anew_is_a_copy_again() -> None:
    lost = STORED.model_copy(update={"copies": (_copy("second"),), "storage": "second"})
    after = after_verification(lost, _told("Verified", first={**GOOD, "reason": "Healed"}, second=GOOD))
    assert [each.storage for each in after.copies] == ["first", "second"]


def test_of_a_place_that_is_away_nothing_is_new() -> None:
    after = after_verification(STORED, _told("Verified", first=AWAY, second=GOOD))
    assert [(each.storage, each.verified_time) for each in after.copies] == [
        ("first", NOW),
        ("second", LATER),
    ]
    assert after_verification(STORED, _told("NotVerified", first=AWAY, second=AWAY)) == STORED


def test_without_any_good_copy_it_is_said_and_when_it_was_last_whole_stays() -> None:
    after = after_verification(STORED, _told("VerificationFailed", first=DAMAGED, second=MISSING))
    assert after.copies == () and after.verification is not None
    assert (after.verification.status, after.verification.last_verified_time) == ("VerificationFailed", NOW)
    shown = condition(after)
    assert shown is not None and (shown.status, shown.reason) == ("False", "R")
    healed = condition(after_verification(after, _told("Verified", first=GOOD)))
    assert healed is not None and healed.status == "True"


def test_a_backup_that_lies_elsewhere_too_is_not_judged_by_the_places_that_were_looked_at() -> None:
    after = after_verification(STORED, _told("VerificationFailed", first=DAMAGED))
    assert after.verification == STORED.verification
    assert [each.storage for each in after.copies] == ["second"]


def _looked(*ids: str, storages: tuple[str, ...] = ("first", "second"), complete: bool = True) -> Any:
    job = {"metadata": {"name": "a"}, "status": {}}
    answer = Answer(listed=(Listed(storages=storages, backup_ids=ids),), complete=complete)
    return verified(job, Outcome("Ended", "Verified", "m", started=NOW, finished=NOW), answer)


OLD = STORED.model_copy(update={"completion_time": NOW - timedelta(hours=2)})


@pytest.mark.parametrize(("status", "told", "gone"), [
    (OLD, _looked(), True),
    (OLD, _looked(ID), False),
    (OLD, _looked(complete=False), False),
    (OLD, _looked(storages=("first",)), False),
    (OLD.model_copy(update={"prefix": "another/"}), _looked(), False),
    (OLD.model_copy(update={"completion_time": NOW - timedelta(minutes=30)}), _looked(), False),
])  # fmt: skip
def test_what_lies_in_none_of_its_places_any_more_is_said_and_nothing_that_may_lie_elsewhere(
    status: BackupStatus, told: Any, gone: bool
) -> None:
    after = after_looking(status, told, "edna/nightly/", NOW)
    assert (after.removal is not None and after.removal.reason == "NotFound") == gone
    assert after.verification is not None
    assert after.verification.status == ("NotVerified" if gone else "Verified"), (
        "of what is gone nothing is verified"
    )
    assert after_looking(after, _looked(ID), "edna/nightly/", NOW).removal is None, "it is there again"


def test_pods_of_one_verification_that_saw_different_storages_are_believed_for_those_they_both_saw() -> None:
    pages = (Listed(storages=("first", "second"), backup_ids=()), Listed(storages=("first",), backup_ids=()))
    job = {"metadata": {"name": "a"}, "status": {}}
    told = verified(job, Outcome("Ended", "R", finished=NOW), Answer(listed=pages, complete=True))
    assert told.storages == {"first"}


# --- the policy -------------------------------------------------------------------------------------------
RUN = VerificationRun(job="a", time=NOW, succeeded=True, reason="Verified", message="all whole")


@pytest.mark.parametrize(("last", "damaged", "status", "reason"), [
    (None, (), "Unknown", "Waiting"),
    (RUN, (), "True", "Verified"),
    (RUN.model_copy(update={"reason": "Healed"}), (), "True", "Healed"),
    (RUN.model_copy(update={"reason": "CopiesIncomplete"}), (), "False", "CopiesIncomplete"),
    (RUN.model_copy(update={"reason": "BackupsNotRead"}), (), "False", "BackupsNotRead"),
    (RUN.model_copy(update={"succeeded": False, "reason": "StorageUnavailable"}), (), "False", "StorageUnavailable"),
    (RUN, ("nightly-1",), "False", "VerificationFailed"),
])  # fmt: skip
def test_the_policy_says_what_was_found(
    last: VerificationRun | None, damaged: tuple[str, ...], status: str, reason: str
) -> None:
    told = verdict(last, damaged)
    assert (told.status, told.reason) == (status, reason)
    assert all(name in told.message for name in damaged)


def test_of_many_damaged_backups_the_first_are_named_and_the_others_counted() -> None:
    told = verdict(RUN, [f"nightly-{number:02}" for number in range(14)])
    assert "nightly-09 and 4 more" in told.message


def test_when_everything_was_last_whole_does_not_go_back() -> None:
    failed = RUN.model_copy(update={"succeeded": False, "time": LATER})
    assert last_verified(NOW, failed) == NOW and last_verified(None, RUN) == NOW
    assert last_verified(LATER, RUN) == LATER
    unread = RUN.model_copy(update={"reason": "BackupsNotRead", "time": LATER})
    assert last_verified(NOW, unread) == NOW


def test_a_result_that_was_lost_is_no_success_and_what_was_said_before_still_counts() -> None:
    job = {"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "2026-03-08T06:00:00Z"}]}}  # fmt: skip
    answer = Answer(checked=(_told("Verified", first=GOOD), _told("VerificationFailed", first=DAMAGED)))
    lost = verified(job, Outcome("Ended", "ResultLost", "gone"), answer)
    assert not lost.run.succeeded and (lost.run.verified, lost.run.failed) == (0, 1)
    result = Result(nonce="0" * 16, verb="verify", verdict="Succeeded", reason="Verified", message="m")
    assert verified(job, Outcome("Ended", "Verified", "m", result), answer).run.succeeded


def test_a_damaged_backup_counts_as_none_until_it_is_gone() -> None:
    status = {"phase": "Succeeded", "sizeBytes": 5, "verification": {"status": "VerificationFailed"}}
    tally = Tally()
    for name, more in (("a", {}), ("b", {"removal": {"reason": "Erased"}})):
        tally.add(found("Backup", name, {"policyRef": {"name": "nightly"}}, {**status, **more}))
    runs = tally.runs()
    assert (runs.succeeded, runs.size_bytes, runs.damaged) == (0, 0, ("a",))


# --- the CronJob ------------------------------------------------------------------------------------------
def _request(cron: Object) -> Any:
    pod = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return parse_request(pod["containers"][0]["env"][0]["value"].replace("$$", "$"), None)


def _cron(built: Applied, nodes: tuple[str, ...] | None = ()) -> Object:
    return verification_cron_job(built, "0 6 * * *", nodes)


PRUNED = BackupStorageSpec.model_validate({**S3_SPEC, "pruneCredentialsSecretRef": {"name": "pruner"}})


def test_the_request_is_complete_in_itself() -> None:
    asked = {"maxBackups": 3, "maxSize": "20Mi"}
    built = applied(
        timeZone="Europe/Berlin", verification=asked, notifications=[MAIL], others=(("second", PRUNED),)
    )
    cron = _cron(built)
    request = _request(cron)
    assert isinstance(request.backup, Rotation)
    assert (request.backup.max_backups, request.backup.max_bytes) == (3, 20 * 2**20)
    assert (request.backup.place.prefix, request.backup.writer.policy) == ("edna/nightly/", "nightly")
    assert [each.storage.name for each in request.others] == ["second"] and request.heal
    assert request.notifications.channels[0].name == "mail"
    assert (cron["spec"]["timeZone"], cron["spec"]["concurrencyPolicy"]) == ("Europe/Berlin", "Forbid")


def test_by_default_it_is_six_each_morning_and_a_bounded_amount() -> None:
    wanted = PolicyVerification()
    assert (wanted.schedule, wanted.suspend, wanted.max_backups) == ("0 6 * * *", False, 7)
    assert wanted.max_bytes == 100 * 2**30


@pytest.mark.parametrize(("more", "nodes", "suspended"), [
    ({}, (), False),
    ({"suspend": True}, (), True),
    ({"verification": {"suspend": True}}, (), True),
    ({}, None, True),
])  # fmt: skip
def test_it_is_switched_off_by_the_policy_by_itself_or_where_no_pod_could_mount_the_claims(
    more: Object, nodes: tuple[str, ...] | None, suspended: bool
) -> None:
    assert _cron(applied(**more), nodes)["spec"]["suspend"] is suspended


@pytest.mark.parametrize(("schedule", "jitter"), [("0 6 * * *", 3000), ("*/5 * * * *", 0)])
def test_policies_that_are_spread_do_not_verify_all_at_once(schedule: str, jitter: int) -> None:
    built = applied(verification={"schedule": schedule}, jitterSeconds=3000)
    minute, rest = verification_schedule(built).split(" ", 1)
    assert rest == schedule.split(" ", 1)[1]
    assert (0 < int(minute) <= jitter // 60) if jitter else minute == "*/5"


def test_what_is_switched_off_does_not_wait() -> None:
    assert verdict(None, (), suspended=True).reason == "Suspended"
    assert verdict(RUN, (), suspended=True).reason == "Verified"


def test_the_key_that_may_delete_replaces_verdicts_and_copies_and_alone_nothing_is_healed() -> None:
    alone = applied(storage=PRUNED.model_dump(by_alias=True))
    both = replace(alone, others=(("second", BackupStorageSpec.model_validate(S3_SPEC)),))
    assert "pruner" in str(_cron(alone)) and "'secretName': 'bucket'" not in str(_cron(alone))
    assert (_request(_cron(alone)).heal, _request(_cron(both)).heal) == (False, True)


def test_neither_sources_nor_what_opens_backups_are_mounted() -> None:
    sealed = {"recipients": ["age1" + "q" * 58], "identitySecretRef": {"name": "opener"}}
    text = str(_cron(applied(DATABASE, encryption=sealed)))
    assert "opener" not in text and "'secretName': 'database'" not in text and "bucket" in text


# --- the whole operator -------------------------------------------------------------------------------------
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)
NAME = "nightly-20260301020000"


def _begin(*storages: str) -> World:
    world = World()
    names = storages or ("s3",)
    for name in names:
        world.person("BackupStorage", name, S3_SPEC)
    places = [{"storageRef": {"name": name}} for name in names]
    spec = policy_spec(DATABASE, retention={"keepLast": 5}, notifications=[MAIL], destinations=places)
    world.person("BackupPolicy", "nightly", spec)
    return world


def _made(world: World) -> bool:
    return bool(world.gateway.objects.get(("Backup", NAMESPACE, NAME), {}).get("status", {}).get("copies"))


def _play(world: World, rounds: int = 16) -> None:
    """A run; its bytes rot; a verification finds that, twice; then it is made good by hand, and a third one says so."""
    done: set[str] = set()

    def once(step: str, ready: bool) -> bool:
        if step in done or not ready:
            return False
        done.add(step)
        return True

    def recorded(number: int) -> bool:
        last = world.status("BackupPolicy", "nightly").get("lastVerification", {})
        return bool(last.get("job", "").endswith(str(int(SLOT.timestamp()) // 60 + 240 + number)))

    def each_round() -> None:
        crons = [key for key in world.gateway.objects if key[0] == "CronJob"]
        if once("fire", len(crons) == 3):
            world.fire("nightly", SLOT)
        if once("first", _made(world)):
            world.rotten[ID] = {"s3"}
            world.fire("nightly", SLOT + timedelta(hours=4), "verify")
        if once("second", recorded(0)):
            world.fire("nightly", SLOT + timedelta(hours=4, minutes=1), "verify")
        if once("third", recorded(1)):
            world.rotten.clear()
            world.fire("nightly", SLOT + timedelta(hours=4, minutes=2), "verify")

    world.run(rounds, each_round)


def _came_to(world: World) -> Object:
    status = world.status("Backup", NAME)
    policy = world.status("BackupPolicy", "nightly")
    return {
        "phase": status["phase"],
        "verified": status["verification"]["status"],
        "copies": [each["storage"] for each in status["copies"]],
        "shown": world.condition("Backup", NAME, "Verified")["status"],
        "policy": world.condition("BackupPolicy", "nightly", "BackupsVerified")["reason"],
        "last": (policy["lastVerification"]["job"], policy["lastVerification"]["verified"]),
        "count": policy["backupCount"],
        "told": world.told,
    }


EXPECTED, WRITES = undisturbed(_begin, _play, _came_to)


def test_undisturbed_damage_is_told_once_and_what_is_good_again_says_so() -> None:
    assert (EXPECTED["verified"], EXPECTED["shown"], EXPECTED["copies"]) == ("Verified", "True", ["s3"])
    assert (EXPECTED["phase"], EXPECTED["policy"], EXPECTED["count"]) == ("Succeeded", "Succeeded", 1)
    assert EXPECTED["told"] == [("VerificationFailed", "mail", "ArtifactDamaged")]


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_ends_as_undisturbed(number: int) -> None:
    world = _begin()
    writes = Writes(world, number)
    _play(world, rounds=20)
    assert writes.count >= number
    assert _came_to(world) == EXPECTED


def _verified_at(world: World, hours: int) -> None:
    world.fire("nightly", SLOT + timedelta(hours=hours), "verify")
    world.run(4)


def _with_run(*storages: str) -> World:
    world = _begin(*storages)
    world.run(6)
    world.fire("nightly", SLOT)
    world.run(4)
    return world


def test_a_damaged_backup_is_named_by_its_policy_and_is_no_backup_until_it_is_good_again() -> None:
    world = _with_run()
    world.rotten[ID] = {"s3"}
    _verified_at(world, 4)
    told = world.condition("BackupPolicy", "nightly", "BackupsVerified")
    assert (told["status"], told["reason"]) == ("False", "VerificationFailed") and NAME in told["message"]
    assert world.status("Backup", NAME)["verification"]["status"] == "VerificationFailed"
    assert world.status("BackupPolicy", "nightly")["backupCount"] == 0
    assert world.condition("Backup", NAME)["status"] == "True", (
        "the run was good, whatever became of its data"
    )


def test_damage_in_one_place_is_healed_and_nobody_is_told() -> None:
    world = _with_run("s3", "second")
    world.rotten[ID] = {"second"}
    _verified_at(world, 4)
    assert [each["storage"] for each in world.status("Backup", NAME)["copies"]] == ["s3", "second"]
    assert world.condition("BackupPolicy", "nightly", "BackupsVerified")["status"] == "True"
    assert world.told == []


def test_a_job_of_another_cron_job_is_not_believed() -> None:
    world = _with_run()
    _verified_at(world, 4)
    before = world.status("BackupPolicy", "nightly")["lastVerification"]
    name = child_name("nightly", "BackupPolicy", "verify")
    job = next(each for key, each in world.gateway.objects.items() if key[0] == "Job" and key[2].startswith(name))  # fmt: skip
    owner = {**job["metadata"]["ownerReferences"][0], "uid": "another"}
    forged = {**job, "metadata": {**job["metadata"], "name": "forged", "ownerReferences": [owner]}}
    forged["status"] = {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2027-01-01T00:00:00Z"}]}  # fmt: skip
    world.gateway.put(forged)
    world.run(3)
    assert world.status("BackupPolicy", "nightly")["lastVerification"] == before


def test_a_verification_whose_result_was_lost_is_no_success() -> None:
    world = _with_run()
    world.lose_results_of.add("verify")
    _verified_at(world, 4)
    told = world.condition("BackupPolicy", "nightly", "BackupsVerified")
    assert (told["status"], told["reason"]) == ("False", "ResultLost")


def test_a_schedule_of_verification_that_cannot_be_used_is_said() -> None:
    world = _begin()
    world.change("BackupPolicy", "nightly", verification={"schedule": "0 25 * * *"})
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
