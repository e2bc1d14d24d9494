"""Encryption in the cluster: what a policy may say, and which pods see which key."""

from __future__ import annotations

from typing import Any

import cel
import pytest
from kubernetes_validate.utils import validate

from avalanche_contract.request import Request, Run
from avalanche_contract.wire import dump_request, parse_request
from avalanche_operator.api.generate import structural
from avalanche_operator.api.policy import BackupPolicySpec, PolicyCompression, PolicyEncryption
from avalanche_operator.api.restore import PinnedBackup, RestoreRequestSpec
from avalanche_operator.api.source import PolicySource
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import backup_job, cron_job, probe_job
from avalanche_operator.jobs.build import Placement, job
from avalanche_operator.restores.build import Prepared, execute_job, plan_job
from tests.unit.operator.objects import DATABASE, S3_SPEC, SETTINGS, applied, found, policy_spec

Object = dict[str, Any]
RECIPIENT = "age1v9we6u3eyt9vzjqmmnl4tx3gxehkqd0gvk7pgkrzkugrq4nyyfcstn4rxm"
PRIVATE = "AGE-SECRET-KEY-1QQPQYRSZQFQGG"
ENCRYPTION: Object = {"recipientsSecretRef": {"name": "age"}, "identitySecretRef": {"name": "age"}}


def _refusals(schema: Object, value: Any) -> list[str]:
    """Give the sentences of every rule that does not hold, as the API server would after its defaults."""
    told = [each["message"] for each in schema.get("x-kubernetes-validations", ()) if not cel.evaluate(each["rule"], {"self": value})]  # fmt: skip
    if isinstance(value, dict):
        for name, each in value.items():
            told += _refusals(schema["properties"][name], each)
    if isinstance(value, list):
        told += [sentence for each in value for sentence in _refusals(schema["items"], each)]
    return told


@pytest.mark.parametrize(("value", "sentence"), [
    ({"recipients": [RECIPIENT]}, None),
    ({"recipientsSecretRef": {"name": "age"}}, None),
    ({}, "names its recipients once"),
    ({"identitySecretRef": {"name": "age"}}, "names its recipients once"),
    ({"recipients": [RECIPIENT], "recipientsSecretRef": {"name": "age"}}, "names its recipients once"),
    ({"recipients": [RECIPIENT[:-1]]}, "a recipient is the public key"),
    ({"recipients": [RECIPIENT, PRIVATE]}, "a recipient is the public key"),
])  # fmt: skip
def test_encryption_names_its_recipients_once_and_they_are_public_keys(
    value: Object, sentence: str | None
) -> None:
    told = _refusals(structural(PolicyEncryption), value)
    assert (sentence is None and told == []) or (sentence is not None and sentence in told[0])


@pytest.mark.parametrize(("algorithm", "level", "good"), [
    ("Gzip", 1, True), ("Gzip", 9, True), ("Gzip", 10, False), ("Zstd", 19, True), ("None", 1, False),
    ("Gzip", None, True), ("None", None, True),
])  # fmt: skip
def test_a_level_is_bounded_by_its_algorithm(algorithm: str, level: int | None, good: bool) -> None:
    value = {"algorithm": algorithm, **({"level": level} if level else {})}
    assert (_refusals(structural(PolicyCompression), value) == []) is good


def _files(built: Object) -> set[str]:
    """Give the keys of the Secret of this policy that a pod sees; each is optional and read-only."""
    pod = built["spec"].get("jobTemplate", built)["spec"]["template"]["spec"]
    secrets = [
        source["secret"]
        for each in pod["volumes"]
        if "projected" in each
        for source in each["projected"]["sources"]
    ]
    mounts = [each for each in pod["containers"][0]["volumeMounts"] if "/secrets/" in each["mountPath"]]
    assert all(each["optional"] for each in secrets) and all(each["readOnly"] for each in mounts)
    return {item["key"] for each in secrets if each["name"] == "age" for item in each["items"]}


def _prepared(policy: Object, **spec: Any) -> Prepared:
    pinned = PinnedBackup(
        name="first", backup_id="database_20260101_000000", type="database", storage="s3",
        prefix="edna/nightly/", policy="nightly",
    )  # fmt: skip
    wanted = {"backupRef": {"name": "first"}, **spec}
    return Prepared(
        found=found("RestoreRequest", "back", wanted),
        spec=RestoreRequestSpec.model_validate(wanted),
        backup=pinned,
        storages={"s3": BackupStorageSpec.model_validate(S3_SPEC)},
        policy=BackupPolicySpec.model_validate(policy),
        targets=(PolicySource.model_validate(DATABASE),),
        readers=(),
        locks=(),
        number=0,
        settings=SETTINGS,
    )


def test_the_pods_that_back_up_see_the_recipients_and_never_the_identity() -> None:
    policy = applied(encryption=ENCRYPTION)
    built = [
        job(backup_job(policy, policy.policy, "ab-run", Run())),
        cron_job(policy, "0 2 * * *"),
        job(probe_job(policy, 1)),
    ]
    assert [_files(each) for each in built] == [{"recipients"}] * 3
    for each in built:
        validate(each, "1.34", strict=True)


def test_the_pods_of_a_restore_see_the_identity_and_their_request_names_it() -> None:
    prepared = _prepared(policy_spec(encryption=ENCRYPTION))
    plans = [plan_job(prepared, Placement()), execute_job(prepared, Placement())]
    assert [_files(job(each)) for each in plans] == [{"identity"}] * 2
    for each in plans:
        identity = each.request.model_dump()["backup"]["identity"]
        assert identity["file"] == "/avalanche/secrets/age/identity"
        assert identity["described"] == 'key "identity" of Secret "age"'


def test_a_request_names_another_identity_than_its_policy() -> None:
    prepared = _prepared(policy_spec(), identitySecretRef={"name": "age", "key": "old"})
    assert _files(job(plan_job(prepared, Placement()))) == {"old"}


def _asked(request: Request) -> Request:
    return parse_request(dump_request(request), None)


def test_recipients_of_a_policy_are_in_its_requests_and_change_what_is_probed() -> None:
    policy = applied(encryption={"recipients": [RECIPIENT]})
    asked = _asked(backup_job(policy, policy.policy, "ab-run", Run()).request)
    assert asked.model_dump()["encryption"]["recipients"] == (RECIPIENT,)
    assert probe_job(policy, 1).name != probe_job(applied(), 1).name


def test_a_policy_without_encryption_asks_for_none() -> None:
    assert backup_job(applied(), applied().policy, "ab-run", Run()).request.model_dump()["encryption"] is None
