"""The whole operator against a cluster in memory: killed at every write, it ends where it would have ended."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from avalanche_operator.app import LOOKS
from avalanche_operator.keeping.forget import forget
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.kube.queue import Key
from tests.fakes.twin import two_operators
from tests.fakes.world import NAMESPACE, World, Writes, finished, undisturbed
from tests.unit.operator.objects import DATABASE, S3_SPEC, policy_spec

Object = dict[str, Any]
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)


def _begin() -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    return world


def _play(world: World, rounds: int = 14) -> None:
    """A slot comes, somebody asks for a backup, and restores it once its plan can be read."""
    fired = asked = False

    def each_round() -> None:
        nonlocal fired, asked
        cron_job = [key for key in world.gateway.objects if key[0] == "CronJob"]
        if cron_job and not fired:
            world.fire("nightly", SLOT)
            world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
            fired = True
        backup = world.gateway.objects.get(("Backup", NAMESPACE, "by-hand"))
        if not asked and backup and (backup.get("status") or {}).get("phase") == "Succeeded":
            world.person("RestoreRequest", "back", {"backupRef": {"name": "by-hand"}})
            asked = True
        _approve(world)

    world.run(rounds, each_round)


def _approve(world: World) -> None:
    request = world.gateway.objects.get(("RestoreRequest", NAMESPACE, "back"))
    if request and (request.get("status") or {}).get("phase") == "AwaitingApproval":
        digest = request["status"]["plan"]["digest"]
        if request["spec"].get("approvedPlan") != digest:
            request["spec"] = {**request["spec"], "approvedPlan": digest}
            request["metadata"]["generation"] += 1


def _came_to(world: World) -> Object:
    """Say what a person, a bucket and a database would show."""
    objects = world.gateway.objects
    return {
        "phases": {key[1:]: (each.get("status") or {}).get("phase") for key, each in objects.items() if key[0] in ("Backup", "RestoreRequest")},
        "ready": {key[0]: world.condition(key[0], key[2])["status"] for key in objects if key[0] in ("BackupStorage", "BackupPolicy")},
        "identities": sorted(each["status"].get("runIdentity", "") for key, each in objects.items() if key[0] == "Backup"),
        "jobs": sorted(
            each["metadata"]["name"]
            for each in world.gateway.created
            if each["kind"] == "Job" and each["metadata"]["labels"]["avalanche.io/verb"] not in ("probe", "catalog")
        ),
        "events": sorted(
            (each["involvedObject"]["kind"], each["reason"])
            for key, each in objects.items()
            if key[0] == "Event" and each["involvedObject"]["kind"] in ("BackupStorage", "BackupPolicy") and each["reason"] == "Usable"
        ),
        "bucket": sorted(world.bucket),
        "restored": world.restored,
    }  # fmt: skip


EXPECTED, WRITES = undisturbed(_begin, _play, _came_to)


def test_undisturbed_everything_succeeds() -> None:
    assert set(EXPECTED["phases"].values()) == {"Succeeded"} and len(EXPECTED["phases"]) == 3
    assert set(EXPECTED["ready"].values()) == {"True"} and len(EXPECTED["bucket"]) == 2
    assert len(EXPECTED["restored"]) == 1 and WRITES > 20


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_ends_as_undisturbed(number: int) -> None:
    """What lies between two writes only reads: killed before each of them is killed everywhere."""
    world = _begin()
    writes = Writes(world, number)
    _play(world, rounds=16)
    assert writes.count >= number
    assert _came_to(world) == EXPECTED


def _calls() -> int:
    """Count the writes that an operator asks for: also those that change nothing."""
    world = _begin()
    alone = two_operators(world, 0)
    _play(world)
    return alone.count


@pytest.mark.parametrize("number", range(1, _calls() + 1))
def test_a_second_operator_before_any_write_of_the_first_does_nothing_twice(number: int) -> None:
    """Percona#1731: two operators made two Jobs."""
    world = _begin()
    overtaken = two_operators(world, number)
    _play(world, rounds=16)
    assert _came_to(world) == EXPECTED
    assert overtaken.overtaken


def test_a_policy_that_is_deleted_and_made_anew_at_once_adopts_no_backup_and_deletes_none() -> None:
    world = _begin()
    world.run(5)
    world.fire("nightly", SLOT)
    world.run(5)
    gateway = world.gateway
    old = gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    backup = ("Backup", NAMESPACE, "nightly-20260301020000")
    before = gateway.objects[backup]
    world.person(
        "BackupPolicy", "nightly", policy_spec(DATABASE)
    )  # what the old one owned is not collected yet
    new = gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    world.run(3)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "NameTaken"
    for each in [each for each in gateway.objects.values() if _is_owned_by(each, old)]:
        finished(gateway.delete(each))  # the garbage collector of Kubernetes
    world.run(5)
    world.fire("nightly", SLOT + timedelta(days=1))
    world.run(5)
    after = gateway.objects[backup]
    assert after["spec"] == before["spec"] and after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["phase"] == "Succeeded" and len(world.bucket) == 2
    made = gateway.objects["Backup", NAMESPACE, "nightly-20260302020000"]
    identities = [each["status"]["runIdentity"].split("/")[1] for each in (after, made)]
    assert identities == [old["metadata"]["uid"], new["metadata"]["uid"]]


def _is_owned_by(found: Object, owner: Object) -> bool:
    references = found["metadata"].get("ownerReferences") or ()
    return any(each["uid"] == owner["metadata"]["uid"] for each in references)


def test_a_run_while_the_operator_was_away_appears_when_it_returns() -> None:
    world = _begin()
    world.run(5)
    world.fire("nightly", SLOT)
    world.play()
    assert not [key for key in world.gateway.objects if key[0] == "Backup"]
    world.run(3)
    assert world.status("Backup", "nightly-20260301020000")["phase"] == "Succeeded"


def test_a_lost_result_of_a_committed_backup_is_found_in_storage() -> None:
    world = _begin()
    world.run(5)
    world.lose_results_of.add("backup")
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(8)
    assert world.status("Backup", "by-hand")["phase"] == "Succeeded" and len(world.bucket) == 1


def test_a_lost_result_of_a_restore_is_a_failure_and_never_a_second_restore() -> None:
    world = _begin()
    world.run(5)
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(5)
    world.person("RestoreRequest", "back", {"backupRef": {"name": "by-hand"}})
    world.run(3)
    world.lose_results_of.add("restore")
    world.run(10, lambda: _approve(world))
    assert world.status("RestoreRequest", "back")["phase"] == "Failed" and len(world.restored) == 1


def test_a_plan_that_no_longer_fits_asks_again() -> None:
    world = _begin()
    world.run(5)
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(5)
    world.person("RestoreRequest", "back", {"backupRef": {"name": "by-hand"}})
    world.run(3)
    first = world.status("RestoreRequest", "back")["plan"]["digest"]
    _approve(world)
    world.plan_changes_once = True
    world.run(4)
    status = world.status("RestoreRequest", "back")
    assert (
        status["phase"] == "AwaitingApproval" and status["plan"]["digest"] != first and world.restored == []
    )
    world.run(5, lambda: _approve(world))
    assert world.status("RestoreRequest", "back")["phase"] == "Succeeded" and len(world.restored) == 1


def test_drift_in_a_cron_job_is_set_back() -> None:
    world = _begin()
    world.run(5)
    cron_job = next(each for key, each in world.gateway.objects.items() if key[0] == "CronJob")
    cron_job["spec"]["schedule"] = "* * * * *"
    world.run(1)
    assert (
        next(each for key, each in world.gateway.objects.items() if key[0] == "CronJob")["spec"]["schedule"]
        == "0 2 * * *"
    )


def test_a_policy_without_its_storage_says_so_and_recovers() -> None:
    world = World()
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.run(2)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "StorageNotFound"
    world.person("BackupStorage", "s3", S3_SPEC)
    world.run(6)
    assert world.condition("BackupPolicy", "nightly")["status"] == "True"


def test_a_foreign_cron_job_of_our_name_is_not_taken_over() -> None:
    world = _begin()
    world.run(5)
    key = next(key for key in world.gateway.objects if key[0] == "CronJob")
    world.gateway.objects[key]["metadata"]["ownerReferences"] = []
    world.run(1)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "NameTaken"


def test_a_second_look_changes_nothing() -> None:
    world = _begin()
    _play(world)
    writes: list[int] = []
    world.gateway.on_write = lambda: writes.append(1)
    world.look("Backup", "by-hand")
    world.look("RestoreRequest", "back")
    world.look("BackupStorage", "s3")
    assert writes == []


class _Forgetting:
    """A gateway that forgets a Backup, as a look at it does whose data was removed, just before Backups are listed."""

    def __init__(self, gateway: Any, backup: Object) -> None:
        self._gateway, self._backup = gateway, backup

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    def iterate(self, kind: str, *words: Any, **more: Any) -> Any:
        if kind == "Backup":
            finished(forget(self._backup, self._gateway))
        return self._gateway.iterate(kind, *words, **more)


def test_a_backup_that_is_forgotten_while_its_policy_is_looked_at_does_not_come_back() -> None:
    world = _begin()
    _play(world)
    (backup,) = [
        each
        for (kind, _, _), each in world.gateway.objects.items()
        if kind == "Backup" and each["spec"].get("origin") == "Scheduled"
    ]
    meta, job = backup["metadata"], backup["spec"]["job"]["name"]
    around = replace(world.around, gateway=cast("Gateway", _Forgetting(world.gateway, backup)))
    finished(LOOKS["BackupPolicy"](Key("BackupPolicy", NAMESPACE, "nightly"), around))
    assert ("Job", NAMESPACE, job) in world.gateway.objects
    assert ("Backup", NAMESPACE, meta["name"]) not in world.gateway.objects
