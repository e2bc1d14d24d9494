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
    rule,
    rules,
)

Phase = Literal["Pending", "Running", "Verifying", "Succeeded", "Suspect", "Failed", "Skipped"]
TERMINAL: frozenset[Phase] = frozenset({"Succeeded", "Suspect", "Failed", "Skipped"})
Checksum = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Bytes = Annotated[int, Field(ge=0)]


class ScheduledJob(ApiModel):
    """The Job that a CronJob created for this run."""

    name: Name
    uid: Annotated[str, Field(min_length=1, max_length=64)]


class BackupSpec(ApiModel):
    """Which policy is run. People give ``policyRef`` alone; the operator writes the rest."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule("self == oldSelf", "a Backup is one run: its spec cannot change; create another Backup"),
            rule("self.origin != 'Scheduled' || has(self.job)", "a Scheduled Backup names its job"),
        )
    )

    policy_ref: LocalReference
    origin: Literal["Manual", "Scheduled"] = "Manual"
    job: ScheduledJob | None = None
    run_identity: Annotated[str, Field(max_length=256)] | None = None


class Progress(ApiModel):
    """How far a run is; ``totalBytes`` is an estimate."""

    done_bytes: Bytes = 0
    total_bytes: Bytes | None = None


class Copy(ApiModel):
    """One place where the backup lies."""

    storage: Name
    location: Text
    checksum: Checksum
    verified_time: Moment | None = None


class BackupArtifact(ApiModel):
    """One stored object of the backup."""

    source: Annotated[str, Field(max_length=30)]
    kind: Annotated[str, Field(max_length=16)]
    object: Text
    size_bytes: Bytes
    checksum: Checksum
    source_bytes: Bytes
    source_checksum: Checksum
    entries: Bytes | None = None


class Verification(ApiModel):
    """The last verdict on the stored bytes."""

    status: Literal["Verified", "NotVerified", "VerificationFailed"] = "NotVerified"
    last_verified_time: Moment | None = None


class BackupStatus(ApiModel):
    """What became of the run."""

    observed_generation: int = 0
    phase: Phase | None = None
    conditions: Conditions = ()
    job: Name | None = None
    backup_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="backupID")
    run_identity: Annotated[str, Field(max_length=256)] | None = None
    type: Literal["database", "files", "full"] | None = None
    start_time: Moment | None = None
    completion_time: Moment | None = None
    snapshot_time: Moment | None = None
    duration_seconds: Annotated[int, Field(ge=0)] | None = None
    progress: Progress | None = None
    size_bytes: Bytes | None = None
    size: Annotated[str, Field(max_length=16)] | None = Field(
        default=None, description="sizeBytes, for people."
    )
    source_bytes: Bytes | None = None
    checksum: Checksum | None = None
    storage: Name | None = None
    prefix: Annotated[str, Field(max_length=512)] | None = None
    copies: Annotated[tuple[Copy, ...], Field(max_length=8)] = ()
    artifacts: Annotated[tuple[BackupArtifact, ...], Field(max_length=16)] = ()
    warnings: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    verification: Verification | None = None
    failure_reason: Annotated[str, Field(max_length=128)] | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None
