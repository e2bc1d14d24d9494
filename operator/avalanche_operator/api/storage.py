"""BackupStorage: where backups go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    Conditions,
    KeyReference,
    LocalReference,
    Name,
    ProbeStatus,
    RelativePath,
    exactly_one,
    rule,
    rules,
)


class S3(ApiModel):
    """A bucket of S3, or of a service that speaks it."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")]
    """The bucket's name. It must exist: it is never created."""
    prefix: Annotated[
        str,
        Field(
            max_length=512,
            description="The folder of this storage in the bucket; empty is all of it.",
            json_schema_extra=rules(
                rule(
                    "!self.matches('^/|(^|/)[.][.](/|$)')",
                    "a prefix does not begin with '/' and has no '..'",
                )
            ),
        ),
    ] = ""
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


class Claim(ApiModel):
    """A folder of a PersistentVolumeClaim."""

    name: Name
    """The name of the PersistentVolumeClaim, in the same namespace."""
    sub_path: RelativePath | None = None
    """A folder of the claim; left out, its root."""


class BackupStorageSpec(ApiModel):
    """What a person declares."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(exactly_one("s3", "claim"), "a storage has exactly one backend: s3 or claim"),
            rule(
                "!has(self.claim) || !has(self.credentialsSecretRef)", "a claim needs no credentialsSecretRef"
            ),
        )
    )

    s3: S3 | None = None
    """A bucket. One of `s3` and `claim` is given."""
    claim: Claim | None = None
    """A volume. One of `s3` and `claim` is given."""
    credentials_secret_ref: LocalReference | None = Field(
        default=None,
        description="A Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and AWS_SESSION_TOKEN where there is one.",
    )
    access_mode: Literal["ReadWrite", "ReadOnly"] = Field(
        default="ReadWrite", description="ReadOnly: backups are read and restored from here, never written."
    )


class BackupStorageStatus(ApiModel):
    """What the operator found."""

    observed_generation: int = 0
    """The generation of the spec that this status is about."""
    conditions: Conditions = ()
    """`Ready`: a Job wrote a small object, read it back, listed it, and a second write of the same name was refused."""
    storage_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="storageID")
    """The identity in the storage's own `storage.json`: two names with the same one are the same place."""
    probe: ProbeStatus | None = None
    """The last probe."""
