"""Several destinations: what a policy may name, what its runs write to, and where a Backup is then said to lie."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import cel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_validate.utils import validate

from avalanche_contract.request import BackupRequest, ProbeRequest, RestoreRequest, Run
from avalanche_contract.result import Entry
from avalanche_operator.api.generate import structural
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import backup_job, probe_job
from avalanche_operator.applying.copies import choose
from avalanche_operator.applying.together import together
from avalanche_operator.backups.lookup import Answered, Partial, Unknown, concluded
from avalanche_operator.jobs.asked import request_of
from avalanche_operator.jobs.build import job
from tests.fakes.world import CHECKSUM, NAMESPACE, START, World
from tests.unit.operator.objects import DATABASE, FILES, S3_SPEC, applied, found, policy_spec

Object = dict[str, Any]
CLAIM: Object = {"claim": {"name": "disk"}}
TWO: Object = {"destinations": [{"storageRef": {"name": "s3"}}, {"storageRef": {"name": "disk"}}]}
MANUAL: Object = {"policyRef": {"name": "nightly"}, "origin": "Manual"}


def _rules(schema: Object, value: Any) -> list[str]:
    told = schema.get("x-kubernetes-validations", ())
    return [each["message"] for each in told if not cel.evaluate(each["rule"], {"self": value})]


@pytest.mark.parametrize(("names", "min_copies", "sentence"), [
    (["a", "b"], None, None),
    (["a", "b"], 2, None),
    (["a"], 2, "minCopies is at most"),
    (["a", "b", "a"], 1, "each storage is a destination once"),
])  # fmt: skip
def test_destinations_are_named_once_and_bound_the_copies(
    names: list[str], min_copies: int | None, sentence: str | None
) -> None:
    destinations = [{"storageRef": {"name": name}} for name in names]
    value = {"destinations": destinations, **({"minCopies": min_copies} if min_copies else {})}
    schema = structural(BackupPolicySpec)
    told = _rules(schema, value) + _rules(schema["properties"]["destinations"], destinations)
    assert (sentence is None and told == []) or (sentence is not None and sentence in told[0])


def _storage(name: str, status: str = "True", reason: str = "Usable", **more: Any) -> Object:
    condition = {"type": "Ready", "status": status, "reason": reason, "message": f"{reason} told"}
    spec = {**(CLAIM if name == "disk" else S3_SPEC), **more}
    return found("BackupStorage", name, spec, {"conditions": [condition], "storageID": f"id of {name}"})


DOWN = _storage("s3", "False", "StorageUnavailable")


@pytest.mark.parametrize(("storages", "min_copies", "written", "reason", "complete"), [
    ([_storage("s3"), _storage("disk")], None, ["s3", "disk"], None, "True"),
    ([DOWN, _storage("disk")], None, ["s3", "disk"], "StorageNotReady", "False"),
    ([DOWN, _storage("disk")], 1, ["s3", "disk"], None, "False"),
    ([None, _storage("disk")], 1, ["disk"], None, "False"),
    ([None, _storage("disk")], None, [], "StorageNotFound", "False"),
    ([_storage("s3", accessMode="ReadOnly"), _storage("disk")], 1, ["disk"], None, "False"),
    ([_storage("s3"), _storage("disk", "False", "ClaimNotFound")], 1, ["s3"], None, "False"),
    ([_storage("s3"), _storage("disk", "Unknown", "Probing")], 1, ["s3", "disk"], None, "Unknown"),
    ([_storage("disk", "False", "ClaimNotFound")], None, ["disk"], "StorageNotReady", None),
])  # fmt: skip
def test_a_policy_is_ready_with_enough_storages_and_tells_of_the_others(
    storages: list[Object | None],
    min_copies: int | None,
    written: list[str],
    reason: str | None,
    complete: str | None,
) -> None:
    chosen = choose(
        {"s3" if number == 0 else "disk": each for number, each in enumerate(storages)}, min_copies
    )
    assert [each["metadata"]["name"] for each in chosen.written] == written
    assert (chosen.obstacle.reason if chosen.obstacle else None) == reason
    assert (chosen.complete.status if chosen.complete else None) == complete


def test_two_storages_that_are_one_place_are_refused() -> None:
    same = {**_storage("disk"), "status": _storage("s3")["status"]}
    chosen = choose({"s3": _storage("s3"), "disk": same}, 1)
    assert chosen.obstacle is not None and chosen.obstacle.reason == "SamePlace"


def test_a_run_mounts_every_destination_and_asks_for_every_copy() -> None:
    policy = applied(FILES, others=(("disk", BackupStorageSpec.model_validate(CLAIM)),), minCopies=1, **TWO)
    built = job(backup_job(policy, policy.policy, "ab-run", Run()))
    validate(built, "1.34", strict=True)
    request = request_of(built)
    assert isinstance(request, BackupRequest) and request.min_copies == 1
    assert [each.storage.name for each in request.destinations] == ["s3", "disk"]
    paths = [each["mountPath"] for each in built["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]
    assert {"/avalanche/storage/disk", "/avalanche/secrets/bucket", "/avalanche/sources/data"} <= set(paths)
    assert len(set(paths)) == len(paths)


def test_a_probe_does_not_wait_for_a_storage_that_is_down() -> None:
    others = (("disk", BackupStorageSpec.model_validate(CLAIM)),)
    policy = replace(applied(FILES, others=others, minCopies=1, **TWO), unusable=frozenset({"s3"}))
    request = request_of(job(probe_job(policy, 1)))
    assert isinstance(request, ProbeRequest) and [each.storage.name for each in request.places] == ["disk"]


def _entry() -> Entry:
    return Entry(
        backup_id="database_20260301_020000", backup_type="database", run_identity="manual/one", start_time=START,
        completion_time=START, snapshot_time=START, size_bytes=1, source_bytes=1, checksum=CHECKSUM, status="Succeeded",
    )  # fmt: skip


@given(st.lists(st.sampled_from(["there", "not", "unknown"]), min_size=1, max_size=8), st.integers(1, 8))
def test_what_storages_say_together(said: list[str], wanted: int) -> None:
    """A success needs enough copies; that there are too few, or none, needs an answer of every storage."""
    kinds: dict[str, Answered] = {"there": _entry(), "not": None, "unknown": Unknown("no answer")}
    needed = min(wanted, len(said))
    told = concluded({f"s{number}": kinds[each] for number, each in enumerate(said)}, needed)
    if said.count("there") >= needed:
        assert isinstance(told, Entry)
    elif "unknown" in said:
        assert isinstance(told, Unknown)
    else:
        assert isinstance(told, Partial) if "there" in said else told is None


def _begin(*, down: bool = False, **more: Any) -> World:
    world = World()
    claim = {"metadata": {"name": "disk", "namespace": NAMESPACE}, "spec": {"accessModes": ["ReadWriteMany"]}}
    world.gateway.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupStorage", "disk", CLAIM)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, **TWO, **more))
    world.run(5)
    world.down |= {"s3"} if down else set()
    return world


def _run(world: World) -> Object:
    world.person("Backup", "by-hand", MANUAL)
    world.run(6)
    return world.status("Backup", "by-hand")


def _where(status: Object) -> list[str]:
    return [each["storage"] for each in status.get("copies", ())]


def test_a_backup_tells_of_every_copy() -> None:
    world = _begin()
    status = _run(world)
    assert (status["phase"], status["storage"], _where(status)) == ("Succeeded", "s3", ["s3", "disk"])
    assert world.condition("Backup", "by-hand", "CopiesComplete")["status"] == "True"
    assert world.condition("BackupPolicy", "nightly", "CopiesComplete")["status"] == "True"


def test_a_copy_that_is_missing_is_told_where_enough_were_made() -> None:
    world = _begin(down=True, minCopies=1)
    status = _run(world)
    assert (status["phase"], status["storage"], _where(status)) == ("Succeeded", "disk", ["disk"])
    condition = world.condition("Backup", "by-hand", "CopiesComplete")
    assert condition["status"] == "False" and "no copy in s3: s3: no answer" in condition["message"]


def test_too_few_copies_are_no_success_and_the_status_says_where_they_lie() -> None:
    status = _run(_begin(down=True))
    assert (status["phase"], status["failureReason"], _where(status)) == ("Failed", "CopiesMissing", ["disk"])


def test_a_policy_whose_storage_went_down_is_ready_with_the_others() -> None:
    world = _begin(minCopies=1)
    world.down.add("s3")
    world.time += timedelta(hours=2)
    world.run(6)
    assert world.condition("BackupPolicy", "nightly")["status"] == "True"
    complete = world.condition("BackupPolicy", "nightly", "CopiesComplete")
    assert complete["status"] == "False" and "s3" in complete["message"]
    assert _where(_run(world)) == ["disk"]


def test_after_a_lost_result_every_storage_of_the_run_is_asked() -> None:
    world = _begin()
    world.lose_results_of.add("backup")
    assert _where(_run(world)) == ["s3", "disk"]


def test_a_lost_result_with_enough_copies_is_a_success_though_a_storage_does_not_answer() -> None:
    world = _begin(minCopies=1)
    world.lose_results_of.add("backup")
    world.person("Backup", "by-hand", MANUAL)
    world.look("Backup", "by-hand")
    world.play()
    world.down.add("s3")
    world.run(6)
    assert world.status("Backup", "by-hand")["phase"] == "Succeeded"
    assert _where(world.status("Backup", "by-hand")) == ["disk"]


def test_a_lost_result_with_too_few_copies_has_failed_once_every_storage_has_answered() -> None:
    world = _begin()
    world.lose_results_of.add("backup")
    world.person("Backup", "by-hand", MANUAL)
    world.look("Backup", "by-hand")
    world.play()
    world.holding = {identity: {"disk"} for identity in world.holding}
    world.run(6)
    status = world.status("Backup", "by-hand")
    assert (status["phase"], status["failureReason"], _where(status)) == ("Failed", "CopiesMissing", ["disk"])


def _restore(world: World) -> RestoreRequest:
    world.person("RestoreRequest", "back", {"backupRef": {"name": "by-hand"}})
    world.run(4)
    digest = world.status("RestoreRequest", "back")["plan"]["digest"]
    key = ("RestoreRequest", NAMESPACE, "back")
    world.gateway.objects[key]["spec"] = {"backupRef": {"name": "by-hand"}, "approvedPlan": digest}
    world.look("RestoreRequest", "back")
    requests = [request_of(each) for key, each in world.gateway.objects.items() if key[0] == "Job"]
    return next(each for each in requests if isinstance(each, RestoreRequest) and each.mode == "Execute")


@pytest.mark.parametrize(("down", "storage"), [(set(), "s3"), ({"s3"}, "disk")])
def test_a_restore_reads_the_first_copy_whose_storage_is_ready_and_takes_its_lock_in_all(
    down: set[str], storage: str
) -> None:
    world = _begin()
    _run(world)
    world.down |= down
    world.time += timedelta(hours=2)
    world.run(3)
    request = _restore(world)
    assert request.backup.place.storage.name == storage
    assert [each.storage.name for each in request.locks] == ["disk", "s3"]


# --- what one pod can write to at once ----------------------------------------------------------------------
def _account(name: str) -> Object:
    return {"s3": {"bucket": "backups"}, "serviceAccountName": name}


@pytest.mark.parametrize(
    ("least", "ready", "reason"), [(1, "True", "Usable"), (2, "False", "IdentitiesDiffer")]
)
def test_a_destination_of_another_account_is_left_out_where_enough_others_are_left_and_is_named(
    least: int, ready: str, reason: str
) -> None:
    world = World()
    for name, account in (("first", "one"), ("second", "two")):
        world.person("BackupStorage", name, _account(account))
    places = [{"storageRef": {"name": name}} for name in ("first", "second")]
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, destinations=places, minCopies=least))
    world.run(8)
    told = world.condition("BackupPolicy", "nightly")
    assert (told["status"], told["reason"]) == (ready, reason)
    if least == 1:
        copies = world.condition("BackupPolicy", "nightly", "CopiesComplete")
        assert (copies["status"], copies["reason"]) == ("False", "IdentitiesDiffer")
        assert "no copy is made in second: one pod cannot run as one and two" in copies["message"]
        world.fire("nightly", START + timedelta(minutes=1))
        world.run(3)
        status = world.status("Backup", "nightly-20260301020000")
        assert (status["phase"], status["storage"]) == ("Succeeded", "first")
        assert not status.get("storages")


def _claimed(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"]}}


def _user(claim: str, node: str) -> Object:
    volumes = [{"persistentVolumeClaim": {"claimName": claim}}]
    return {
        "metadata": {"name": claim},
        "spec": {"nodeName": node, "volumes": volumes},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize(
    ("least", "written"), [(1, ["s3", "near"]), (2, ["s3", "near"]), (3, ["s3", "far", "near"])]
)
def test_a_claim_on_another_node_is_left_out_where_enough_others_are_left(
    least: int, written: list[str]
) -> None:
    others = tuple(
        (name, BackupStorageSpec.model_validate({"claim": {"name": name}})) for name in ("far", "near")
    )
    places = [{"storageRef": {"name": name}} for name in ("s3", "far", "near")]
    policy = applied(FILES, others=others, destinations=places, minCopies=least)
    claims = [_claimed(name) for name in ("data", "far", "near")]
    pods = [_user("data", "a"), _user("near", "a"), _user("far", "b")]
    found_together = together(policy, claims, pods)
    assert [name for name, _ in found_together.storages] == written
    assert (found_together.copies is None) == (least == 3)
    assert together(policy, claims, pods[:2]) == policy, "what can be mounted is written to"
