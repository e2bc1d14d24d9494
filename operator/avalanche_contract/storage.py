"""Where backups lie, as a container reaches it: a bucket, a container, a folder; where to read a key, never the key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from avalanche_contract.base import Credential, Strict


class _Storage(Strict):
    name: str
    trusted_keys: tuple[str, ...] | None = None
    """Public ed25519 keys in base64: metadata that none of them has signed is not believed. Absent: it need not be signed."""


class S3Storage(_Storage):
    """A bucket of S3 or of a service that speaks it."""

    kind: Literal["s3"] = "s3"
    bucket: str
    prefix: str = ""
    """The storage's root in the bucket: empty, or ending in ``/``."""
    region: str | None = None
    endpoint: str | None = None
    force_path_style: bool = False
    ca_file: str | None = None
    access_key_id: Credential | None = None
    """Left out: the SDK's own chain, which knows profiles, IRSA and instance roles."""
    secret_access_key: Credential | None = None
    session_token: Credential | None = None
    """May be named and not be there: not every key is a temporary one."""
    single_writer: Literal[True] | None = None
    """Accepted in so many words: the store knows no conditional writes, and nobody else writes there."""


class AzureStorage(_Storage):
    """A container of Azure Blob Storage. Without credentials: the pod's or machine's own identity."""

    kind: Literal["azure"] = "azure"
    container: str
    prefix: str = ""
    """The storage's root in the container: empty, or ending in ``/``."""
    account_name: str | None = None
    """Needed unless the connection string names it."""
    endpoint: str | None = None
    """The account's address, where it is not ``https://<account>.blob.core.windows.net``."""
    ca_file: str | None = None
    connection_string: Credential | None = None
    account_key: Credential | None = None
    """Where both are named, one of them must be there; the connection string wins."""


class GcsStorage(_Storage):
    """A bucket of Google Cloud Storage. Without credentials: the pod's or machine's own identity."""

    kind: Literal["gcs"] = "gcs"
    bucket: str
    prefix: str = ""
    """The storage's root in the bucket: empty, or ending in ``/``."""
    project_id: str | None = Field(default=None, alias="projectID")
    endpoint: str | None = None
    """The service's address, where it is not Google's; ``http://`` without credentials is an emulator."""
    ca_file: str | None = None
    credentials: Credential | None = None
    """The JSON of a service account's key."""


class DirectoryStorage(_Storage):
    """A folder: a mounted claim, or a disk."""

    kind: Literal["directory"] = "directory"
    root: str


Storage = Annotated[S3Storage | AzureStorage | GcsStorage | DirectoryStorage, Field(discriminator="kind")]


class Place(Strict):
    """A folder of backups in a storage: ``prefix`` is ``<namespace>/<policy>/``, or empty standalone."""

    storage: Storage
    prefix: str = ""
