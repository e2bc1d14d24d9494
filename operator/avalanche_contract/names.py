"""Names that both planes must derive alike: labels, environment, mount paths, objects, backup IDs.

Everything here is pure and stable: a name written into a cluster or a bucket years ago must still be read.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Literal, get_args

GROUP = "avalanche.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "avalanche-operator"

# --- labels and annotations on what the operator creates -------------------------------------------------
LABEL_NAME = "app.kubernetes.io/name"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_OWNER_KIND = f"{GROUP}/owner-kind"
LABEL_OWNER_UID = f"{GROUP}/owner-uid"
LABEL_POLICY = f"{GROUP}/policy"
LABEL_POLICY_UID = f"{GROUP}/policy-uid"
LABEL_VERB = f"{GROUP}/verb"
APP_NAME = "avalanche-backup"
ANNOTATION_OWNER = f"{GROUP}/owner"
"""The name of the resource that a Job works for; a label's value would be too short for it."""
ANNOTATION_RELEASED = f"{GROUP}/released"
"""On the Job of a restore that was let go: it is never let go a second time."""
ANNOTATION_FORGOTTEN = f"{GROUP}/backup-forgotten"
"""On the Job of a run whose Backup object we deleted, with its phase: it does not come back."""

# --- environment of the backup container -----------------------------------------------------------------
ENV_REQUEST = "AVALANCHE_REQUEST"
ENV_REQUEST_SHA256 = "AVALANCHE_REQUEST_SHA256"
ENV_JOB_NAME = "AVALANCHE_JOB_NAME"
ENV_JOB_UID = "AVALANCHE_JOB_UID"
REQUEST_MAX_BYTES = 96 * 1024
"""Linux caps one environment string at 128 KiB; the rest is room for escapes."""

# --- paths inside the backup container -------------------------------------------------------------------
CONTAINER = "backup"
TERMINATION_LOG = PurePosixPath("/dev/termination-log")
MOUNT_ROOT = PurePosixPath("/avalanche")
SCRATCH = MOUNT_ROOT / "scratch"

POLICY_NAME_MAX = 40


def source_mount(source: str) -> PurePosixPath:
    """Give the folder at which the claim of a source is mounted."""
    return MOUNT_ROOT / "sources" / source


def storage_mount(storage: str) -> PurePosixPath:
    """Give the folder at which the claim of a storage is mounted."""
    return MOUNT_ROOT / "storage" / storage


def secret_file(secret: str, key: str) -> PurePosixPath:
    """Give the file in which the kubelet shows one key of a Secret."""
    return MOUNT_ROOT / "secrets" / secret / key


# --- children ------------------------------------------------------------------------------------------
def child_name(owner: str, *identity: str) -> str:
    """Name a child as ``ab-<owner, at most 34>-<8 hex of what it is>``: at most 46 characters.

    A CronJob's name may have 52 and its Jobs add eleven; the hash keeps two owners whose first 34 characters
    agree apart. ``identity`` is what makes the child this one: kind, owner's name or UID, verb, attempt.
    """
    digest = hashlib.sha256("/".join((owner, *identity)).encode()).hexdigest()[:8]
    stem = re.sub(r"[^a-z0-9-]", "-", owner.lower())[:34].strip("-")
    return f"ab-{stem}-{digest}" if stem else f"ab-{digest}"


_SLOT = re.compile(r"-(\d{7,9})$")


def slot_of_job(job_name: str, cron_job_name: str) -> datetime | None:
    """Read the scheduled slot from the name that the CronJob controller gave a Job.

    The controller names Jobs ``<cronjob>-<minutes since the epoch>``. ``None`` for any other Job, such as one
    of ``kubectl create job --from``.
    """
    found = _SLOT.search(job_name)
    if found is None or job_name[: found.start()] != cron_job_name:
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=int(found.group(1)))


def job_of_slot(cron_job_name: str, slot: datetime) -> str:
    """Give the name that the CronJob controller gives the Job of a slot."""
    return f"{cron_job_name}-{int(slot.timestamp()) // 60}"


# --- backups -------------------------------------------------------------------------------------------
BackupType = Literal["database", "files", "full"]
BACKUP_TYPES: tuple[BackupType, ...] = get_args(BackupType)

_BACKUP_ID = re.compile(r"^(database|files|full)_(\d{8}_\d{6})$")


def backup_id(backup_type: BackupType, moment: datetime) -> str:
    """Name a backup by its type and second, in UTC: ``database_20241122_020000``."""
    return f"{backup_type}_{moment.astimezone(UTC):%Y%m%d_%H%M%S}"


def parse_backup_id(text: str) -> tuple[BackupType, datetime]:
    """Read a backup's type and second from its ID.

    :raises ValueError: the text is not a backup ID.
    """
    found = _BACKUP_ID.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not a backup ID such as database_20241122_020000")
    moment = datetime.strptime(found.group(2), "%Y%m%d_%H%M%S").replace(tzinfo=UTC)
    backup_type: BackupType = next(known for known in BACKUP_TYPES if known == found.group(1))
    return backup_type, moment


def backup_object_name(policy: str, moment: datetime) -> str:
    """Name the Backup object of a run: ``<policy>-<yyyymmddhhmmss>``, in UTC."""
    return f"{policy}-{moment.astimezone(UTC):%Y%m%d%H%M%S}"


def metadata_key(prefix: str, backup_id: str) -> str:
    """Give the key of a backup's metadata beneath the root of a storage.

    :raises ValueError: that is no backup ID.
    """
    return f"{prefix}{parse_backup_id(backup_id)[0]}/{backup_id}_metadata.json"


def policy_prefix(namespace: str, policy: str) -> str:
    """Give the folder of a policy's backups beneath the root of a storage."""
    return f"{namespace}/{policy}/"


def switch_id(request_uid: str) -> str:
    """Give the mark by which what a restore makes beside its target, and keeps aside, is known: eight hex digits."""
    return hashlib.sha256(request_uid.encode()).hexdigest()[:8]
