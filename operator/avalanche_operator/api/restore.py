"""RestoreRequest: a backup is put back, once its plan was approved."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    ClaimReference,
    Conditions,
    IdentityReference,
    KeyReference,
    LocalReference,
    Moment,
    Name,
    RelativePath,
    SourceName,
    Text,
    WishedMoment,
    exactly_one,
    rule,
    rules,
    unchanged,
)
from avalanche_operator.api.source import DatabaseCredentials

Phase = Literal["Pending", "Planned", "AwaitingApproval", "Restoring", "Verifying", "Succeeded", "Failed"]
TERMINAL: frozenset[Phase] = frozenset({"Succeeded", "Failed"})
Digest = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]


class FromPolicy(ApiModel):
    """The newest good backup of a policy."""

    name: Name
    """The BackupPolicy, in the same namespace."""
    as_of: WishedMoment | None = Field(
        default=None, description="Only backups whose data is not newer than this."
    )


class FromStorage(ApiModel):
    """A backup by where it lies, as BackupStorage's reading shows it: also one that no policy and no run of this cluster made."""

    storage_ref: LocalReference
    """The BackupStorage, in the same namespace."""
    backup_id: Annotated[str, Field(max_length=64, pattern=r"^(database|files|full)_[0-9]{8}_[0-9]{6}$")] = (
        Field(alias="backupID", description="Its name in storage: type, day and second in UTC.")
    )
    policy: Name | None = None
    """The policy whose folder it lies in; needed where several have a backup of this name."""


class PostgresqlTarget(ApiModel):
    """What differs from the source; the rest is taken from the policy."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")] | None = None
    """Another server."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Another port."""
    database: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """Another database; it must exist."""
    credentials_secret_ref: DatabaseCredentials | None = None
    """Another Secret with user and password."""
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] | None = None
    """Another `sslMode`."""
    ca_secret_ref: KeyReference | None = None
    """Another certificate authority of the server, as PEM."""
    jobs: Annotated[int, Field(ge=1, le=16)] = 1
    """More than one restores a backup of format `Directory` by so many sessions: faster, and NOT in one transaction. The database is marked until it is whole."""


class Target(ApiModel):
    """Another place than where the backup came from. It must say one for every source that is restored.

    Where the backup's policy does not exist, it must say everything: host, database and Secret of PostgreSQL, claim and path
    of SQLite, claim of files."""

    postgresql: PostgresqlTarget | None = None
    """Another database, for PostgreSQL."""
    claim: ClaimReference | None = Field(default=None, description="Another claim, for SQLite and files.")
    path: RelativePath | None = Field(
        default=None,
        description="Another path on the claim, of the SQLite file. Files keep their paths.",
    )


class RestoredPreserve(ApiModel):
    """What of files is set as the backup has it, besides contents, modes and times."""

    ownership: bool = False
    """Owner and group. The restore then runs as root, which the operator must allow (`restores.allowOwnership` of the chart)."""
    extended_attributes: bool = False
    """ACLs and `user.*`, which the backup must hold (`preserve` of its source). What makes programs run with rights is never set."""


class UndoneRestore(ApiModel):
    """A restore that is taken back."""

    name: Name
    """The RestoreRequest, in the same namespace; it ran with `keepPrevious`."""


class RestoreRequestSpec(ApiModel):
    """What a person asks for. Everything but ``approvedPlan`` is fixed at creation."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("backupRef", "fromPolicy", "fromStorage", "undo"),
                "a restore names one backup, by backupRef, by fromPolicy or by fromStorage, or by undo the restore that it takes back",
            ),
            rule(
                "!has(self.undo) || !(has(self.sources) && size(self.sources) > 0 || has(self.paths) && size(self.paths) > 0 "
                "|| has(self.target) || has(self.strategy) || has(self.keepPrevious) && self.keepPrevious || has(self.identitySecretRef) "
                "|| has(self.preserve))",
                "an undo takes back what that restore did, all of it: leave sources, paths, target, strategy, keepPrevious, preserve "
                "and identitySecretRef out",
            ),
            rule(
                "!(has(self.keepPrevious) && self.keepPrevious) || !has(self.strategy) || self.strategy == 'Swap'",
                "keepPrevious needs strategy Swap: a restore in place leaves nothing aside",
            ),
            rule(
                unchanged(
                    "backupRef",
                    "fromPolicy",
                    "fromStorage",
                    "undo",
                    "sources",
                    "paths",
                    "target",
                    "identitySecretRef",
                    "strategy",
                    "keepPrevious",
                    "preserve",
                    "dryRun",
                ),
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
    """This very Backup. One of `backupRef`, `fromPolicy`, `fromStorage` and `undo` is given."""
    from_policy: FromPolicy | None = None
    """The newest good backup of a policy. One of `backupRef`, `fromPolicy`, `fromStorage` and `undo` is given."""
    from_storage: FromStorage | None = None
    """The backup of this name in a storage. One of `backupRef`, `fromPolicy`, `fromStorage` and `undo` is given."""
    undo: UndoneRestore | None = Field(
        default=None,
        description="Take a restore back: what it kept takes its place again, and what was written since goes. Always waits for an approval.",
    )
    sources: Annotated[tuple[SourceName, ...], Field(max_length=16)] = Field(
        default=(),
        description="Only these sources of the backup; empty is all, or all files where `paths` is given.",
    )
    paths: Annotated[tuple[RelativePath, ...], Field(max_length=64)] = Field(
        default=(), description="Only these files and folders, and no database; empty is all."
    )
    target: Target | None = None
    """Where to, if not where it came from."""
    identity_secret_ref: IdentityReference | None = None
    """What opens an encrypted backup; left out, that of the policy."""
    strategy: Literal["Swap", "InPlace"] | None = Field(
        default=None,
        description="`Swap` restores beside the target, which then changes places with it; `InPlace` into it. Left out: what suits, and is possible, as the plan says.",
    )
    keep_previous: bool = Field(
        default=False, description="Leave aside what was there, for one `undo`. Needs a `Swap`."
    )
    preserve: RestoredPreserve | None = Field(
        default=None,
        description="Of files, what is set as the backup has it besides contents, modes and times; left out, nothing.",
    )
    dry_run: bool = Field(default=False, description="Make the plan and stop there.")
    approved_plan: Digest | None = Field(
        default=None, description="The digest of the plan in the status: approves that plan and no other."
    )


class PinnedBackup(ApiModel):
    """The backup that this request restores: chosen once."""

    name: Name
    """The Backup."""
    backup_id: Annotated[str, Field(max_length=64)] = Field(alias="backupID")
    """Its name in storage."""
    type: Literal["database", "files", "full"]
    """`database`, `files` or `full`."""
    storage: Name
    """The BackupStorage that it is read from."""
    prefix: Annotated[str, Field(max_length=512)]
    """Its folder beneath the storage's root."""
    policy: Name
    """Its policy: its sources say where the data goes."""


class PlannedTarget(ApiModel):
    """What one target is, and what would happen to it."""

    artifact: Annotated[str, Field(max_length=30)]
    """The source's name in the backup."""
    kind: Annotated[str, Field(max_length=16)]
    """`postgresql`, `sqlite` or `files`."""
    target: Text
    """Where it goes."""
    state: Literal["Empty", "HoldsData", "Absent"]
    """Only a target that `HoldsData` needs an approval."""
    found: Text
    """What is there now."""
    used_by: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    """Who has it open now."""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """Stored bytes."""
    source_bytes: Annotated[int, Field(ge=0)] = 0
    """Bytes to be written; of an undo those that come back, where they are known."""
    strategy: Literal["Swap", "InPlace"] = "InPlace"
    """`Swap`: beside the target, all or nothing. `InPlace`: into it."""
    strategy_reason: Text = ""
    """Why that one, where the spec does not say."""
    action: Text
    """What will be done."""
    warnings: Annotated[tuple[Text, ...], Field(max_length=10)] = ()
    """What to know before approving: that the role is a superuser, for whom SQL in a backup may run programs."""


class RestorePlan(ApiModel):
    """What a restore will do; an approval names its digest."""

    digest: Digest
    """Names everything in the plan that an approval stands for."""
    backup_id: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, alias="backupID", description="The backup; absent of an undo, which reads none."
    )
    checksum: Digest | None = None
    """SHA-256 of what is stored; it is verified before the target is touched."""
    storage: Name | None = None
    """The BackupStorage that it is read from."""
    location: Text = ""
    """Where its metadata lies."""
    snapshot_time: Moment | None = None
    """The moment of the data."""
    recipients: Annotated[tuple[Annotated[str, Field(max_length=62)], ...], Field(max_length=16)] = ()
    """The age public keys that it is encrypted for; empty where it is not."""
    anomaly: Text = ""
    """Why the backup is Suspect; empty where it is not. Such a one is restored only where it is named."""
    targets: Annotated[tuple[PlannedTarget, ...], Field(max_length=16)]
    """What happens to each target."""
    needs_approval: bool
    """A target holds data: `spec.approvedPlan` is waited for."""
    estimated_seconds: Annotated[int, Field(ge=0)] | None = None
    """About how long it takes."""
    expiration_time: Moment | None = None
    """Until when an approval counts; afterwards a new plan is made."""


class RestoreProgress(ApiModel):
    """How far it is."""

    source: Annotated[str, Field(max_length=30)] = ""
    """The source that is worked on."""
    done_bytes: Annotated[int, Field(ge=0)] = 0
    """Bytes that were written."""
    total_bytes: Annotated[int, Field(ge=0)] | None = None
    """How many there are."""


class RestoreRequestStatus(ApiModel):
    """How far the restore is."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    phase: Phase | None = None
    """`AwaitingApproval` waits for a person; `Succeeded` and `Failed` are the end."""
    conditions: Conditions = ()
    """`Ready` is True once the data is back, or once a `dryRun` has its plan."""
    backup: PinnedBackup | None = None
    """The backup that this request restores, or whose restore it takes back: chosen once."""
    plan: RestorePlan | None = None
    """What will be done; approve it by its digest."""
    plan_number: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many plans were made before this one."
    )
    paused_policies: Annotated[tuple[Name, ...], Field(max_length=64)] = Field(
        default=(),
        description="Policies that read the target: no backup of theirs captures it while the restore is under way.",
    )
    job: Name | None = None
    """The Job that restores. It runs once, never a second time."""
    job_uid: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, alias="jobUID", description="Its UID: another Job of its name is not believed."
    )
    progress: RestoreProgress | None = None
    """How far it is."""
    start_time: Moment | None = None
    """When the restore began."""
    completion_time: Moment | None = None
    """When it ended."""
    duration_seconds: Annotated[int, Field(ge=0)] | None = None
    """From start to end."""
    failure_reason: Annotated[str, Field(max_length=128)] | None = None
    """Why it did not succeed, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=4096)] | None = None
    """What happened or is waited for, in a sentence for people."""
