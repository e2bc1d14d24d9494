"""BackupPolicy: what is backed up, when and where to."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from avalanche_contract.names import BackupType
from avalanche_operator.api.common import (
    ApiModel,
    ClaimReference,
    Conditions,
    KeyReference,
    LocalReference,
    Moment,
    Name,
    ProbeStatus,
    RelativePath,
    SourceName,
    exactly_one,
    rule,
    rules,
)


class DatabaseCredentials(ApiModel):
    """A Secret with the user and the password of a database."""

    name: Name
    username_key: Annotated[str, Field(min_length=1, max_length=253)] = "username"
    password_key: Annotated[str, Field(min_length=1, max_length=253)] = "password"  # noqa: S105 - a key's name


class Postgresql(ApiModel):
    """One PostgreSQL database."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    database: Annotated[str, Field(min_length=1, max_length=63)]
    credentials_secret_ref: DatabaseCredentials
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca_secret_ref: KeyReference | None = None
    format: Literal["Plain", "Custom"] = "Plain"
    schemas: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=64)
    ] = ()
    exclude_tables: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()


class Sqlite(ApiModel):
    """One SQLite database on a claim. The claim is mounted read-write: a database in WAL mode needs it."""

    claim: ClaimReference
    path: RelativePath


class Files(ApiModel):
    """Folders and files of a claim."""

    claim: ClaimReference
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1, max_length=32)] = (".",)
    exclude: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()
    one_file_system: bool = False


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
    postgresql: Postgresql | None = None
    sqlite: Sqlite | None = None
    files: Files | None = None


class Destination(ApiModel):
    """Where a copy goes."""

    storage_ref: LocalReference


class PolicyCompression(ApiModel):
    """How artifacts are compressed."""

    algorithm: Literal["Gzip", "Zstd", "None"] = "Gzip"
    level: Annotated[int, Field(ge=1, le=19)] | None = None


def _free_form(description: str) -> dict[str, Any]:
    return {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True}


Labels = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32, description="Added to the pods.")
]


class PodTemplate(ApiModel):
    """What may be said about the pods of a policy: a closed part of a pod's specification."""

    resources: dict[str, Any] | None = Field(
        default=None, json_schema_extra=_free_form("Requests and limits, as of a container.")
    )
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] | None = (
        None
    )
    tolerations: Annotated[
        tuple[dict[str, Any], ...],
        Field(
            max_length=16,
            json_schema_extra={"items": _free_form("A toleration, as of a pod.")},
        ),
    ] = ()
    priority_class_name: Name | None = None
    run_as_user: Annotated[int, Field(ge=1, le=4294967294)] | None = Field(
        default=None, description="The default is the user of the pods that use the claim, else 65532."
    )
    run_as_group: Annotated[int, Field(ge=1, le=4294967294)] | None = None
    supplemental_groups: Annotated[
        tuple[Annotated[int, Field(ge=1, le=4294967294)], ...], Field(max_length=16)
    ] = ()
    labels: Labels | None = None


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

    sources: Annotated[
        tuple[PolicySource, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    schedule: Schedule = Field(
        description="Cron: five fields. H in the place of minute or hour picks a stable one for this policy."
    )
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="Etc/UTC", description="A name of the time zone database, such as Europe/Berlin."
    )
    suspend: bool = False
    starting_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    concurrency_policy: Literal["Forbid", "Allow"] = "Forbid"
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 21600
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 2
    successful_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    failed_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    destinations: Annotated[tuple[Destination, ...], Field(min_length=1, max_length=1)]
    compression: PolicyCompression = PolicyCompression()
    pod_template: PodTemplate = PodTemplate()

    @property
    def backup_type(self) -> BackupType:
        """One family of source gives a database or a files backup, both give a full one."""
        families = {"files" if source.files else "database" for source in self.sources}
        if len(families) > 1:
            return "full"
        return "files" if "files" in families else "database"


class BackupPolicyStatus(ApiModel):
    """What the operator found."""

    observed_generation: int = 0
    conditions: Conditions = ()
    schedule: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="The schedule with every H resolved."
    )
    probe: ProbeStatus | None = None
    last_schedule_time: Moment | None = None
    next_schedule_time: Moment | None = None
    last_successful_time: Moment | None = None
    consecutive_failures: Annotated[int, Field(ge=0)] = 0
    backup_count: Annotated[int, Field(ge=0)] = 0
    size_bytes: Annotated[int, Field(ge=0)] = 0
