"""What the data plane answers: the container's termination message, at most 4,096 bytes of JSON.

The kubelet keeps the last bytes of a longer message, which would no longer be JSON: so ``message`` is cut
here, on a character's border, until the whole fits. Longer answers are pages in the log (:mod:`log`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from avalanche_contract.base import Lenient, Time
from avalanche_contract.names import BackupType
from avalanche_contract.notification import Told

RESULT_MAX_BYTES = 4096

VerificationStatus = Literal["Verified", "NotVerified", "VerificationFailed"]
Verdict = Literal["Succeeded", "Suspect", "Failed", "Skipped", "Refused"]


class Artifact(Lenient):
    """One stored object of a backup: the sizes in bytes, the checksums as ``sha256:<hex>``."""

    source: str
    kind: str
    object: str
    """The object's key beneath the storage's root."""
    size_bytes: int
    checksum: str
    source_bytes: int
    source_checksum: str
    entries: int | None = None


class Copy(Lenient):
    """How one backup is in one place: ``Verified`` there, damaged (``VerificationFailed``), or not there for us (``NotVerified``)."""

    storage: str
    location: str = ""
    """For a person: where its metadata lies, or would."""
    status: VerificationStatus
    reason: str = ""
    """Of a copy that is not good: CamelCase. ``Healed`` where it was made anew just now."""
    message: str = ""
    checksum: str = ""
    verified_time: Time | None = None

    @property
    def brief(self) -> Copy:
        """Leave what fits into a termination message however many copies there are."""
        return Copy(storage=self.storage, status=self.status, reason=self.reason)


class Entry(Lenient):
    """One committed backup, as the catalog tells it."""

    backup_id: str = Field(alias="backupID")
    backup_type: BackupType
    run_identity: str
    namespace: str = ""
    policy: str = ""
    policy_uid: str = Field(default="", alias="policyUID")
    prefix: str = ""
    start_time: Time
    completion_time: Time
    snapshot_time: Time
    size_bytes: int
    source_bytes: int
    checksum: str
    compression: str = "Gzip"
    status: Literal["Succeeded", "Suspect"]
    reason: str = ""
    """Of a suspect one: CamelCase."""
    anomaly_accepted: bool = False
    """Of a suspect one: a person has said that it is right."""
    message: str = ""
    location: str = ""
    """Where it lies, for a person: ``s3://bucket/prefix/database/database_…_metadata.json``."""
    artifacts: tuple[Artifact, ...] = ()
    warnings: tuple[str, ...] = ()
    verified_time: Time | None = None
    verification: VerificationStatus = "NotVerified"
    distrust: str = ""
    """Why it is not believed where only signed backups are trusted; empty where it is."""
    copies: tuple[Copy, ...] = ()
    """How it is in each place that was asked for; empty where only one was looked at."""


class Unreadable(Lenient):
    """A metadata file that says nothing: damaged, or of another policy than its folder. Shown, never counted."""

    key: str
    message: str


class Checked(Lenient):
    """What a verification found of one backup: ``Verified`` where one copy is whole; ``NotVerified`` says nothing of it."""

    backup_id: str = Field(alias="backupID")
    status: VerificationStatus
    reason: str
    message: str = ""
    verified_time: Time | None = None
    copies: tuple[Copy, ...] = ()
    """How it is in each place that was looked at."""


class Drilled(Lenient):
    """What a drill came to: one backup, restored into a throwaway target and looked at there."""

    backup_id: str = Field(alias="backupID")
    storage: str
    """The place that it was read from."""
    time: Time
    """When it ended."""
    succeeded: bool
    reason: str
    message: str = ""
    duration_seconds: float
    restore_seconds: float = 0
    """Of that, what a real restore does as well: checking what is stored, and restoring it."""
    steps: dict[str, float] = Field(default_factory=dict)
    """Seconds by ``Checking``, ``Starting``, ``Restoring``, ``Comparing``, ``Asking``."""
    asked: int = 0
    """How many questions were asked."""
    told_time: Time | None = None
    """When people were last told of the failures that this one continues; absent: they were not."""
    told_reason: str | None = None
    """Of the failure that they were told of."""


class Listed(Lenient):
    """A page of what lies in a policy's folder, in any of the storages that were looked into: nothing else does."""

    storages: tuple[str, ...]
    backup_ids: tuple[str, ...] = Field(alias="backupIDs")


class TargetPlan(Lenient):
    """What one target of a restore is, and what the restore would do to it."""

    artifact: str
    kind: str
    target: str
    """Where it goes, for a person: ``postgresql://host:5432/database``, ``/path`` of a claim."""
    state: Literal["Empty", "HoldsData", "Absent"]
    found: str
    """What is there now, in one sentence."""
    used_by: tuple[str, ...] = ()
    size_bytes: int
    source_bytes: int
    strategy: Literal["Swap", "InPlace"] = "InPlace"
    strategy_reason: str = ""
    """Why that one, where nobody asked for it."""
    action: str
    """What will be done, in one sentence."""
    warnings: tuple[str, ...] = ()
    """What a person should know before approving, each with what to do."""


class Plan(Lenient):
    """What a restore or an undo will do; ``digest`` names everything in it that an approval stands for.

    An undo reads no backup: what is said of one is empty.
    """

    digest: str
    backup_id: str = Field(default="", alias="backupID")
    backup_type: BackupType | None = None
    checksum: str = ""
    storage: str = ""
    location: str = ""
    snapshot_time: Time | None = None
    policy_uid: str = Field(default="", alias="policyUID")
    recipients: tuple[str, ...] = ()
    """The age public keys whose identities open the backup; empty where it is not encrypted."""
    anomaly: str = ""
    """Why the backup is suspect, in a sentence; empty where it is not."""
    targets: tuple[TargetPlan, ...]
    needs_approval: bool
    estimated_seconds: int | None = None


class Decision(Lenient):
    """What retention says of one backup, and why: ``daily-3``, ``hold``, ``no-rule``.

    One that was removed is told again, with ``removed``: a cleanup may end midway.
    """

    backup_id: str = Field(alias="backupID")
    verdict: Literal["Keep", "Remove"]
    reasons: tuple[str, ...]
    removed: bool = False
    held: bool = False
    expiration_time: Time | None = None


class Mark(Lenient):
    """What a person said of a backup, as it lies beside its metadata."""

    held: bool = False
    expiration_time: Time | None = None
    anomaly_accepted: bool = False


class ProbeResult(Lenient):
    """What a probe found out about a storage."""

    storage_id: str = Field(default="", alias="storageID")
    conditional_writes: bool = True
    clock_skew_seconds: int = 0
    server_versions: dict[str, str] = Field(default_factory=dict)
    """By the name of a source: ``PostgreSQL 17.6``."""


class Result(Lenient):
    """The verdict of one container. ``reason`` is CamelCase, ``message`` a sentence for people."""

    contract_version: int = 1
    nonce: str
    verb: str
    verdict: Verdict
    reason: str
    message: str
    backup_id: str | None = Field(default=None, alias="backupID")
    run_identity: str | None = None
    start_time: Time | None = None
    completion_time: Time | None = None
    snapshot_time: Time | None = None
    size_bytes: int | None = None
    source_bytes: int | None = None
    checksum: str | None = None
    verified_time: Time | None = None
    copies: tuple[Copy, ...] = ()
    """Name, status and reason alone: the rest is in the log."""
    may_be_committed: bool = False
    """Of a failure: it came while the metadata was being written, so that only the storage knows."""
    plan_digest: str | None = None
    notified: bool | None = None
    """Whether everybody was told who should be; absent where there was nothing to tell."""
    notification: Told | None = None
    probe: ProbeResult | None = None
    mark: Mark | None = None
    """What is now written beside the backup: the answer to ``hold``."""
    entry_count: int | None = None
    """How many entries the log holds, so that a reader knows that it read them all."""
    next_cursor: str | None = None
    """Where the next page of a catalog begins; absent on the last one."""


def dump_result(result: Result) -> str:
    """Write a result in at most :data:`RESULT_MAX_BYTES` bytes, shortening ``message`` where it must."""
    text = _encode(result)
    excess = len(text.encode()) - RESULT_MAX_BYTES
    while excess > 0 and result.message:
        kept = result.message.encode()[: max(0, len(result.message.encode()) - excess - 4)]
        shorter = kept.decode(errors="ignore")
        result = result.model_copy(update={"message": f"{shorter}…" if shorter else ""})
        text = _encode(result)
        excess = len(text.encode()) - RESULT_MAX_BYTES
    return text


def _encode(result: Result) -> str:
    return result.model_dump_json(by_alias=True, exclude_none=True)


def parse_result(text: str, nonce: str) -> Result | None:
    """Read a termination message; ``None`` when it is no result of this request."""
    try:
        result = Result.model_validate_json(text)
    except ValueError:
        return None
    return result if result.nonce == nonce and result.contract_version == 1 else None
