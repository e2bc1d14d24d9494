"""Backup: one run, scheduled or asked for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    Conditions,
    LocalReference,
    Moment,
    Name,
    Text,
    WishedMoment,
    rule,
    rules,
    unchanged,
)
from avalanche_operator.api.drill import DrillRun
from avalanche_operator.api.notification import NotificationStatus

Phase = Literal["Pending", "Running", "Verifying", "Succeeded", "Suspect", "Failed", "Skipped"]
TERMINAL: frozenset[Phase] = frozenset({"Succeeded", "Suspect", "Failed", "Skipped"})
Checksum = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]


class ScheduledJob(ApiModel):
    """The Job that a CronJob created for this run."""

    name: Name
    """The Job's name."""
    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """The Job's UID: another Job of this name is another run."""


class BackupSpec(ApiModel):
    """Which policy is run. People give ``policyRef`` alone; the operator writes the rest."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                unchanged("policyRef", "origin", "job", "runIdentity"),
                "a Backup is one run: its spec cannot change, but for hold, expirationTime, acceptAnomaly and"
                " deleteRequested; create another Backup",
            ),
            rule(
                "!(has(self.hold) && self.hold && has(self.deleteRequested) && self.deleteRequested)",
                "a Backup that is held is not erased: set hold to false first",
            ),
            rule(
                "(self.origin == 'Scheduled') == has(self.job) && (self.origin != 'Manual') == has(self.runIdentity)",
                "people give policyRef alone: job and runIdentity are the operator's, for runs of a schedule and for what"
                " it discovers",
            ),
        )
    )

    policy_ref: LocalReference
    """The BackupPolicy that is run, in the same namespace. Of a discovered backup it need not exist."""
    origin: Literal["Manual", "Scheduled", "Discovered"] = "Manual"
    """Who asked for the run. People leave it out: `Manual`. `Discovered` was found in a BackupStorage, and no object showed it."""
    job: ScheduledJob | None = None
    """The Job of a scheduled run. Written by the operator."""
    run_identity: Annotated[str, Field(max_length=256)] | None = None
    """What makes attempts of the same run one backup. Written by the operator."""
    hold: bool | None = None
    """Keep it, whatever retention says. May change; left out, what lies in storage holds."""
    expiration_time: WishedMoment | None = None
    """Keep it until then, and remove it afterwards. May change."""
    accept_anomaly: bool | None = None
    """A Suspect backup is right as it is: it counts again. May change."""
    delete_requested: bool | None = None
    """Erase its data. Without it, deleting the object deletes no data. May change."""


class Progress(ApiModel):
    """How far a run is; ``totalBytes`` is an estimate."""

    done_bytes: Bytes = 0
    """Bytes of the source that were read."""
    total_bytes: Bytes | None = None
    """How many there are, estimated."""


class Copy(ApiModel):
    """One place where the backup lies."""

    storage: Name
    """The BackupStorage."""
    location: Text
    """Where its metadata lies, with bucket or path."""
    checksum: Checksum
    """SHA-256 of the stored bytes."""
    verified_time: Moment | None = None
    """When they were last read back and found whole."""


class BackupArtifact(ApiModel):
    """One stored object of the backup."""

    source: Annotated[str, Field(max_length=30)]
    """The source's name."""
    kind: Annotated[str, Field(max_length=16)]
    """`postgresql`, `sqlite` or `files`."""
    object: Text
    """The object's key beneath the storage's root."""
    size_bytes: Bytes
    """Stored bytes."""
    checksum: Checksum
    """SHA-256 of the stored bytes."""
    source_bytes: Bytes
    """Bytes before compression."""
    source_checksum: Checksum
    """SHA-256 of the bytes before compression."""
    entries: Bytes | None = None
    """How many files and folders it holds."""


class Verification(ApiModel):
    """The last verdict on the stored bytes."""

    status: Literal["Verified", "NotVerified", "VerificationFailed"] = "NotVerified"
    """`Verified`: every byte was read back, decoded and compared. `VerificationFailed`: no copy is what was written."""
    last_verified_time: Moment | None = None
    """When it was last found whole."""
    reason: Annotated[str, Field(max_length=128)] | None = None
    """What the last verification found, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] | None = None
    """What the last verification found, in a sentence for people."""


class Lookup(ApiModel):
    """The storage is asked what became of a run whose result was lost."""

    number: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Which question this is; it is part of the Job's name."""
    since_time: Moment
    """When the first one was asked."""
    last_time: Moment | None = None
    """When the last one ended without an answer."""


class Said(ApiModel):
    """What of the spec was written beside the metadata."""

    hold: bool | None = None
    """As in the spec."""
    expiration_time: Moment | None = None
    """As in the spec."""
    accept_anomaly: bool | None = None
    """As in the spec."""
    time: Moment | None = None
    """When that was recorded."""


class Removal(ApiModel):
    """Why the data is no longer in storage."""

    reason: Literal["Expired", "Erased", "NotFound"]
    """`Expired`: retention removed it. `Erased`: it was asked for. `NotFound`: a cleanup or a verification did not find it any more."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What happened, in a sentence for people."""
    time: Moment | None = None
    """When that was recorded."""


class Refusal(ApiModel):
    """Why a change of the spec was not carried out."""

    generation: Annotated[int, Field(ge=0)]
    """The generation of the spec that asked for it."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """Why, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, in a sentence for people."""
    passing: bool = False
    """Whether it is tried again."""


class BackupStatus(ApiModel):
    """What became of the run."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    phase: Phase | None = None
    """Only `Succeeded` is a backup that was written, read back and found whole."""
    conditions: Conditions = ()
    """`Ready`: the run left a good backup. `Available`: its data is in storage. `Verified`: what verifications found since. `Drilled`: whether the last drill of it restored it. `CopiesComplete`: of several destinations, each holds a copy. `ChangeApplied`: what the spec asks for was done."""
    job: Name | None = None
    """The Job of a manual run, once there was one."""
    lookup: Lookup | None = None
    """Set while the storage is asked what became of the run."""
    backup_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="backupID")
    """The backup's name in storage: type, day and second in UTC."""
    run_identity: Annotated[str, Field(max_length=256)] | None = None
    """Which run wrote it, as the metadata says."""
    type: Literal["database", "files", "full"] | None = None
    """`database`, `files`, or `full` for both."""
    start_time: Moment | None = None
    """When the run began."""
    completion_time: Moment | None = None
    """When the backup was committed, or the run ended."""
    snapshot_time: Moment | None = None
    """The moment of the data: of the earliest of its sources."""
    duration_seconds: Annotated[int, Field(ge=0)] | None = None
    """From start to end."""
    progress: Progress | None = None
    """How far the run is."""
    size_bytes: Bytes | None = None
    """Stored bytes, indexes aside."""
    size: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="sizeBytes, for people."
    )
    source_bytes: Bytes | None = None
    """Bytes before compression."""
    checksum: Checksum | None = None
    """SHA-256 of the stored object; of the sorted sha256sum list where there are several."""
    storage: Name | None = None
    """The BackupStorage that it was written to: of several, the first that holds a copy."""
    storages: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    """All that its run writes to, where there are several."""
    min_copies: Annotated[int, Field(ge=1, le=8)] | None = None
    """How many of those must hold a copy; left out, all."""
    prefix: Annotated[str, Field(max_length=512)] | None = None
    """Its policy's folder beneath the storage's root."""
    copies: Annotated[tuple[Copy, ...], Field(max_length=8)] = ()
    """Where it lies: each was read back and found whole."""
    artifacts: Annotated[tuple[BackupArtifact, ...], Field(max_length=16)] = ()
    """What it consists of; left out where the run's log was gone before it was read."""
    warnings: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    """What a person should know, and what did not stop the run."""
    verification: Verification | None = None
    """The last verdict on the stored bytes."""
    drill: DrillRun | None = None
    """The last drill of this backup."""
    kept_by: Annotated[tuple[Annotated[str, Field(max_length=128)], ...], Field(max_length=32)] | None = None
    """Why the last cleanup kept it: `daily-3`, `monthly-7`, `last-verified`, `manual`, `hold`."""
    held: bool | None = None
    """Whether a hold lies beside it in storage."""
    expiration_time: Moment | None = None
    """Until when it stays, as it lies beside it in storage."""
    anomaly_accepted: bool | None = None
    """Whether it counts although it looked wrong."""
    said: Said | None = None
    """What of the spec was written beside it in storage."""
    refusal: Refusal | None = None
    """Why what the spec asks for was not done."""
    removal: Removal | None = None
    """Why its data is no longer in storage."""
    failure_reason: Annotated[str, Field(max_length=128)] | None = None
    """Why there is no good backup, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=4096)] | None = None
    """What happened, in a sentence for people."""
    notification: NotificationStatus | None = None
    """What became of telling people how the run ended, where somebody wants to know."""
