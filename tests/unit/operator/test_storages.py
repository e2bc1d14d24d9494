"""From a BackupStorage of each backend to the request, the mounts and the identity of a pod."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_contract.storage import AzureStorage, GcsStorage, S3Storage
from avalanche_operator.api.generate import crd, structural
from avalanche_operator.api.kinds import STORAGE
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import IdentitiesDiffer, job
from avalanche_operator.jobs.mounts import Identity, Mounts, SecretMount, storage_part
from tests.unit.operator.objects import S3_SPEC, plan
from tests.unit.operator.test_encryption import _refusals

Object = dict[str, Any]
SECRET = {"credentialsSecretRef": {"name": "keys"}}
AZURE = {"azure": {"container": "backups", "accountName": "avalanche", "prefix": "edna"}}
GCS = {"gcs": {"bucket": "backups", "projectID": "edna-1", "caSecretRef": {"name": "authority"}}}
S3 = {"s3": {"bucket": "backups"}}


def part(spec: Object) -> tuple[Any, Mounts]:
    return storage_part("store", BackupStorageSpec.model_validate(spec))


@pytest.mark.parametrize(("spec", "keys"), [
    (S3, ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")),
    (AZURE, ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY")),
    ({"gcs": {"bucket": "backups"}}, ("GOOGLE_APPLICATION_CREDENTIALS_JSON",)),
], ids=["s3", "azure", "gcs"])  # fmt: skip
def test_the_keys_of_a_secret_are_mounted_and_named(spec: Object, keys: tuple[str, ...]) -> None:
    storage, mounts = part({**spec, **SECRET})
    assert mounts == Mounts(secrets=(SecretMount("keys", keys),))
    text = storage.model_dump_json()
    assert all(f"/avalanche/secrets/keys/{key}" in text for key in keys)


def test_every_field_of_azure_reaches_the_request() -> None:
    storage, _ = part({**AZURE, **SECRET})
    assert isinstance(storage, AzureStorage)
    assert (storage.container, storage.prefix, storage.account_name) == ("backups", "edna/", "avalanche")


def test_every_field_of_google_reaches_the_request() -> None:
    storage, mounts = part(GCS)
    assert isinstance(storage, GcsStorage) and storage.credentials is None
    assert (storage.project_id, storage.ca_file) == ("edna-1", "/avalanche/secrets/authority/ca.crt")
    assert mounts.secrets == (SecretMount("authority", ("ca.crt",)),)


def test_a_single_writer_is_said_only_where_it_was_accepted() -> None:
    accepted, _ = part({**S3, "conditionalWrites": "SingleWriterAccepted"})
    required, _ = part(S3)
    assert isinstance(accepted, S3Storage) and (accepted.single_writer, required.single_writer) == (
        True,
        None,
    )


@pytest.mark.parametrize(
    ("spec", "label"), [(S3, None), (AZURE, "true"), (GCS, None)], ids=["s3", "azure", "gcs"]
)
def test_a_pod_with_an_identity_runs_as_its_account_and_mounts_no_token(
    spec: Object, label: str | None
) -> None:
    _, mounts = part({**spec, "serviceAccountName": "backup"})
    built = job(plan(mounts=mounts))["spec"]["template"]
    assert built["spec"]["serviceAccountName"] == "backup"
    assert built["spec"]["automountServiceAccountToken"] is False
    assert built["metadata"]["labels"].get("azure.workload.identity/use") == label


def test_a_pod_without_an_identity_has_no_account_of_ours() -> None:
    assert "serviceAccountName" not in job(plan())["spec"]["template"]["spec"]


def test_two_identities_in_one_pod_are_refused_with_their_names() -> None:
    both = Mounts(identities=(Identity("one"),)) + Mounts(identities=(Identity("two"),))
    with pytest.raises(IdentitiesDiffer, match="one pod cannot run as one and two"):
        job(plan(mounts=both))


def _messages(spec: Object) -> list[str]:
    """Give what the rules of the kind say of a spec, by an engine of CEL."""
    from cel import Context, evaluate

    schema = crd(STORAGE)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return [
        rule["message"]
        for rule in schema["x-kubernetes-validations"]
        if not evaluate(rule["rule"], Context({"self": spec}))
    ]


@pytest.mark.parametrize(("spec", "message"), [
    ({**S3, **AZURE}, "exactly one backend"),
    ({}, "exactly one backend"),
    ({"claim": {"name": "v"}, "serviceAccountName": "a"}, "a claim needs no serviceAccountName"),
    ({**S3, **SECRET, "serviceAccountName": "a"}, "not both"),
    ({"azure": {"container": "backups"}}, "azure needs accountName"),
    ({**GCS, "conditionalWrites": "SingleWriterAccepted"}, "only s3 may do without"),
])  # fmt: skip
def test_a_bad_storage_is_refused_with_a_sentence(spec: Object, message: str) -> None:
    assert any(message in each for each in _messages(spec))


@pytest.mark.parametrize("spec", [
    {**S3, "conditionalWrites": "SingleWriterAccepted"}, {**AZURE, "serviceAccountName": "a"}, GCS,
    {"azure": {"container": "backups"}, **SECRET}, {"claim": {"name": "v"}, "conditionalWrites": "Required"},
])  # fmt: skip
def test_a_good_storage_is_accepted(spec: Object) -> None:
    assert _messages(spec) == []


@pytest.mark.parametrize(("more", "sentence"), [
    ({"pruneServiceAccountName": "pruner"}, None),
    ({"pruneServiceAccountName": "pruner", "pruneCredentialsSecretRef": {"name": "pruner"}}, "what may delete has keys in"),
    ({"s3": None, "credentialsSecretRef": None, "claim": {"name": "backups"}, "pruneServiceAccountName": "pruner"},
     "a claim needs no pruneServiceAccountName"),
])  # fmt: skip
def test_what_may_delete_is_a_key_or_an_identity_and_a_claim_needs_none(
    more: Object, sentence: str | None
) -> None:
    spec = {name: value for name, value in {**S3_SPEC, **more}.items() if value is not None}
    told = _refusals(structural(BackupStorageSpec), spec)
    assert (sentence is None and told == []) or (sentence is not None and sentence in told[0])
