"""BackupPolicy: what is backed up, when and where to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_contract.names import BackupType
from avalanche_operator.api.common import (
    ApiModel,
    ClaimReference,
    Conditions,
    IdentityReference,
    KeyReference,
    LocalReference,
    Moment,
    Name,
    ProbeStatus,
    Quantity,
    RecipientsReference,
    RelativePath,
    SecretKeyName,
    SourceName,
    exactly_one,
    rule,
    rules,
)
from avalanche_operator.api.notification import Notifications, NotificationStatus
from avalanche_operator.api.scratch import Scratch


class DatabaseCredentials(ApiModel):
    """A Secret with the user and the password of a database."""

    name: Name
    """The name of the Secret, in the same namespace."""
    username_key: SecretKeyName = "username"
    """The key with the user's name."""
    password_key: SecretKeyName = "password"  # noqa: S105 - a key's name
    """The key with the password."""


class Postgresql(ApiModel):
    """One PostgreSQL database."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.jobs) || self.jobs == 1 || (has(self.format) && self.format == 'Directory')",
                "jobs above 1 need format: Directory; Plain and Custom are written by one job",
            )
        )
    )

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")]
    """The server's name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """The server's port."""
    database: Annotated[str, Field(min_length=1, max_length=63)]
    """The database's name."""
    credentials_secret_ref: DatabaseCredentials
    """The Secret with user and password."""
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq's `sslmode`; `verify-full` wants `caSecretRef`."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the server, as PEM."""
    format: Literal["Plain", "Custom", "Directory"] = "Plain"
    """`Plain` is SQL that psql reads; `Custom` is the archive of pg_restore; `Directory` is its folder, dumped by several jobs in scratch and stored as a tar."""
    jobs: Annotated[int, Field(ge=1, le=16)] = 1
    """How many tables are dumped at a time, with format `Directory`; each needs a connection more."""
    include_globals: bool = False
    """Back up the roles and tablespaces of the server besides, without passwords. They are not restored unasked."""
    schemas: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=64)
    ] = ()
    """Only these schemas; left out, all of them and the large objects."""
    exclude_tables: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()
    """Tables whose data and definition are left out, as patterns of pg_dump."""


class Sqlite(ApiModel):
    """One SQLite database on a claim. The claim is mounted read-write: a database in WAL mode needs it."""

    claim: ClaimReference
    """The claim that the file lies on."""
    path: RelativePath
    """The database file, relative to the claim's root."""


class Files(ApiModel):
    """Folders and files of a claim."""

    claim: ClaimReference
    """The claim that the files lie on."""
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1, max_length=32)] = (".",)
    """Folders and files, relative to the claim's root. Each must be there."""
    exclude: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()
    """Patterns of names (`*.tmp`) or of paths (`cache/*`) that are left out."""
    one_file_system: bool = False
    """Do not follow into other file systems that are mounted beneath."""


class PolicySource(ApiModel):
    """One thing to back up."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("postgresql", "sqlite", "files"),
                "a source has exactly one kind: postgresql, sqlite or files; use one source for each",
            )
        )
    )

    name: SourceName
    """The name of this source in the backup; a restore may choose by it."""
    postgresql: Postgresql | None = None
    """A PostgreSQL database."""
    sqlite: Sqlite | None = None
    """A SQLite database file on a claim."""
    files: Files | None = None
    """Folders and files of a claim."""


class Destination(ApiModel):
    """Where a copy goes."""

    storage_ref: LocalReference
    """The BackupStorage, in the same namespace."""


class PolicyCompression(ApiModel):
    """How artifacts are compressed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.level) || self.algorithm == 'Zstd' || (self.algorithm == 'Gzip' && self.level <= 9)",
                "level is 1 to 9 for Gzip and 1 to 19 for Zstd; None has no level",
            )
        )
    )

    algorithm: Literal["Gzip", "Zstd", "None"] = "Gzip"
    """Files are read by `gzip`, by `zstd`, or as they are."""
    level: Annotated[int, Field(ge=1, le=19)] | None = None
    """1 is fast, 9 (gzip, in three steps: 1, 4, 7) or 19 (zstd, slow above 12) is small; left out, a fast default."""


Recipient = Annotated[
    str,
    Field(
        max_length=62,
        json_schema_extra=rules(
            rule(
                "self.matches('^age1[02-9ac-hj-np-z]{58}$')",
                "a recipient is the public key of an age identity: age1 and 58 more characters, as `age-keygen -y` prints it",
            )
        ),
    ),
]


class PolicyEncryption(ApiModel):
    """Whom backups are encrypted for, by age. The pods that back up see public keys alone."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("recipients", "recipientsSecretRef"),
                "encryption names its recipients once: by recipients or by recipientsSecretRef",
            )
        )
    )

    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=16)] = Field(
        default=(), description="Public keys (`age1…`); the identity of any one of them opens a backup."
    )
    recipients_secret_ref: RecipientsReference | None = None
    """A Secret with the public keys, in place of `recipients`."""
    identity_secret_ref: IdentityReference | None = None
    """A Secret with what opens backups again: mounted into the pods of restores, never into those of backups. It need not exist before there is one."""


Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


class Resources(ApiModel):
    """What a pod gets, as of a container."""

    requests: Quantities | None = None
    """What the node must have left: `{cpu: 100m, memory: 96Mi}`."""
    limits: Quantities | None = None
    """What the pod may use: `{memory: 256Mi}`."""


class Toleration(ApiModel):
    """A taint that is put up with, as of a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key; left out with `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """`Equal` is the default."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; left out: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=604800)] | None = None
    """For how long a taint of `NoExecute` is put up with."""


LabelValue = Annotated[str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
Labels = Annotated[dict[str, LabelValue], Field(max_length=32, description="Added to the pods.")]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=1024)]],
    Field(max_length=32, description="Added to the pods, for what runs beside them."),
]
Group = Annotated[int, Field(ge=1, le=4294967294)]


class PodTemplate(ApiModel):
    """What may be said about the pods of a policy: a closed part of a pod's specification."""

    resources: Resources | None = None
    """Requests and limits, as of a container."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints of nodes that are put up with."""
    priority_class_name: Name | None = None
    """The PriorityClass of the pods."""
    run_as_user: Annotated[int, Field(ge=1, le=4294967294)] | None = Field(
        default=None, description="The default is the user of the pods that use the claim, else 65532."
    )
    run_as_group: Annotated[int, Field(ge=1, le=4294967294)] | None = None
    """The default is the group of the pods that use the claim, else the user's number."""
    supplemental_groups: Annotated[tuple[Group, ...], Field(max_length=16)] = ()
    """Groups besides, for files that a group may read."""
    labels: Labels | None = None
    annotations: Annotations | None = None
    scratch: Scratch | None = None
    """The folder for temporary files; left out, an emptyDir without a limit."""

    @property
    def without_scratch(self) -> PodTemplate:
        """For a pod that looks and moves no data: no volume is made for it."""
        return self.model_copy(update={"scratch": None})


Schedule = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            rule(
                "self.startsWith('@') ? self in ['@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually']"
                " : self.split(' ').filter(field, field != '').size() == 5",
                "a schedule has five fields (minute hour day month weekday), or is one of @hourly, @daily, @weekly, @monthly, @yearly",
            ),
            rule(
                "self.startsWith('@') || self.split(' ').filter(field, field != '').size() != 5"
                " || !self.split(' ').filter(field, field != '')[4].matches('(^|[,-])7')",
                "weekday 7 is not known here: Sunday is 0",
            ),
        ),
    ),
]


class BackupPolicySpec(ApiModel):
    """What a person declares."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.jitterSeconds) || self.jitterSeconds == 0 || self.schedule.matches('^ *(@|H |[0-9]+ )')",
                "jitterSeconds needs a schedule whose minute is one number: the others are spread already",
            ),
            rule(
                "!has(self.podTemplate) || !has(self.podTemplate.scratch) || !has(self.podTemplate.scratch.ephemeral)"
                " || self.sources.all(each, has(each.postgresql))",
                "podTemplate.scratch.ephemeral is for policies whose sources are all postgresql: use sizeLimit",
            ),
        )
    )

    sources: Annotated[
        tuple[PolicySource, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """What is backed up, together and in this order, as one backup."""
    schedule: Schedule = Field(
        description="Cron: five fields. H in the place of minute or hour picks a stable one for this policy."
    )
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="Etc/UTC", description="A name of the time zone database, such as Europe/Berlin."
    )
    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Spread policies of one schedule: each has a later minute of its own, at most this much later, in the same hour.
    What it comes to stands in `status.schedule`."""
    suspend: bool = False
    """Start no scheduled runs; Backups made by hand run all the same."""
    starting_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """How late a run may still start, after the cluster was away."""
    concurrency_policy: Literal["Forbid", "Allow"] = "Forbid"
    """`Forbid` leaves a run out while the one before is under way."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 21600
    """A run that takes longer is ended and Failed."""
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a run is tried again after a failure that may pass."""
    successful_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    """How many Jobs of good runs stay, with their logs, once their Backups tell what they came to."""
    failed_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    """How many Jobs of failed and skipped runs stay, with their logs, once their Backups tell what they came to."""
    destinations: Annotated[tuple[Destination, ...], Field(min_length=1, max_length=1)]
    """Where the backup goes."""
    compression: PolicyCompression = PolicyCompression()
    """How it is compressed."""
    encryption: PolicyEncryption | None = None
    """Whom it is encrypted for; left out, it is not encrypted."""
    notifications: Notifications = Field(default=(), description="Who is told how runs went.")
    pod_template: PodTemplate = PodTemplate()
    """What the pods of this policy need."""

    @property
    def backup_type(self) -> BackupType:
        """One family of source gives a database or a files backup, both give a full one."""
        families = {"files" if source.files else "database" for source in self.sources}
        if len(families) > 1:
            return "full"
        return "files" if "files" in families else "database"


class Identity(ApiModel):
    """As whom the pods that use the claims ran when they were last seen."""

    claims: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """The claims that this was seen of."""
    run_as_user: Group
    """The user."""
    run_as_group: Group | None = None
    """The group."""
    supplemental_groups: Annotated[tuple[Group, ...], Field(max_length=64)] = ()
    """Groups besides, `fsGroup` among them."""


class CountedSlots(ApiModel):
    """Since when slots are counted that no run started for."""

    mark: Annotated[str, Field(max_length=256)] = ""
    """The schedule and time zone that they were counted by; another one begins anew."""
    since: Moment
    """Slots before are none of ours."""


class BackupPolicyStatus(ApiModel):
    """What the operator found."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    conditions: Conditions = ()
    """`Ready`: sources and storage can be used. `LastRunSucceeded`: what the last run came to. `Paused`: a restore works on the sources."""
    schedule: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="The schedule with every H and jitterSeconds resolved."
    )
    probe: ProbeStatus | None = None
    """The last probe of the sources."""
    identity: Identity | None = Field(
        default=None,
        description="The user of the pods that use the claims; remembered, for runs while none of them is there.",
    )
    last_schedule_time: Moment | None = None
    """When the CronJob last started a run."""
    next_schedule_time: Moment | None = None
    """When it will start the next one."""
    last_successful_time: Moment | None = None
    """When the last good backup was complete."""
    slots: CountedSlots | None = None
    """How slots are counted."""
    missed_runs: Annotated[int, Field(ge=0, le=100)] = 0
    """Slots since the last run that no run started for, within `startingDeadlineSeconds`; 100 is that many or more."""
    notification: NotificationStatus | None = None
    """What became of telling that slots were missed."""
    consecutive_failures: Annotated[int, Field(ge=0)] = 0
    """Failed runs since the last good one."""
    backup_count: Annotated[int, Field(ge=0)] = 0
    """How many of its Backups in this cluster succeeded."""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """What those hold in storage, together."""
