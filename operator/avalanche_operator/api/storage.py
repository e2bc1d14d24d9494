"""BackupStorage: where backups go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    Conditions,
    KeyReference,
    LocalReference,
    Moment,
    Name,
    ProbeStatus,
    RelativePath,
    exactly_one,
    rule,
    rules,
)
from avalanche_operator.api.schedule import Schedule

Prefix = Annotated[
    str,
    Field(
        max_length=512,
        description="The folder of this storage in the bucket or container; empty is all of it.",
        json_schema_extra=rules(
            rule(
                "!self.matches('^/|(^|/)[.][.](/|$)')",
                "a prefix does not begin with '/' and has no '..'",
            )
        ),
    ),
]


class S3(ApiModel):
    """A bucket of S3, or of a service that speaks it."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")]
    """The bucket's name. It must exist: it is never created."""
    prefix: Prefix = ""
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The bucket's region; left out: `us-east-1`."""
    endpoint: (
        Annotated[str, Field(min_length=1, max_length=512, pattern=r"^https?://[^\s/?#@]+/?$")] | None
    ) = None
    """The service's address, where it is not AWS: `https://host:port`."""
    force_path_style: bool = False
    """Put the bucket into the path instead of the host's name, as most services other than AWS want it."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the endpoint, as PEM."""


class Azure(ApiModel):
    """A container of Azure Blob Storage."""

    container: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9]([a-z0-9]|-[a-z0-9])*$")]
    """The container's name. It must exist: it is never created."""
    prefix: Prefix = ""
    account_name: Annotated[str, Field(min_length=3, max_length=24, pattern=r"^[a-z0-9]+$")] | None = None
    """The storage account; left out, the connection string in the Secret names it."""
    endpoint: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^https?://[^\s?#@]+$")] | None = (
        None
    )
    """The account's address, where it is not `https://<account>.blob.core.windows.net`."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the endpoint, as PEM."""


class GoogleCloudStorage(ApiModel):
    """A bucket of Google Cloud Storage."""

    bucket: Annotated[str, Field(min_length=3, max_length=222, pattern=r"^[a-z0-9][a-z0-9._-]*[a-z0-9]$")]
    """The bucket's name. It must exist: it is never created."""
    prefix: Prefix = ""
    project_id: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None, alias="projectID", description="The project of the bucket, where requests must name it."
    )
    endpoint: Annotated[str, Field(min_length=1, max_length=512, pattern=r"^https?://[^\s/?#@]+$")] | None = (
        None
    )
    """The service's address, where it is not Google's; `http://` without a Secret is an emulator."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the endpoint, as PEM."""


class Claim(ApiModel):
    """A folder of a PersistentVolumeClaim."""

    name: Name
    """The name of the PersistentVolumeClaim, in the same namespace."""
    sub_path: RelativePath | None = None
    """A folder of the claim; left out, its root."""


Folder = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class Discovery(ApiModel):
    """Which folders of the storage are read: ``<namespace>/<policy>/``, as the cluster named them that wrote them."""

    namespace: Folder | None = None
    """The namespace that the backups were made in; left out, the one of this object. In a rebuilt cluster it may be another."""
    policies: Annotated[
        tuple[
            Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")],
            ...,
        ],
        Field(max_length=256),
    ] = ()
    """Only these policies; empty is every one that has a folder there."""


class BackupStorageSpec(ApiModel):
    """What a person declares."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("s3", "azure", "gcs", "claim"),
                "a storage has exactly one backend: s3, azure, gcs or claim",
            ),
            rule(
                "!has(self.claim) || !has(self.credentialsSecretRef)", "a claim needs no credentialsSecretRef"
            ),
            rule("!has(self.claim) || !has(self.serviceAccountName)", "a claim needs no serviceAccountName"),
            rule(
                "!has(self.claim) || !has(self.pruneCredentialsSecretRef)",
                "a claim needs no pruneCredentialsSecretRef",
            ),
            rule(
                "!has(self.claim) || !has(self.pruneServiceAccountName)",
                "a claim needs no pruneServiceAccountName",
            ),
            rule(
                "!has(self.pruneCredentialsSecretRef) || !has(self.pruneServiceAccountName)",
                "what may delete has keys in pruneCredentialsSecretRef or an identity in pruneServiceAccountName, not both",
            ),
            rule(
                "!has(self.credentialsSecretRef) || !has(self.serviceAccountName)",
                "a storage has keys in credentialsSecretRef or an identity in serviceAccountName, not both",
            ),
            rule(
                "!has(self.azure) || has(self.azure.accountName) || has(self.azure.endpoint)"
                " || has(self.credentialsSecretRef)",
                "azure needs accountName, or a Secret whose connection string names the account",
            ),
            rule(
                "!has(self.conditionalWrites) || self.conditionalWrites == 'Required' || has(self.s3)",
                "only s3 may do without conditional writes: every other backend has them",
            ),
        )
    )

    s3: S3 | None = None
    """A bucket. One of `s3`, `azure`, `gcs` and `claim` is given."""
    azure: Azure | None = None
    """A container. One of `s3`, `azure`, `gcs` and `claim` is given."""
    gcs: GoogleCloudStorage | None = None
    """A bucket. One of `s3`, `azure`, `gcs` and `claim` is given."""
    claim: Claim | None = None
    """A volume. One of `s3`, `azure`, `gcs` and `claim` is given."""
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description=(
            "A Secret with the keys of the backend. s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN "
            "where there is one. azure: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_KEY. gcs: "
            "GOOGLE_APPLICATION_CREDENTIALS_JSON."
        ),
    )
    service_account_name: Name | None = Field(
        default=None,
        description=(
            "The ServiceAccount that Jobs run as, instead of keys: workload identity of the cloud. Jobs get no token for "
            "the Kubernetes API in any case."
        ),
    )
    conditional_writes: Literal["Required", "SingleWriterAccepted"] = Field(
        default="Required",
        description=(
            "Required: a store that overwrites what a create-only write must leave alone is not used. "
            "SingleWriterAccepted: it is, and you promise that nobody else ever writes there."
        ),
    )
    prune_credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="Another Secret of the same keys, for cleanups, verifications and erasures alone: then the key that writes backups"
        " need not be allowed to delete.",
    )
    prune_service_account_name: Name | None = Field(
        default=None,
        description="Another ServiceAccount for cleanups, verifications and erasures alone: what pruneCredentialsSecretRef is to keys, to"
        " workload identity. Then the identity that writes backups need not be allowed to delete.",
    )
    access_mode: Literal["ReadWrite", "ReadOnly"] = Field(
        default="ReadWrite", description="ReadOnly: backups are read and restored from here, never written."
    )
    sync_schedule: Schedule = Field(
        default="H * * * *",
        description=(
            "When to read what is in the storage, UTC: backups that no Backup shows appear with origin Discovered, and a "
            "Backup says so whose data is gone. The first time is right after the storage was found usable."
        ),
    )
    discovery: Discovery = Field(default_factory=Discovery)
    """Which folders are read for that."""


class SyncStatus(ApiModel):
    """The reading of the storage that is under way, or was the last one. Each page of it is a Job."""

    number: Annotated[int, Field(ge=0)] = 0
    """How many pages were asked for; it is part of the Job's name."""
    fingerprint: Annotated[str, Field(max_length=64)] = ""
    """What was asked: another one means that the reading begins anew."""
    start_time: Moment | None = None
    """When it began."""
    cursor: Annotated[str, Field(max_length=1100)] | None = None
    """Where the next page begins; only while it is under way."""
    backup_count: Annotated[int, Field(ge=0)] = 0
    """How many backups it found so far."""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """Their stored bytes."""
    unreadable: Annotated[int, Field(ge=0)] = 0
    """How many metadata files say nothing that could be shown."""
    example: Annotated[str, Field(max_length=1024)] = ""
    """The first of these, and why."""
    failures: Annotated[int, Field(ge=0)] = 0
    """Pages since the last good one."""
    last_time: Moment | None = None
    """When a page failed last."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """Why, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why, in a sentence for people."""

    @property
    def under_way(self) -> bool:
        """Say whether there are pages to come."""
        return self.start_time is not None


class BackupStorageStatus(ApiModel):
    """What the operator found."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    conditions: Conditions = ()
    """`Ready`: a Job wrote a small object, read it back, listed it, and a second write of the same name was refused.
    `Synced`: everything in it was read, and Backups show it. `ClockSkew`: the clocks of the nodes and of the storage differ by more than two minutes."""
    storage_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="storageID")
    """The identity in the storage's own `storage.json`: two names with the same one are the same place."""
    probe: ProbeStatus | None = None
    """The last probe."""
    clock_skew_seconds: Annotated[int, Field(ge=-2147483648, le=2147483647)] | None = None
    """How far the clock of the node that ran the last good probe was ahead of that of the storage."""
    backup_count: Annotated[int, Field(ge=0)] | None = None
    """How many backups lay in its folders when it was read last."""
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    """Their stored bytes."""
    last_sync_time: Moment | None = None
    """When a reading began that was carried out to its end: what was there then is shown."""
    sync: SyncStatus | None = None
    """The reading that is under way, or was the last one."""
