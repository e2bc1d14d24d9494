"""A storage that holds what no object shows: it is mirrored, page by page, and killed at every write it ends the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract import names
from avalanche_contract.result import Entry
from avalanche_operator.api.restore import FromPolicy, RestoreRequestSpec
from avalanche_operator.discovery import storage
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.restores.targets import choose_backup
from tests.fakes.world import CHECKSUM, NAMESPACE, START, World, Writes, undisturbed
from tests.unit.operator.objects import DATABASE, S3_SPEC, policy_spec

Object = dict[str, Any]
OLD = datetime(2026, 1, 1, 2, tzinfo=UTC)


def _entry(number: int, policy: str = "nightly", *, namespace: str = NAMESPACE, **more: Any) -> Entry:
    moment = OLD + timedelta(days=number)
    told = {
        "backup_id": names.backup_id("database", moment),
        "backup_type": "database",
        "run_identity": f"scheduled/old-{policy}/{int(moment.timestamp()) // 60}",
        "namespace": namespace,
        "policy": policy,
        "prefix": f"{namespace}/{policy}/",
        "start_time": moment,
        "completion_time": moment,
        "snapshot_time": moment,
        "size_bytes": 10,
        "source_bytes": 20,
        "checksum": CHECKSUM,
        "status": "Succeeded",
        "verification": "Verified",
    }
    return Entry.model_validate(told | more)


def _fresh(*entries: Entry, page: int = 2, **spec: Any) -> World:
    """Give a cluster that knows nothing, and a bucket that remembers."""
    world = World()
    world.page = page
    world.bucket = {f"{each.prefix}{each.backup_id}": each for each in entries}
    world.person("BackupStorage", "s3", {**S3_SPEC, **spec})
    return world


def _backups(world: World) -> dict[str, Object]:
    return {key[2]: each for key, each in world.gateway.objects.items() if key[0] == "Backup"}


def _shown(world: World) -> Object:
    shown = {name: (each["spec"], each["status"]["phase"], each["status"]["backupID"]) for name, each in _backups(world).items()}  # fmt: skip
    status = world.status("BackupStorage", "s3")
    return {"backups": shown, **{name: status.get(name) for name in ("backupCount", "sizeBytes")},
            "synced": world.condition("BackupStorage", "s3", "Synced")["reason"]}  # fmt: skip


ENTRIES = (*(_entry(number) for number in range(5)), _entry(3, "hourly"))


EXPECTED, WRITES = undisturbed(lambda: _fresh(*ENTRIES), lambda world: world.run(12), _shown)


def test_everything_in_the_bucket_appears_with_its_status() -> None:
    assert set(EXPECTED["backups"]) == {
        *(f"nightly-2026010{day}020000" for day in range(1, 6)),
        "hourly-20260104020000",
    }
    assert (EXPECTED["backupCount"], EXPECTED["sizeBytes"], EXPECTED["synced"]) == (6, 60, "Synced")
    spec, phase, backup_id = EXPECTED["backups"]["nightly-20260103020000"]
    assert (spec["origin"], spec["policyRef"], phase) == ("Discovered", {"name": "nightly"}, "Succeeded")
    assert backup_id == "database_20260103_020000"


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_ends_as_undisturbed(number: int) -> None:
    world = _fresh(*ENTRIES)
    writes = Writes(world, number)
    world.run(14)
    assert writes.count >= number
    assert _shown(world) == EXPECTED


def test_what_is_shown_belongs_to_nobody_and_nothing_is_run_for_it() -> None:
    world = _fresh(*ENTRIES)
    world.run(12)
    assert not any(each["metadata"].get("ownerReferences") for each in _backups(world).values())
    verbs = {
        each["metadata"]["labels"][names.LABEL_VERB]
        for each in world.gateway.created
        if each["kind"] == "Job"
    }
    assert verbs == {"probe", "catalog"}


def test_a_run_of_this_cluster_is_not_shown_a_second_time() -> None:
    world = World()
    world.person("BackupStorage", "s3", {**S3_SPEC, "syncSchedule": "* * * * *"})
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.run(5)
    world.fire("nightly", START + timedelta(minutes=1))
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.play()  # both are committed, and the operator has seen neither
    world.time += timedelta(minutes=5)
    world.run(30)
    assert {each["spec"]["origin"] for each in _backups(world).values()} == {"Scheduled", "Manual"}
    assert len(_backups(world)) == 2 and world.status("BackupStorage", "s3")["backupCount"] == 2


def test_an_object_that_was_deleted_comes_back_with_the_next_reading() -> None:
    world = _fresh(_entry(1))
    world.run(8)
    [name] = _backups(world)
    del world.gateway.objects["Backup", NAMESPACE, name]
    world.time += timedelta(hours=2)
    world.run(8)
    assert list(_backups(world)) == [name]


def test_what_vanished_says_so_and_is_good_again_when_it_is_seen_again() -> None:
    world = _fresh(*(_entry(number) for number in range(4)))
    world.run(10)
    whole, gone = dict(world.bucket), "nightly-20260102020000"
    world.bucket = {key: each for key, each in whole.items() if each.backup_id != "database_20260102_020000"}
    world.time += timedelta(hours=2)
    world.run(10)
    assert world.condition("Backup", gone, "Available")["reason"] == "NotFound"
    assert world.condition("Backup", "nightly-20260101020000", "Available")["status"] == "True"
    world.bucket, world.time = whole, world.time + timedelta(hours=2)
    world.run(10)
    assert world.condition("Backup", gone, "Available")["status"] == "True"


@pytest.mark.parametrize("answer", ["Failed", "WithoutLog"])
def test_an_answer_that_is_not_whole_says_that_nothing_is_gone(answer: Any) -> None:
    world = _fresh(*(_entry(number) for number in range(3)))
    world.run(10)
    world.bucket, world.catalog_answers, world.time = {}, answer, world.time + timedelta(hours=2)
    world.run(10)
    assert world.condition("BackupStorage", "s3", "Synced")["status"] == "False"
    assert all(
        each["status"]["phase"] == "Succeeded" and "removal" not in each["status"]
        for each in _backups(world).values()
    )
    world.catalog_answers = "Whole"
    world.time += timedelta(hours=1)
    world.run(10)
    assert world.condition("Backup", "nightly-20260101020000", "Available")["reason"] == "NotFound"


def test_two_storages_of_one_backup_are_two_copies_of_one_object() -> None:
    world = _fresh(_entry(1))
    world.person("BackupStorage", "second", S3_SPEC)
    world.run(12)
    [backup] = _backups(world).values()
    assert sorted(each["storage"] for each in backup["status"]["copies"]) == ["s3", "second"]
    assert sorted(backup["status"]["storages"]) == ["s3", "second"]


def test_in_another_namespace_the_folder_is_the_one_that_discovery_names() -> None:
    world = _fresh(_entry(1, namespace="production"), _entry(2), discovery={"namespace": "production"})
    world.run(8)
    [backup] = _backups(world).values()
    assert (
        backup["status"]["prefix"] == "production/nightly/" and backup["metadata"]["namespace"] == NAMESPACE
    )


def test_only_the_policies_are_read_that_discovery_names() -> None:
    world = _fresh(*ENTRIES, discovery={"policies": ["hourly"]})
    world.run(8)
    assert list(_backups(world)) == ["hourly-20260104020000"]


@pytest.mark.parametrize(
    "strange",
    [
        {"prefix": f"{NAMESPACE}/UPPER/"},
        {"prefix": f"{NAMESPACE}/a/b/"},
        {"prefix": f"{NAMESPACE}/{'x' * 41}/"},
        {"checksum": "sha256:short"},
        {"size_bytes": -1},
        {"warnings": ["x" * 5000]},
        {"run_identity": "x" * 300},
        {"run_identity": ""},
        {"prefix": f"{NAMESPACE}/a..b/"},
        {"prefix": f"{NAMESPACE}/a.-b/"},
    ],
)
def test_what_no_backup_could_show_is_counted_and_stops_nothing(strange: Object) -> None:
    world = _fresh(_entry(1), _entry(2, **strange), _entry(3))
    world.run(10)
    assert len(_backups(world)) == 2
    synced = world.condition("BackupStorage", "s3", "Synced")
    assert (synced["status"], synced["reason"]) == ("False", "MetadataUnreadable")
    assert world.condition("BackupStorage", "s3")["status"] == "True"


@pytest.mark.parametrize(
    "moment", [datetime.max.replace(microsecond=0, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
)
def test_moments_at_the_ends_of_the_calendar_stop_nothing(moment: datetime) -> None:
    odd: Object = {"completion_time": moment, "start_time": moment, "snapshot_time": moment}
    world = _fresh(_entry(1), _entry(2, **odd), _entry(3))
    world.run(10)
    del world.bucket[f"{NAMESPACE}/nightly/{_entry(3).backup_id}"]
    world.time += timedelta(hours=2)
    world.run(10)
    assert world.condition("Backup", "nightly-20260104020000", "Available")["reason"] == "NotFound"
    assert world.condition("BackupStorage", "s3", "Synced")["reason"] in ("Synced", "MetadataUnreadable")


def test_two_backups_of_one_run_are_both_shown_wherever_it_is_killed() -> None:
    one = _entry(1)
    other = one.model_copy(update={"backup_type": "files", "backup_id": "files_20260102_020000"})

    def played(number: int) -> tuple[int, list[str]]:
        world = _fresh(one, other)
        writes = Writes(world, number)
        world.run(12)
        return writes.count, sorted(each["status"]["backupID"] for each in _backups(world).values())

    count, expected = played(0)
    assert expected == [one.backup_id, other.backup_id]
    assert all(played(number)[1] == expected for number in range(1, count + 1))


def test_what_the_api_server_does_not_take_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _fresh(_entry(1), _entry(2), _entry(3))
    create = world.gateway.create

    async def choosy(body: Object) -> Object | None:
        if body["metadata"]["name"] == "nightly-20260103020000":
            raise Refused(422, "metadata.name: Invalid value")
        return await create(body)

    monkeypatch.setattr(world.gateway, "create", choosy)
    world.run(10)
    assert len(_backups(world)) == 2
    assert world.condition("BackupStorage", "s3", "Synced")["reason"] == "MetadataUnreadable"


def test_what_two_readings_did_not_find_is_shown_no_longer_and_comes_back_with_its_data() -> None:
    world = _fresh(_entry(1), _entry(2))
    world.run(8)
    whole, gone = dict(world.bucket), "nightly-20260102020000"
    del world.bucket[f"{NAMESPACE}/nightly/{_entry(1).backup_id}"]
    world.time += timedelta(hours=2)
    world.run(8)
    assert world.condition("Backup", gone, "Available")["reason"] == "NotFound"
    world.time += timedelta(hours=2)
    world.run(8)
    assert list(_backups(world)) == ["nightly-20260103020000"]
    world.bucket, world.time = whole, world.time + timedelta(hours=2)
    world.run(8)
    assert world.condition("Backup", gone, "Available")["status"] == "True"


def test_of_a_run_of_this_cluster_the_object_stays_however_often_its_data_is_not_found() -> None:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.run(8)
    world.bucket.clear()
    for _ in range(4):
        world.time += timedelta(hours=2)
        world.run(8)
    assert world.condition("Backup", "by-hand", "Available")["reason"] == "NotFound"


def test_a_copy_that_one_of_two_storages_has_lost_is_shown_as_missing_and_comes_back() -> None:
    world = _fresh(_entry(1))
    world.person("BackupStorage", "second", S3_SPEC)
    world.run(12)
    name = "nightly-20260102020000"
    assert world.condition("Backup", name, "CopiesComplete")["status"] == "True"
    world.holding[_entry(1).run_identity] = {"second"}
    world.time += timedelta(hours=2)
    world.run(12)
    status = world.status("Backup", name)
    assert [each["storage"] for each in status["copies"]] == ["second"] and status["storage"] == "second"
    told = world.condition("Backup", name, "CopiesComplete")
    assert (told["status"], told["message"].startswith("no copy in s3")) == ("False", True)
    world.holding[_entry(1).run_identity] = {"s3", "second"}
    world.time += timedelta(hours=2)
    world.run(12)
    assert world.condition("Backup", name, "CopiesComplete")["status"] == "True"


def test_a_copy_that_was_made_elsewhere_of_a_run_of_this_cluster_is_shown_and_another_backup_is_none() -> (
    None
):
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(8)
    identity, entry = next(iter(world.bucket.items()))
    world.holding[identity].add("second")  # copied by hand
    world.person("BackupStorage", "second", S3_SPEC)
    world.run(8)
    assert [each["storage"] for each in world.status("Backup", "by-hand")["copies"]] == ["s3", "second"]
    world.person("BackupStorage", "third", S3_SPEC)
    world.holding[identity].add("third")
    world.bucket[identity] = entry.model_copy(update={"checksum": "sha256:" + "b" * 64})
    world.run(8)
    assert [each["storage"] for each in world.status("Backup", "by-hand")["copies"]] == ["s3", "second"]


def test_what_nobody_who_is_trusted_signed_is_shown_as_such_and_counts_for_nothing() -> None:
    signing = {"trustedKeys": ["mWp49WgqCZwCXxuMAV6TLWNpSqwZpbeEIG4vWaPJNIA="]}
    world = _fresh(_entry(1), _entry(2))
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, signing=signing))
    world.unsigned = {_entry(2).backup_id}
    world.run(12)
    told = world.condition("Backup", "nightly-20260103020000", "Verified")
    assert (told["status"], told["reason"]) == ("False", "SignatureInvalid") and "not signed" in told[
        "message"
    ]
    assert world.condition("Backup", "nightly-20260102020000", "Verified")["status"] == "True"
    assert world.status("BackupPolicy", "nightly")["backupCount"] == 1
    asked = RestoreRequestSpec(from_policy=FromPolicy(name="nightly"))
    assert choose_backup(asked, _backups(world).values()).name == "nightly-20260102020000"
    world.change("BackupPolicy", "nightly", signing=None)
    world.run(6)
    assert world.condition("Backup", "nightly-20260103020000", "Verified")["status"] == "True"


def test_a_restore_reads_the_storage_that_it_names() -> None:
    artifact = {"source": "db", "kind": "postgresql", "object": "x", "sizeBytes": 1, "checksum": CHECKSUM, "sourceBytes": 1, "sourceChecksum": CHECKSUM}  # fmt: skip
    world = _fresh(_entry(1, artifacts=[artifact]))
    world.person("BackupStorage", "second", S3_SPEC)
    world.run(12)
    database = {"host": "postgres", "database": "edna", "credentialsSecretRef": {"name": "database"}}
    for name in ("s3", "second"):
        named = {"storageRef": {"name": name}, "backupID": "database_20260102_020000"}
        world.person(
            "RestoreRequest", f"from-{name}", {"fromStorage": named, "target": {"postgresql": database}}
        )
    world.run(4)
    assert [
        world.status("RestoreRequest", f"from-{name}")["backup"]["storage"] for name in ("s3", "second")
    ] == ["s3", "second"]


def test_a_suspect_backup_that_a_person_accepted_counts_here_too() -> None:
    world = _fresh(
        _entry(1, status="Suspect", reason="Shrunken", anomaly_accepted=True), _entry(2, status="Suspect")
    )
    world.run(8)
    accepted, other = (_backups(world)[f"nightly-2026010{day}020000"]["status"] for day in (2, 3))
    assert accepted["anomalyAccepted"] is True and "anomalyAccepted" not in other
    assert world.condition("Backup", "nightly-20260102020000")["reason"] == "AnomalyAccepted"


def test_a_name_that_another_run_has_is_no_obstacle() -> None:
    one = _entry(1)
    world = _fresh(
        one,
        one.model_copy(
            update={"backup_type": "files", "backup_id": "files_20260102_020000", "run_identity": "other"}
        ),
    )
    world.run(8)
    plain = "nightly-20260102020000"
    assert plain in _backups(world) and len(_backups(world)) == 2
    assert all(name.startswith(plain) for name in _backups(world))


def test_ten_thousand_backups_are_no_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "BATCH", 3)
    world = _fresh(*(_entry(number) for number in range(20)), page=10)
    counts = []
    for _ in range(20):
        before = len(_backups(world))
        world.look("BackupStorage", "s3")
        world.play()
        counts.append(len(_backups(world)) - before)
        world.time += timedelta(seconds=10)
    assert max(counts) == 3 and sum(counts) == 20


def test_in_a_fresh_cluster_a_backup_is_restored_by_where_it_lies_and_without_its_policy() -> None:
    artifact = {"source": "db", "kind": "postgresql", "object": "x", "sizeBytes": 1, "checksum": CHECKSUM, "sourceBytes": 1, "sourceChecksum": CHECKSUM}  # fmt: skip
    world = _fresh(
        _entry(1, namespace="production", artifacts=[artifact]), discovery={"namespace": "production"}
    )
    database = {"host": "postgres", "database": "edna", "credentialsSecretRef": {"name": "database"}}
    world.person("RestoreRequest", "back", {
        "fromStorage": {"storageRef": {"name": "s3"}, "backupID": "database_20260102_020000"},
        "target": {"postgresql": database},
    })  # fmt: skip

    def approve() -> None:
        plan = world.status("RestoreRequest", "back").get("plan")
        if plan is not None:
            world.change("RestoreRequest", "back", approvedPlan=plan["digest"])

    world.run(14, approve)
    assert world.status("RestoreRequest", "back")["phase"] == "Succeeded" and len(world.restored) == 1
    assert world.status("RestoreRequest", "back")["backup"]["prefix"] == "production/nightly/"


def test_a_storage_that_does_not_answer_is_not_read() -> None:
    world = _fresh(_entry(1))
    world.down.add("s3")
    world.run(6)
    assert not _backups(world) and world.condition("BackupStorage", "s3", "Synced")["status"] == "Unknown"


def test_it_is_read_again_when_its_schedule_says_so_and_not_before() -> None:
    world = _fresh(_entry(1), syncSchedule="30 3 * * *")
    world.run(8)

    def readings() -> int:
        jobs = (each for each in world.gateway.created if each["kind"] == "Job")
        return sum(each["metadata"]["labels"][names.LABEL_VERB] == "catalog" for each in jobs)

    assert readings() == 1
    world.time = world.time.replace(hour=3, minute=29, second=0)
    world.run(3)
    assert readings() == 1
    world.time = world.time.replace(hour=3, minute=31, second=0)
    world.run(4)
    assert readings() == 2


def test_a_look_lists_the_backups_once_for_a_page_and_not_at_all_where_none_is_due() -> None:
    world = _fresh(*ENTRIES)
    world.run(12)
    world.gateway.listed.clear()
    world.look("BackupStorage", "s3")
    assert world.gateway.listed["Backup"] == 0
    world.time += timedelta(days=2)
    seen = set()
    for _ in range(12):
        world.gateway.listed.clear()
        world.look("BackupStorage", "s3")
        seen.add(world.gateway.listed["Backup"])
        world.play()
    assert seen == {0, len(ENTRIES)}
