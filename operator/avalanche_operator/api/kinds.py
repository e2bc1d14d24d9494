"""The four kinds: their names, columns and models, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_operator.api.backup import BackupSpec, BackupStatus
from avalanche_operator.api.common import ApiModel, rule
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.api.restore import RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.api.storage import BackupStorageSpec, BackupStorageStatus


@dataclass(frozen=True)
class Kind:
    """One kind of the API."""

    kind: str
    plural: str
    short: str
    description: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[dict[str, Any], ...]
    rules: tuple[dict[str, Any], ...] = ()
    selectable: tuple[str, ...] = ()


def _column(name: str, path: str, *, kind: str = "string", wide: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "jsonPath": path, "type": kind, **({"priority": 1} if wide else {}), **more}


def _condition(kind: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = _column("Age", ".metadata.creationTimestamp", kind="date")

STORAGE = Kind(
    kind="BackupStorage",
    plural="backupstorages",
    short="bst",
    description="Where backups go: a bucket or a volume.",
    spec=BackupStorageSpec,
    status=BackupStorageStatus,
    columns=(
        _column("Ready", _condition("Ready")),
        _column("Reason", _condition("Ready", "reason")),
        _column("Backups", ".status.backupCount", kind="integer"),
        _column("Last-Sync", ".status.lastSyncTime", kind="date"),
        _column("Bucket", ".spec.s3.bucket", wide=True),
        _column("Container", ".spec.azure.container", wide=True),
        _column("GCS-Bucket", ".spec.gcs.bucket", wide=True),
        _column("Claim", ".spec.claim.name", wide=True),
        _column("Message", _condition("Ready", "message"), wide=True),
        _AGE,
    ),
)
POLICY = Kind(
    kind="BackupPolicy",
    plural="backuppolicies",
    short="bp",
    description="What is backed up, when, and where to.",
    spec=BackupPolicySpec,
    status=BackupPolicyStatus,
    columns=(
        _column("Schedule", ".status.schedule"),
        _column("Ready", _condition("Ready")),
        _column("Reason", _condition("Ready", "reason")),
        _column("Last-Success", ".status.lastSuccessfulTime", kind="date"),
        _column("Backups", ".status.backupCount", kind="integer"),
        _column("Verified", _condition("BackupsVerified"), wide=True),
        _column("Objectives", _condition("ObjectivesMet"), wide=True),
        _column("Storage", ".spec.destinations[0].storageRef.name", wide=True),
        _column("Next", ".status.nextScheduleTime", wide=True),
        _column("Message", _condition("Ready", "message"), wide=True),
        _AGE,
    ),
    rules=(
        rule(
            "self.metadata.name.size() <= 40",
            "the name of a BackupPolicy has at most 40 characters: its CronJob is named after it",
        ),
    ),
)
BACKUP = Kind(
    kind="Backup",
    plural="backups",
    short="abk",
    description="One run of a BackupPolicy, and what it left in storage.",
    spec=BackupSpec,
    status=BackupStatus,
    columns=(
        _column("Policy", ".spec.policyRef.name"),
        _column("Type", ".status.type"),
        _column("Phase", ".status.phase"),
        _column("Size", ".status.size"),
        _column("Verified", ".status.verification.status"),
        _column("Kept-By", ".status.keptBy"),
        _column("Backup-ID", ".status.backupID", wide=True),
        _column("Checksum", ".status.checksum", wide=True),
        _column("Duration", ".status.durationSeconds", kind="integer", wide=True),
        _column("Expires", ".status.expirationTime", wide=True),
        _column("Origin", ".spec.origin", wide=True),
        _column("Available", _condition("Available"), wide=True),
        _column("Reason", ".status.failureReason", wide=True),
        _AGE,
    ),
    selectable=(".spec.policyRef.name", ".spec.origin"),
)
RESTORE = Kind(
    kind="RestoreRequest",
    plural="restorerequests",
    short="rr",
    description="A backup is put back, once its plan was approved.",
    spec=RestoreRequestSpec,
    status=RestoreRequestStatus,
    columns=(
        _column("Backup", ".status.plan.backupID"),
        _column("Phase", ".status.phase"),
        _column("Plan", ".status.plan.digest", wide=True),
        _column("Reason", ".status.failureReason", wide=True),
        _column("Duration", ".status.durationSeconds", kind="integer", wide=True),
        _AGE,
    ),
)
KINDS = (STORAGE, POLICY, BACKUP, RESTORE)
