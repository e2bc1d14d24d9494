"""Signing in the cluster: what a policy may say, which pods see the key, and which requests name whom to trust."""

from __future__ import annotations

import json
from typing import Any

import pytest

from avalanche_contract.request import CatalogRequest, Run
from avalanche_contract.wire import dump_request, parse_request
from avalanche_operator.api.backup import BackupSpec, BackupStatus
from avalanche_operator.api.generate import structural
from avalanche_operator.api.policy import PolicySigning
from avalanche_operator.api.retention import PolicyRetention
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import backup_job, probe_job
from avalanche_operator.backups.build import Lookup, lookup_job
from avalanche_operator.jobs.build import JobPlan, Placement, job
from avalanche_operator.keeping.build import Where, cleanup_cron_job, delete_job
from avalanche_operator.restores.build import execute_job, plan_job
from avalanche_operator.verifying.build import verification_cron_job
from tests.unit.operator.objects import S3_SPEC, SETTINGS, applied, found, policy_spec
from tests.unit.operator.test_encryption import _prepared, _refusals

Object = dict[str, Any]
PUBLIC = "mWp49WgqCZwCXxuMAV6TLWNpSqwZpbeEIG4vWaPJNIA="
SIGNING: Object = {"keySecretRef": {"name": "signing"}, "trustedKeys": [PUBLIC]}


@pytest.mark.parametrize(("value", "sentence"), [
    (SIGNING, None), ({"keySecretRef": {"name": "signing"}}, None), ({"trustedKeys": [PUBLIC]}, None),
    ({}, "signing names the key that signs"), ({"trustedKeys": [PUBLIC[:-1]]}, "a trusted key is an ed25519 public key"),
    ({"trustedKeys": ["-----BEGIN PRIVATE KEY-----"]}, "a trusted key is an ed25519 public key"),
])  # fmt: skip
def test_signing_names_a_key_that_signs_or_public_keys_that_are_trusted(
    value: Object, sentence: str | None
) -> None:
    told = _refusals(structural(PolicySigning), value)
    assert (sentence is None and told == []) or (sentence is not None and sentence in told[0])


def _erasure() -> JobPlan:
    status = BackupStatus(phase="Succeeded", backup_id="files_20260301_020000", type="files", storage="s3")
    where = Where(
        (("s3", BackupStorageSpec.model_validate(S3_SPEC)),), signing=PolicySigning.model_validate(SIGNING)
    )
    spec = BackupSpec.model_validate({"policyRef": {"name": "nightly"}, "deleteRequested": True})
    return delete_job(found("Backup", "b", {}), spec, status, where, SETTINGS)


def _pods() -> dict[str, Object]:
    """Give every pod of a policy that signs."""
    policy, prepared = applied(signing=SIGNING), _prepared(policy_spec(signing=SIGNING))
    keep = PolicyRetention.model_validate({"keepDaily": 1})
    return {
        "backup": job(backup_job(policy, policy.policy, "ab-run", Run())),
        "probe": job(probe_job(policy, 1)),
        "plan": job(plan_job(prepared, Placement())),
        "execute": job(execute_job(prepared, Placement())),
        "cleanup": cleanup_cron_job(policy, keep, "0 5 * * *", ()),
        "verify": verification_cron_job(policy, "0 6 * * *", ()),
        "erase": job(_erasure()),
    }


def test_the_key_that_signs_is_mounted_into_the_pods_that_back_up_or_remove_alone() -> None:
    seen = [name for name, built in _pods().items() if "signing.pem" in json.dumps(built)]
    assert seen == ["backup", "cleanup", "erase"]


def test_whatever_reads_backups_or_removes_them_is_told_whom_to_trust() -> None:
    told = {name for name, built in _pods().items() if PUBLIC in json.dumps(built)}
    assert told >= {"backup", "plan", "execute", "cleanup", "verify"}


def test_a_run_whose_result_was_lost_is_looked_for_among_what_is_trusted() -> None:
    signing = PolicySigning.model_validate(SIGNING)
    spec = BackupStorageSpec.model_validate(S3_SPEC)
    backup = found("Backup", "nightly-1", {"policyRef": {"name": "nightly"}})
    for given, trusted in ((signing, (PUBLIC,)), (None, None)):
        where = Lookup("s3", spec, "edna/nightly/", Placement(), signing=given)
        request = lookup_job(backup, where, "scheduled/x/1", SETTINGS, 1).request
        assert isinstance(request, CatalogRequest) and request.storage.trusted_keys == trusted


def test_a_policy_without_signing_trusts_as_before() -> None:
    request = backup_job(applied(), applied().policy, "ab-run", Run()).request
    asked = parse_request(dump_request(request), None).model_dump()
    assert asked["signing_key"] is None and asked["destinations"][0]["storage"]["trusted_keys"] is None
