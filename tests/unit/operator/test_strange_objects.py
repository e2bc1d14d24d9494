"""One object that says what cannot be understood, or is of somewhere else, stops and counts for no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_operator.api.restore import FromPolicy, RestoreRequestSpec
from avalanche_operator.objectives.decide import measured
from avalanche_operator.policies.decide import Tally
from avalanche_operator.restores.targets import RestoreImpossible, choose_backup
from tests.fakes.world import CHECKSUM, NAMESPACE, START, World
from tests.unit.operator.objects import DATABASE, S3_SPEC, found, policy_spec

Object = dict[str, Any]
BEYOND = "9999-12-31T23:59:59-12:00"
"""What the API server takes for a time, and no calendar reaches."""
GOOD: Object = {
    "phase": "Succeeded",
    "backupID": "database_20260301_020000",
    "type": "database",
    "storage": "s3",
    "prefix": "edna/nightly/",
    "snapshotTime": "2026-03-01T02:00:00Z",
    "completionTime": "2026-03-01T02:01:00Z",
    "sizeBytes": 5,
    "verification": {"status": "Verified"},
}


def _backup(name: str, status: Object, **spec: Any) -> Object:
    return found("Backup", name, {"policyRef": {"name": "nightly"}, **spec}, status)


@pytest.mark.parametrize("slot", ["9" * 30, "9" * 12, "²"])
def test_a_slot_that_is_no_time_is_none(slot: str) -> None:
    tally = Tally()
    tally.add(_backup("a", GOOD, origin="Scheduled", runIdentity=f"scheduled/uid/{slot}"))
    assert tally.last_slot is None and tally.runs().succeeded == 1


def test_a_moment_that_is_no_time_is_not_the_newest() -> None:
    tally = Tally()
    tally.add(_backup("a", GOOD | {"snapshotTime": BEYOND}))
    assert tally.newest is None and tally.runs().succeeded == 1


def test_what_was_discovered_claims_no_slot_of_this_policy() -> None:
    tally = Tally()
    tally.add(_backup("a", GOOD, origin="Discovered", runIdentity="scheduled/old/29000000"))
    assert tally.last_slot is None


def test_a_backup_of_another_folder_counts_for_no_policy_of_its_name_and_is_not_chosen_for_it() -> None:
    foreign = _backup("a", GOOD | {"prefix": "production/nightly/"}, origin="Discovered", runIdentity="x")
    tally = Tally()
    tally.add(foreign)
    assert (tally.runs().succeeded, tally.newest, tally.runs().verdict) == (0, None, None)
    asked = RestoreRequestSpec(from_policy=FromPolicy(name="nightly"))
    with pytest.raises(RestoreImpossible, match="production/nightly/ are another policy's"):
        choose_backup(asked, [foreign])
    own = _backup("b", GOOD | {"snapshotTime": "2026-02-01T02:00:00Z"})
    assert choose_backup(asked, [foreign, own]).name == "b"


def test_a_backup_whose_status_cannot_be_understood_does_not_keep_another_from_being_restored() -> None:
    asked = RestoreRequestSpec(from_policy=FromPolicy(name="nightly"))
    garbled = _backup("a", GOOD | {"snapshotTime": BEYOND, "expirationTime": BEYOND})
    assert choose_backup(asked, [garbled, _backup("b", GOOD)]).name == "b"


def test_a_restore_that_cannot_be_understood_measures_nothing_and_stops_nothing() -> None:
    status = {
        "phase": "Succeeded",
        "durationSeconds": 7,
        "completionTime": "2026-03-01T03:00:00Z",
        "backup": {"name": "b", "backupID": GOOD["backupID"], "type": "database", "storage": "s3",
                   "prefix": "edna/nightly/", "policy": "nightly"},
    }  # fmt: skip
    odd = found("RestoreRequest", "odd", {"fromPolicy": {"name": "nightly", "asOf": BEYOND}}, status)
    good = found("RestoreRequest", "good", {"backupRef": {"name": "b"}}, status)
    took = measured([odd, good], "nightly")
    assert took is not None and took.seconds == 7


@pytest.mark.parametrize("verb", ["cleanup", "verify"])
def test_a_backup_that_cannot_be_understood_does_not_stop_what_is_recorded_of_the_others(verb: str) -> None:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, retention={"keepLast": 1}))
    world.run(6)
    world.fire("nightly", START + timedelta(minutes=1))
    world.run(4)
    odd = {
        "policyRef": {"name": "nightly"},
        "origin": "Discovered",
        "runIdentity": "x",
        "expirationTime": BEYOND,
    }
    world.person("Backup", "another", odd)["status"] = dict(GOOD)
    garbled = {"policyRef": {"name": "nightly"}, "origin": "Discovered", "runIdentity": "y"}
    world.person("Backup", "a-garbled-one", garbled)["status"] = GOOD | {"completionTime": BEYOND}
    world.fire("nightly", START + timedelta(hours=4), verb)
    world.play()
    world.look("BackupPolicy", "nightly")
    field = "lastCleanup" if verb == "cleanup" else "lastVerification"
    assert world.status("BackupPolicy", "nightly")[field]["succeeded"]


# --- copies that were made later ----------------------------------------------------------------------------
def _with_a_copy_made_later(*destinations: str) -> World:
    world = World()
    for name in ("s3", "second", "third"):
        world.person("BackupStorage", name, S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.run(6)
    world.fire("nightly", START + timedelta(minutes=1))
    world.run(4)
    places = [{"storageRef": {"name": name}} for name in destinations]
    world.change("BackupPolicy", "nightly", destinations=places)
    copy = {"storage": "second", "location": "second:/", "checksum": CHECKSUM}
    world.gateway.objects["Backup", NAMESPACE, "nightly-20260301020000"]["status"]["copies"].append(copy)
    return world


@pytest.mark.parametrize("change", [{"hold": True}, {"deleteRequested": True}])
@pytest.mark.parametrize(("destinations", "reached"), [
    (("s3",), ["s3", "second"]),
    (("third",), ["s3", "second", "third"]),
])  # fmt: skip
def test_a_hold_and_an_erasure_reach_the_copies_that_were_made_later(
    change: Object, destinations: tuple[str, ...], reached: list[str]
) -> None:
    world = _with_a_copy_made_later(*destinations)
    world.change("Backup", "nightly-20260301020000", **change)
    world.look("Backup", "nightly-20260301020000")
    [asked] = [each for each in world.requests() if each.verb in ("hold", "delete")]
    assert [asked.backup.place.storage.name, *(each.storage.name for each in asked.others)] == reached


def test_what_has_a_copy_in_a_storage_that_was_not_looked_into_is_not_missing() -> None:
    world = _with_a_copy_made_later("s3")
    world.bucket.clear()
    world.time = datetime(2026, 3, 2, tzinfo=UTC)
    world.fire("nightly", START + timedelta(hours=4), "verify")
    world.play()
    world.look("BackupPolicy", "nightly")
    assert world.status("BackupPolicy", "nightly")["lastVerification"]["succeeded"]
    assert "removal" not in world.status("Backup", "nightly-20260301020000")
