"""Restores where nothing of the old cluster is left: by where a backup lies, and without its policy."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_contract import names
from avalanche_operator.api.generate import crd
from avalanche_operator.api.kinds import RESTORE
from avalanche_operator.api.restore import RestoreRequestSpec
from avalanche_operator.restores.standing import by_name, policy_of
from avalanche_operator.restores.targets import NotYet, RestoreImpossible, chosen_sources
from tests.unit.operator.objects import found

Object = dict[str, Any]
ID = "full_20260101_020000"
SUM = "sha256:" + "a" * 64
EVERYTHING: Object = {
    "postgresql": {
        "host": "postgres.new",
        "database": "edna",
        "credentialsSecretRef": {"name": "new"},
        "sslMode": "verify-full",
    },
    "claim": {"name": "new"},
    "path": "app.sqlite",
}


def _artifact(name: str, kind: str) -> Object:
    return {"source": name, "kind": kind, "object": "x", "sizeBytes": 1, "checksum": SUM, "sourceBytes": 1, "sourceChecksum": SUM}  # fmt: skip


def _backup(name: str = "old", policy: str = "nightly", **more: Any) -> Object:
    kinds = {"db": "postgresql", "lite": "sqlite", "data": "files"}
    status = {
        "phase": "Succeeded", "backupID": ID, "type": "full", "storage": "s3", "prefix": f"production/{policy}/",
        "artifacts": [_artifact(*each) for each in more.pop("artifacts", kinds).items()],
        "copies": [{"storage": "s3", "location": "x", "checksum": SUM}], **more,
    }  # fmt: skip
    return found("Backup", name, {"policyRef": {"name": policy}, "origin": "Discovered"}, status)


def _spec(**more: Any) -> RestoreRequestSpec:
    asked = {"fromStorage": {"storageRef": {"name": "s3"}, "backupID": ID}, **more}
    return RestoreRequestSpec.model_validate(asked)


def _read(time: str | None = "2026-03-01T00:00:00Z") -> Object:
    return found("BackupStorage", "s3", {}, {"lastSyncTime": time} if time else {})


def test_a_backup_is_found_by_where_it_lies() -> None:
    named = by_name(_spec(), [_backup("other", backupID="full_20260102_020000"), _backup()], [_read()])
    assert named.backup_ref is not None and named.backup_ref.name == "old"


def test_two_of_one_name_are_told_apart_by_their_policy() -> None:
    backups = [_backup("a", "nightly"), _backup("b", "weekly")]
    with pytest.raises(RestoreImpossible, match=r"2 backups .*\(a, b\): give fromStorage.policy"):
        by_name(_spec(), backups, [_read()])
    one = _spec(fromStorage={"storageRef": {"name": "s3"}, "backupID": ID, "policy": "weekly"})
    named = by_name(one, backups, [_read()])
    assert named.backup_ref is not None and named.backup_ref.name == "b"


def test_a_storage_that_was_not_read_yet_is_waited_for_and_one_that_was_is_not() -> None:
    with pytest.raises(NotYet, match="is being read"):
        by_name(_spec(), [], [_read(None)])
    with pytest.raises(RestoreImpossible, match="was not in BackupStorage s3 when it was read at 2026-03-01"):
        by_name(_spec(), [_backup(storage="other", copies=[])], [_read()])
    with pytest.raises(RestoreImpossible, match="BackupStorage s3 does not exist"):
        by_name(_spec(), [], [])


def test_without_its_policy_everything_comes_from_the_target() -> None:
    spec = _spec(target=EVERYTHING)
    policy = policy_of(spec, _backup(), "nightly", "s3")
    database, lite, data = chosen_sources(spec, policy, _backup())
    assert database.postgresql is not None and lite.sqlite is not None and data.files is not None
    assert (database.postgresql.host, database.postgresql.port, database.postgresql.ssl_mode) == ("postgres.new", 5432, "verify-full")  # fmt: skip
    assert (lite.sqlite.claim.name, lite.sqlite.path, data.files.claim.name) == ("new", "app.sqlite", "new")


@pytest.mark.parametrize(("target", "missing"), [
    ({}, "give target.postgresql.host, target.postgresql.database, target.postgresql.credentialsSecretRef, target.claim, target.path, or"),
    ({**EVERYTHING, "path": None}, "give target.path, or"),
    ({**EVERYTHING, "claim": None}, "give target.claim, or"),
    ({**EVERYTHING, "postgresql": {"database": "edna"}}, "give target.postgresql.host, target.postgresql.credentialsSecretRef, or"),
])  # fmt: skip
def test_one_error_names_all_that_the_target_does_not_say(target: Object, missing: str) -> None:
    with pytest.raises(RestoreImpossible) as refused:
        policy_of(_spec(target=target), _backup(), "nightly", "s3")
    assert missing in str(refused.value) and refused.value.reason == "PolicyNotFound"


def test_only_for_what_is_restored_must_the_target_say_something() -> None:
    spec = _spec(target={"claim": {"name": "new"}}, paths=["results"])
    [files] = policy_of(spec, _backup(), "nightly", "s3").sources
    assert files.name == "data"
    assert [each.name for each in chosen_sources(spec, policy_of(spec, _backup(), "n", "s3"), _backup())] == [
        "data"
    ]


@pytest.mark.parametrize(("more", "artifacts", "reason"), [
    ({"sources": ["nobody"]}, {"db": "postgresql"}, "SourceNotInBackup"),
    ({"paths": ["x"]}, {"db": "postgresql"}, "SourceNotInBackup"),
    ({}, {}, "PolicyNotFound"),
    ({}, {"one": "postgresql", "two": "postgresql"}, "TargetInvalid"),
    ({}, {"one": "files", "two": "files"}, "TargetInvalid"),
    ({}, {"../../etc": "files"}, "BackupNotUsable"),
    ({}, {"x": "unheard-of"}, "BackupNotUsable"),
])  # fmt: skip
def test_what_cannot_be_restored_is_refused_before_anything_is_touched(
    more: Object, artifacts: Object, reason: str
) -> None:
    with pytest.raises(RestoreImpossible) as refused:
        policy_of(_spec(target=EVERYTHING, **more), _backup(artifacts=artifacts), "nightly", "s3")
    assert refused.value.reason == reason


@pytest.mark.parametrize(("spec", "taken"), [
    ({"fromStorage": {"storageRef": {"name": "s3"}, "backupID": ID}}, True),
    ({"fromStorage": {"storageRef": {"name": "s3"}, "backupID": ID}, "backupRef": {"name": "x"}}, False),
    ({}, False),
])  # fmt: skip
def test_a_request_names_one_backup_and_says_so(spec: Object, taken: bool) -> None:
    from cel import Context, evaluate

    schema = crd(RESTORE)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    [rule] = [each for each in schema["x-kubernetes-validations"] if "names one backup" in each["message"]]
    assert evaluate(rule["rule"], Context({"self": spec})) is taken


def test_the_id_of_a_backup_is_one_that_storage_knows() -> None:
    assert names.parse_backup_id(ID)[0] == "full"
