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
    endpoint: (
        Annotated[str, Field(min_length=1, max_length=512, pattern=r"^https?://[^\s/?#@]+/?$")] | None
    ) = None
    force_path_style: bool = False
    ca_secret_ref: KeyReference | None = None


class Claim(ApiModel):
    """A folder of a PersistentVolumeClaim."""

    name: Name
    sub_path: RelativePath | None = None


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
    claim: Claim | None = None
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
    conditions: Conditions = ()
    storage_id: Annotated[str, Field(max_length=64)] | None = Field(default=None, alias="storageID")
    probe: ProbeStatus | None = None
