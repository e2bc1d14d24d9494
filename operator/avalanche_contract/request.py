"""What the control plane (or the command line) asks of the data plane: one document per run.

A request holds no secret, only where to read one, so that a CronJob's template is complete in itself. It
names paths as the container sees them: the data plane needs to know nothing of claims and Secrets.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from avalanche_contract.base import Credential, Strict, Time
from avalanche_contract.expectation import check_expectation
from avalanche_contract.names import BACKUP_TYPES, BackupType
from avalanche_contract.notification import Event, Notifications
from avalanche_contract.source import Source
from avalanche_contract.storage import Place, Storage

CONTRACT_VERSION = 1
COPIES_MAX = 8
"""How many places one backup may lie in."""


# --- the parts of requests -----------------------------------------------------------------------------
class Compression(Strict):
    """How artifacts are compressed; ``level`` absent is the algorithm's fast default."""

    algorithm: Literal["Gzip", "Zstd", "None"] = "Gzip"
    level: int | None = None


class Encryption(Strict):
    """To whom artifacts are encrypted, by age. Public keys alone: what opens a backup is not in the request that makes it."""

    recipients: tuple[str, ...] = ()
    """``age1…``. Just one of both is given."""
    recipients_file: Credential | None = None
    """A file of recipients, one a line, as ``age -R`` reads it."""


class Anomaly(Strict):
    """When a backup is suspect although nothing failed: what was emptied always is."""

    max_shrink_percent: int = Field(default=50, ge=0, le=100)
    """How much less than the median of the last verified backups is taken for normal; 100 compares no amounts."""


class Writer(Strict):
    """Who writes: goes into ``owner.json`` and into the metadata. Empty strings standalone."""

    cluster_uid: str = Field(default="", alias="clusterUID")
    namespace: str = ""
    policy: str = ""
    policy_uid: str = Field(default="", alias="policyUID")
    take_over: str | None = None
    """The UID of the cluster that a folder may belong to as well: the next backup makes it this one's."""


class Run(Strict):
    """Which run this is: ``backup_uid`` for a manual one, else the Job's name says it."""

    cron_job: str | None = None
    backup_uid: str | None = Field(default=None, alias="backupUID")
    created_time: Time | None = None
    """Of the Backup object: the second that a manual run is named by, the same in every attempt."""


class BackupReference(Strict):
    """One backup in one storage."""

    place: Place
    backup_type: BackupType
    backup_id: str = Field(alias="backupID")
    identity: Credential | None = None
    """A file of age identities, one a line, as ``age -i`` reads it: what opens the backup where it is encrypted."""


Strategy = Literal["Swap", "InPlace"]
"""How a restore brings data back: beside the target, which then changes places with it; or into what is there."""


class RestoreTarget(Strict):
    """One artifact of the backup, by its source's name, and where it goes."""

    artifact: str
    target: Source
    paths: tuple[str, ...] = ()
    """A part of a files backup; empty is all of it."""


# --- the requests --------------------------------------------------------------------------------------
class _Request(Strict):
    contract_version: Literal[1] = 1
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    """Marks our lines in a log that children and file names write to as well."""
    scratch: str = "/avalanche/scratch"


class BackupRequest(_Request):
    """Back the sources up, as one backup, to every destination at once; the same ID and the same bytes in each."""

    verb: Literal["backup"] = "backup"
    writer: Writer = Writer()
    run: Run = Run()
    backup_type: BackupType
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    destinations: Annotated[tuple[Place, ...], Field(min_length=1, max_length=COPIES_MAX)]
    """In the order in which they are committed."""
    min_copies: Annotated[int, Field(ge=1, le=COPIES_MAX)] | None = None
    """How many must be committed for a success; absent: all."""
    compression: Compression = Compression()
    encryption: Encryption | None = None
    anomaly: Anomaly | None = None
    """Absent: as it is by itself."""
    signing_key: Credential | None = None
    """A private ed25519 key in PEM, which signs the metadata; absent: it is not signed."""
    notifications: Notifications | None = None
    """Absent: nobody is told."""

    @model_validator(mode="after")
    def _check_copies(self) -> Self:
        if len({each.storage.name for each in self.destinations}) < len(self.destinations):
            raise ValueError("two destinations have one name")
        if self.min_copies is not None and self.min_copies > len(self.destinations):
            raise ValueError("minCopies is larger than the number of destinations")
        return self


class Rotation(Strict):
    """Which backups of a place are read: those first that were not verified for longest, until a limit is reached."""

    place: Place
    writer: Writer = Writer()
    """Whose backups they are: a folder of somebody else's is left alone."""
    max_backups: int = Field(default=7, ge=1)
    max_bytes: int | None = Field(default=None, ge=1)
    """Stored bytes, once for each backup, however many copies are read; one backup is read at least."""


class VerifyRequest(_Request):
    """Read every copy of one backup, or of several, whole, and compare it with its metadata."""

    verb: Literal["verify"] = "verify"
    backup: BackupReference | Rotation
    """One, or several: then what is found of each is a line of the log."""
    others: Annotated[tuple[Place, ...], Field(max_length=COPIES_MAX - 1)] = ()
    """Where further copies belong."""
    heal: bool = False
    """Make a copy that is missing or damaged anew, from a good one."""
    notifications: Notifications | None = None
    """Absent: nobody is told."""


class Newest(Strict):
    """The newest backup that is known to be good, in whichever place has it."""

    backup_types: Annotated[tuple[BackupType, ...], Field(min_length=1)] = BACKUP_TYPES
    places: Annotated[tuple[Place, ...], Field(min_length=1, max_length=COPIES_MAX)]
    writer: Writer = Writer()
    """Whose backups they are: a folder of somebody else's is left alone."""
    identity: Credential | None = None
    """What opens the backup where it is encrypted."""


class Query(Strict):
    """A question to a restored database, and what its single value must be (:mod:`expectation`)."""

    source: str | None = None
    """Which database of the backup; absent: the only one."""
    sql: Annotated[str, Field(min_length=1, max_length=4096)]
    expect: Annotated[str, AfterValidator(check_expectation), Field(max_length=1024)] | None = None
    """Absent: any answer will do, and is told."""


class DrillRequest(_Request):
    """Restore one backup into throwaway targets, look at what came back, and leave nothing behind."""

    verb: Literal["drill"] = "drill"
    backup: BackupReference | Newest
    queries: Annotated[tuple[Query, ...], Field(max_length=100)] = ()
    query_seconds: int = Field(default=60, ge=1, le=3600)
    """How long one question may take."""
    superuser: bool = False
    """Restore as the superuser of the throwaway server: a dump may then run programs there."""
    scratch_bytes: int | None = Field(default=None, ge=0)
    """How much ``scratch`` may hold; absent: what its disk has room for."""
    keep: str | None = None
    """A folder in which the throwaway targets are made, and left: the servers run on."""


class CopyRequest(_Request):
    """Copy one backup from the first place that has a good copy: data first, checked on the way, metadata last."""

    verb: Literal["copy"] = "copy"
    backup_type: BackupType
    backup_id: str = Field(alias="backupID")
    sources: Annotated[tuple[Place, ...], Field(min_length=1, max_length=COPIES_MAX)]
    target: Place


class RestoreRequest(_Request):
    """Plan a restore, or carry out the plan that was approved."""

    verb: Literal["restore"] = "restore"
    mode: Literal["Plan", "Execute"]
    request_uid: str = Field(default="", alias="requestUID")
    plan_number: int = Field(default=0, ge=0)
    """How many plans of this request were made before: each asks for an approval of its own."""
    cluster_uid: str = Field(default="", alias="clusterUID")
    backup: BackupReference
    targets: Annotated[tuple[RestoreTarget, ...], Field(min_length=1)]
    strategy: Strategy | None = None
    """Absent: what suits each target, and is possible there; the plan says which."""
    keep_previous: bool = False
    """What was there stays aside, for one undo. Only a Swap can."""
    approved_plan: str | None = None
    locks: tuple[Place, ...] = ()
    """Places whose policies read the targets: a lock lies there while the restore runs."""

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        if self.keep_previous and self.strategy == "InPlace":
            raise ValueError("keepPrevious needs a Swap: a restore in place leaves nothing aside")
        return self


class UndoRequest(_Request):
    """Plan to take a restore back, or do so: what it kept aside takes the place of what it brought."""

    verb: Literal["undo"] = "undo"
    mode: Literal["Plan", "Execute"]
    request_uid: str = Field(default="", alias="requestUID")
    plan_number: int = Field(default=0, ge=0)
    cluster_uid: str = Field(default="", alias="clusterUID")
    restore_uid: str = Field(default="", alias="restoreUID")
    """Of the RestoreRequest that is taken back; empty: whichever kept something at the targets."""
    targets: Annotated[tuple[Source, ...], Field(min_length=1)]
    approved_plan: str | None = None
    locks: tuple[Place, ...] = ()
    """Places whose policies read the targets: a lock lies there meanwhile."""


class ProbeRequest(_Request):
    """Find out whether a storage and sources are usable. Writes one small object to the storage, once."""

    verb: Literal["probe"] = "probe"
    storage: Storage | None = None
    read_only: bool = False
    sources: tuple[Source, ...] = ()
    places: Annotated[tuple[Place, ...], Field(max_length=COPIES_MAX)] = ()
    """Where a policy will write: its ``owner.json`` is checked in each."""
    writer: Writer = Writer()
    encryption: Encryption | None = None
    """Its recipients are read and parsed."""


class Retention(Strict):
    """How many representatives of each kind of period stay; 0 is none of that kind."""

    keep_last: int = Field(default=0, ge=0)
    keep_daily: int = Field(default=0, ge=0)
    keep_weekly: int = Field(default=0, ge=0)
    keep_monthly: int = Field(default=0, ge=0)
    keep_yearly: int = Field(default=0, ge=0)


class CleanupRequest(_Request):
    """Remove what retention does not keep, and what dead attempts left behind, in every place of one policy."""

    verb: Literal["cleanup"] = "cleanup"
    place: Place
    others: Annotated[tuple[Place, ...], Field(max_length=COPIES_MAX - 1)] = ()
    """Where further copies lie: what is held in one place stays in all."""
    writer: Writer = Writer()
    retention: Retention | None = None
    """Absent: everything stays that did not expire."""
    time_zone: str = "Etc/UTC"
    max_delete_percent: int = Field(default=50, ge=0, le=100)
    """More than that share is not removed at once; 100 is no limit."""
    orphan_seconds: int = Field(default=86400, ge=86400)
    """Objects that nothing names are removed when they are older: longer than any run takes."""
    signing_key: Credential | None = None
    """A private ed25519 key in PEM, which signs tombstones; absent: they are not signed."""
    dry_run: bool = False


class HoldRequest(_Request):
    """Say beside one backup what keeps it, or until when it stays; what is not given stays as it was."""

    verb: Literal["hold"] = "hold"
    backup: BackupReference
    others: Annotated[tuple[Place, ...], Field(max_length=COPIES_MAX - 1)] = ()
    """Where further copies may lie."""
    writer: Writer = Writer()
    held: bool | None = None
    expiration_time: Time | None = None
    never_expires: bool = False
    """Take an expiration away that was set before."""
    accept_anomaly: bool | None = None
    """A backup that looks wrong is right: retention counts it again."""


class DeleteRequest(_Request):
    """Erase one backup, whatever retention says; one that is held is refused."""

    verb: Literal["delete"] = "delete"
    backup: BackupReference
    others: Annotated[tuple[Place, ...], Field(max_length=COPIES_MAX - 1)] = ()
    """Where further copies may lie: all of them go."""
    writer: Writer = Writer()
    signing_key: Credential | None = None
    """As of a cleanup."""


class CatalogRequest(_Request):
    """List what is in a storage, as pages of entries in the log."""

    verb: Literal["catalog"] = "catalog"
    storage: Storage
    prefixes: tuple[str, ...] = ()
    """Folders ``<namespace>/<policy>/`` to read; empty is every one beneath the root."""
    within: str | None = None
    """Where no folders are named: only those whose name begins with this, ``<namespace>/``."""
    run_identity: str | None = None
    """Only the backup of this run."""
    trusted_keys: dict[str, tuple[str, ...]] | None = None
    """By folder: the public keys of which one must have signed what is believed there. Absent: nothing need be."""
    after: str = ""
    """The cursor of the page before: the answer's ``next_cursor``."""
    limit: int = Field(default=500, ge=1, le=500)


class NotifyRequest(_Request):
    """Tell what only the control plane saw: tries that ran out, a pod that was lost, a slot that was missed."""

    verb: Literal["notify"] = "notify"
    notifications: Notifications
    writer: Writer = Writer()
    event: Event
    backup_type: BackupType
    reason: str
    message: str
    backup: str = ""
    """The name of the Backup object, where there is one."""
    run_identity: str = ""
    time: Time


Request = Annotated[
    BackupRequest
    | VerifyRequest
    | CopyRequest
    | RestoreRequest
    | UndoRequest
    | ProbeRequest
    | CatalogRequest
    | NotifyRequest
    | CleanupRequest
    | HoldRequest
    | DeleteRequest
    | DrillRequest,
    Field(discriminator="verb"),
]
