"""From specs to the parts of a request, and to what a pod must mount for them. Pure.

A request names paths as the container sees them; the mounts say how those paths come to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avalanche_contract.names import secret_file, source_mount, storage_mount
from avalanche_contract.request import (
    Credential,
    DirectoryStorage,
    Encryption,
    FilesSource,
    PostgresqlSource,
    S3Storage,
    Source,
    SqliteSource,
    Storage,
)
from avalanche_operator.api.common import IdentityReference
from avalanche_operator.api.policy import PolicyEncryption, PolicySource, Postgresql
from avalanche_operator.api.storage import BackupStorageSpec


@dataclass(frozen=True)
class ClaimMount:
    """A claim, and where the container sees it."""

    claim: str
    path: str
    read_only: bool
    sub_path: str | None = None


@dataclass(frozen=True)
class SecretMount:
    """Keys of a Secret, seen as files. Optional: the data plane names what is missing within seconds."""

    secret: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Mounts:
    """All that a pod mounts."""

    claims: tuple[ClaimMount, ...] = ()
    secrets: tuple[SecretMount, ...] = ()

    def __add__(self, other: Mounts) -> Mounts:
        claims = tuple(dict.fromkeys(self.claims + other.claims))
        return Mounts(claims, tuple(dict.fromkeys(self.secrets + other.secrets)))


def credential(secret: str, key: str) -> Credential:
    """Say where a key of a Secret is read, and how to name it to a person."""
    return Credential(described=f'key "{key}" of Secret "{secret}"', file=str(secret_file(secret, key)))


def storage_part(name: str, spec: BackupStorageSpec) -> tuple[Storage, Mounts]:
    """Give the storage of a request, and its mounts."""
    if spec.claim is not None:
        path = str(storage_mount(name))
        read_only = spec.access_mode == "ReadOnly"
        mount = ClaimMount(spec.claim.name, path, read_only, spec.claim.sub_path)
        return DirectoryStorage(name=name, root=path), Mounts(claims=(mount,))
    s3, secret = spec.s3, spec.credentials_secret_ref
    if s3 is None:
        raise ValueError(f"storage {name} has no backend")  # the CRD refuses it
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secrets = (SecretMount(secret.name, (*keys, "AWS_SESSION_TOKEN")),) if secret else ()
    ca, ca_mounts = _ca(s3.ca_secret_ref.name, s3.ca_secret_ref.key) if s3.ca_secret_ref else (None, ())
    prefix = s3.prefix if not s3.prefix or s3.prefix.endswith("/") else f"{s3.prefix}/"
    storage = S3Storage(
        name=name,
        bucket=s3.bucket,
        prefix=prefix,
        region=s3.region,
        endpoint=s3.endpoint,
        force_path_style=s3.force_path_style,
        ca_file=ca,
        access_key_id=credential(secret.name, keys[0]) if secret else None,
        secret_access_key=credential(secret.name, keys[1]) if secret else None,
    )
    return storage, Mounts(secrets=secrets + ca_mounts)


def encryption_part(spec: PolicyEncryption | None) -> tuple[Encryption | None, Mounts]:
    """Give whom a request encrypts for, and its mounts: public keys alone, whatever else the Secret holds."""
    if spec is None:
        return None, Mounts()
    reference = spec.recipients_secret_ref
    if reference is None:
        return Encryption(recipients=spec.recipients), Mounts()
    found = Encryption(recipients_file=credential(reference.name, reference.key))
    return found, Mounts(secrets=(SecretMount(reference.name, (reference.key,)),))


def identity_part(reference: IdentityReference | None) -> tuple[Credential | None, Mounts]:
    """Give what opens an encrypted backup, and its mounts: for what reads backups, never for what makes them."""
    if reference is None:
        return None, Mounts()
    mount = SecretMount(reference.name, (reference.key,))
    return credential(reference.name, reference.key), Mounts(secrets=(mount,))


def source_part(source: PolicySource, use: Literal["backup", "restore", "probe"]) -> tuple[Source, Mounts]:
    """Give one source of a request, and its mounts; only a restore and SQLite's WAL write to a claim."""
    path = str(source_mount(source.name))
    if source.postgresql is not None:
        return _postgresql(source.name, source.postgresql)
    if source.sqlite is not None:
        mount = ClaimMount(source.sqlite.claim.name, path, read_only=False)
        described = f"claim {source.sqlite.claim.name}, path {source.sqlite.path}"
        lite = SqliteSource(name=source.name, path=f"{path}/{source.sqlite.path}", described=described)
        return lite, Mounts(claims=(mount,))
    if source.files is None:
        raise ValueError(f"source {source.name} has no kind")  # the CRD refuses it
    files = source.files
    mount = ClaimMount(files.claim.name, path, read_only=use != "restore")
    request = FilesSource(
        name=source.name,
        root=path,
        described=f"claim {files.claim.name}",
        paths=files.paths,
        exclude=files.exclude,
        one_file_system=files.one_file_system,
    )
    return request, Mounts(claims=(mount,))


def _postgresql(name: str, found: Postgresql) -> tuple[Source, Mounts]:
    secret = found.credentials_secret_ref
    ca, ca_mounts = (
        _ca(found.ca_secret_ref.name, found.ca_secret_ref.key) if found.ca_secret_ref else (None, ())
    )
    request = PostgresqlSource(
        name=name,
        host=found.host,
        port=found.port,
        database=found.database,
        username=credential(secret.name, secret.username_key),
        password=credential(secret.name, secret.password_key),
        ssl_mode=found.ssl_mode,
        ca_file=ca,
        format=found.format,
        schemas=found.schemas,
        exclude_tables=found.exclude_tables,
    )
    keys = SecretMount(secret.name, (secret.username_key, secret.password_key))
    return request, Mounts(secrets=(keys, *ca_mounts))


def _ca(secret: str, key: str) -> tuple[str, tuple[SecretMount, ...]]:
    return str(secret_file(secret, key)), (SecretMount(secret, (key,)),)
