"""Specs and objects that the operator's tests share."""

from __future__ import annotations

from typing import Any

from avalanche_contract.request import CatalogRequest
from avalanche_contract.storage import DirectoryStorage
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import Applied
from avalanche_operator.jobs.build import JobPlan
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.settings import Settings

Object = dict[str, Any]
UID = "6f1c9c5e-0f5e-4a57-9a0c-0b6f7b3f5a11"
SETTINGS = Settings(backup_image="localhost/backup:1", drill_image="localhost/drill:1", cluster_uid="cluster")
S3_SPEC: Object = {"s3": {"bucket": "backups"}, "credentialsSecretRef": {"name": "bucket"}}
DATABASE: Object = {
    "name": "db",
    "postgresql": {"host": "postgres", "database": "edna", "credentialsSecretRef": {"name": "database"}},
}
SQLITE: Object = {"name": "lite", "sqlite": {"claim": {"name": "state"}, "path": "app.sqlite"}}
FILES: Object = {"name": "data", "files": {"claim": {"name": "data"}, "paths": ["in", "out"]}}
MAIL: Object = {
    "name": "mail",
    "email": {
        "host": "mail.example.org",
        "credentialsSecretRef": {"name": "mail"},
        "from": "backup@example.org",
        "to": ["operators@example.org"],
    },
}
CHAT: Object = {"name": "chat", "urlsSecretRef": {"name": "chat"}, "events": ["Failed", "Missed"]}


def policy_spec(*sources: Object, **more: Any) -> Object:
    """Give the spec of a policy, as a person writes it."""
    return {
        "schedule": "0 2 * * *",
        "sources": list(sources or (DATABASE,)),
        "destinations": [{"storageRef": {"name": "s3"}}],
        **more,
    }


def found(kind: str, name: str, spec: Object, status: Object | None = None) -> Object:
    """Give an object as the API server has it."""
    meta = {
        "name": name,
        "namespace": "edna",
        "uid": UID,
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {
        "apiVersion": "avalanche.io/v1alpha1",
        "kind": kind,
        "metadata": meta,
        "spec": spec,
        "status": status or {},
    }


def applied(
    *sources: Object,
    storage: Object = S3_SPEC,
    others: tuple[tuple[str, BackupStorageSpec], ...] = (),
    **more: Any,
) -> Applied:
    """Give a policy together with its storages."""
    spec = policy_spec(*sources, **more)
    policy = found("BackupPolicy", "nightly", spec)
    return Applied(
        policy,
        BackupPolicySpec.model_validate(spec),
        "s3",
        BackupStorageSpec.model_validate(storage),
        SETTINGS,
        others=others,
    )


def plan(text: str = "edna/nightly/", **more: Any) -> JobPlan:
    """Give the plan of a small Job; ``text`` stands in its request."""
    request = CatalogRequest(
        nonce="0" * 32, storage=DirectoryStorage(name="disk", root="/x"), prefixes=(text,)
    )
    values: dict[str, Any] = {
        "name": "ab-job",
        "owner": found("BackupStorage", "disk", {}),
        "request": request,
        "mounts": Mounts(),
        "image": "localhost/backup:1",
    }
    return JobPlan(**{**values, **more})
