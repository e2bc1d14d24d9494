"""RestoreRequest: a backup is put back, once its plan was approved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    ClaimReference,
    Conditions,
    LocalReference,
    Moment,
    Name,
    RelativePath,
    SourceName,
    Text,
    exactly_one,
    rule,
    rules,
    unchanged,
)
from avalanche_operator.api.policy import DatabaseCredentials

Phase = Literal["Pending", "Planned", "AwaitingApproval", "Restoring", "Verifying", "Succeeded", "Failed"]
TERMINAL: frozenset[Phase] = frozenset({"Succeeded", "Failed"})
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]


class FromPolicy(ApiModel):
    """The newest good backup of a policy."""

    name: Name
    as_of: Moment | None = Field(default=None, description="Only backups whose data is not newer than this.")


class PostgresqlTarget(ApiModel):
    """What differs from the source; the rest is taken from the policy."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")] | None = None
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    database: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    credentials_secret_ref: DatabaseCredentials | None = None


class Target(ApiModel):
    """Another place than where the backup came from."""

    postgresql: PostgresqlTarget | None = None
    claim: ClaimReference | None = Field(default=None, description="Another claim, for SQLite and files.")
    path: RelativePath | None = Field(
        default=None,
        description="Another path on the claim: of the SQLite file, or the folder beneath which files go.",
    )


class RestoreRequestSpec(ApiModel):
    """What a person asks for. Everything but ``approvedPlan`` is fixed at creation."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("backupRef", "fromPolicy"),
                "a restore names one backup: by backupRef or by fromPolicy",
            ),
            rule(
                unchanged("backupRef", "fromPolicy", "sources", "paths", "target", "dryRun"),
                "a RestoreRequest cannot change, approvedPlan aside; create another one",
            ),
            rule(
                "oldSelf.hasValue() || !has(self.approvedPlan)",
                "a RestoreRequest is not created approved: create it, read the plan in its status, then approve that",
                optionalOldSelf=True,
            ),
        )
    )

    backup_ref: LocalReference | None = None
    from_policy: FromPolicy | None = None
    sources: Annotated[tuple[SourceName, ...], Field(max_length=16)] = Field(
        default=(), description="Only these sources of the backup; empty is all."
    )
    paths: Annotated[tuple[RelativePath, ...], Field(max_length=64)] = Field(
        default=(), description="Only these files and folders; empty is all."
    )
    target: Target | None = None
    dry_run: bool = Field(default=False, description="Make the plan and stop there.")
    approved_plan: Digest | None = Field(
        default=None, description="The digest of the plan in the status: approves that plan and no other."
    )


class PinnedBackup(ApiModel):
    """The backup that this request restores: chosen once."""

    name: Name
    backup_id: Annotated[str, Field(max_length=64)] = Field(alias="backupID")
    type: Literal["database", "files", "full"]
    storage: Name
    prefix: Annotated[str, Field(max_length=512)]
    policy: Name


class PlannedTarget(ApiModel):
    """What one target is, and what would happen to it."""

    artifact: Annotated[str, Field(max_length=30)]
    kind: Annotated[str, Field(max_length=16)]
    target: Text
    state: Literal["Empty", "HoldsData", "Absent"]
    found: Text
    used_by: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    size_bytes: Annotated[int, Field(ge=0)] = 0
    source_bytes: Annotated[int, Field(ge=0)] = 0
    action: Text


class RestorePlan(ApiModel):
    """What a restore will do; an approval names its digest."""

    digest: Digest
    backup_id: Annotated[str, Field(max_length=64)] = Field(alias="backupID")
    checksum: Digest
    storage: Name
    location: Text = ""
    snapshot_time: Moment
    targets: Annotated[tuple[PlannedTarget, ...], Field(max_length=16)]
    needs_approval: bool
    estimated_seconds: Annotated[int, Field(ge=0)] | None = None
    expiration_time: Moment | None = None


class RestoreProgress(ApiModel):
    """How far it is."""

    source: Annotated[str, Field(max_length=30)] = ""
    done_bytes: Annotated[int, Field(ge=0)] = 0
    total_bytes: Annotated[int, Field(ge=0)] | None = None


class RestoreRequestStatus(ApiModel):
    """How far the restore is."""

    observed_generation: int = 0
    phase: Phase | None = None
    conditions: Conditions = ()
    backup: PinnedBackup | None = None
    plan: RestorePlan | None = None
    plan_number: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many plans were made before this one."
    )
    paused_policies: Annotated[tuple[Name, ...], Field(max_length=64)] = Field(
        default=(), description="Policies that read the target: no backup of theirs runs meanwhile."
    )
    job: Name | None = None
    progress: RestoreProgress | None = None
    start_time: Moment | None = None
    completion_time: Moment | None = None
    duration_seconds: Annotated[int, Field(ge=0)] | None = None
    failure_reason: Annotated[str, Field(max_length=128)] | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None
