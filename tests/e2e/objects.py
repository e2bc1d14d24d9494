"""The objects that end-to-end tests apply: plain, small, with what a test changes as arguments."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
API_VERSION = "avalanche.io/v1alpha1"


def _custom(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def namespace(name: str, labels: dict[str, str]) -> Object:
    """Give a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def secret(name: str, **values: str) -> Object:
    """Give a Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def claim(name: str, size: str = "200Mi") -> Object:
    """Give a claim of the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }


def claim_storage(name: str, claim_name: str) -> Object:
    """Give a BackupStorage on a claim."""
    return _custom("BackupStorage", name, {"claim": {"name": claim_name}})


def s3_storage(name: str, *, bucket: str, endpoint: str, secret_name: str) -> Object:
    """Give a BackupStorage on S3."""
    s3 = {"bucket": bucket, "endpoint": endpoint, "region": "us-east-1", "forcePathStyle": True}
    return _custom("BackupStorage", name, {"s3": s3, "credentialsSecretRef": {"name": secret_name}})


def files_source(name: str, claim_name: str, **more: Any) -> Object:
    """Give a files source."""
    return {"name": name, "files": {"claim": {"name": claim_name}, "paths": ["."], **more}}


def postgresql_source(
    name: str, *, secret_name: str, host: str = "postgres", database: str = "edna", **more: Any
) -> Object:
    """Give a PostgreSQL source."""
    reference = {"name": secret_name}
    return {
        "name": name,
        "postgresql": {"host": host, "database": database, "credentialsSecretRef": reference, **more},
    }


def policy(name: str, *sources: Object, storage: str, schedule: str = "0 2 * * *", **more: Any) -> Object:
    """Give a BackupPolicy."""
    spec = {
        "schedule": schedule,
        "sources": list(sources),
        "destinations": [{"storageRef": {"name": storage}}],
        **more,
    }
    return _custom("BackupPolicy", name, spec)


def backup(name: str, policy_name: str) -> Object:
    """Give a manual Backup."""
    return _custom("Backup", name, {"policyRef": {"name": policy_name}})


def restore(name: str, backup_name: str, **more: Any) -> Object:
    """Give a RestoreRequest of one Backup."""
    return _custom("RestoreRequest", name, {"backupRef": {"name": backup_name}, **more})


def undo(name: str, restore_name: str) -> Object:
    """Give a RestoreRequest that takes another one back."""
    return _custom("RestoreRequest", name, {"undo": {"name": restore_name}})


def restricted_pod(
    name: str, image: str, command: list[str], *, claims: dict[str, str] | None = None
) -> Object:
    """Give a pod that Pod Security *restricted* admits; ``claims`` maps mount paths to claims."""
    mounts = list((claims or {}).items())
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,  # who sleeps as the first process of a pod hears no signal
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command,
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [
                        {"name": f"claim-{number}", "mountPath": path}
                        for number, (path, _) in enumerate(mounts)
                    ],
                }
            ],
            "volumes": [
                {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim_name}}
                for number, (_, claim_name) in enumerate(mounts)
            ],
        },
    }
