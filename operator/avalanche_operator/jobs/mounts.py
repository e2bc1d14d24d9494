"""From specs to the parts of a request, and to what a pod must mount for them. Pure.

A request names paths as the container sees them; the mounts say how those paths come to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from avalanche_contract.base import Credential
from avalanche_contract.names import secret_file, source_mount, storage_mount
from avalanche_contract.request import Encryption
from avalanche_contract.source import FilesSource, PostgresqlSource, Preserve, Source, SqliteSource
from avalanche_contract.storage import AzureStorage, DirectoryStorage, GcsStorage, Place, S3Storage, Storage
from avalanche_operator.api.common import (
    IdentityReference,
    KeyReference,
    RecipientsReference,
    SigningKeyReference,
)
from avalanche_operator.api.policy import PolicyEncryption, PolicySigning
from avalanche_operator.api.restore import RestoredPreserve
from avalanche_operator.api.source import PolicySource, Postgresql
from avalanche_operator.api.source import Preserve as PolicyPreserve
from avalanche_operator.api.storage import S3, Azure, BackupStorageSpec, GoogleCloudStorage

_OneKey = KeyReference | RecipientsReference | IdentityReference | SigningKeyReference


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
class Identity:
    """A ServiceAccount that a cloud trusts, in place of keys."""

    service_account: str
    azure: bool = False
    """Azure's webhook wants to be asked, by a label of the pod."""


@dataclass(frozen=True)
class Mounts:
    """All that a pod mounts, and as whom it runs."""

    claims: tuple[ClaimMount, ...] = ()
    secrets: tuple[SecretMount, ...] = ()
    identities: tuple[Identity, ...] = ()

    def __add__(self, other: Mounts) -> Mounts:
        return Mounts(
            claims=tuple(dict.fromkeys(self.claims + other.claims)),
            secrets=tuple(dict.fromkeys(self.secrets + other.secrets)),
            identities=tuple(dict.fromkeys(self.identities + other.identities)),
        )


@lru_cache(maxsize=1024)
def credential(secret: str, key: str) -> Credential:
    """Say where a key of a Secret is read, and how to name it to a person."""
    return Credential(described=f'key "{key}" of Secret "{secret}"', file=str(secret_file(secret, key)))


def storage_part(name: str, spec: BackupStorageSpec, *, prune: bool = False) -> tuple[Storage, Mounts]:
    """Give the storage of a request, and its mounts; ``prune`` takes what may delete, where it is another."""
    if spec.claim is not None:
        path = str(storage_mount(name))
        read_only = spec.access_mode == "ReadOnly"
        mount = ClaimMount(spec.claim.name, path, read_only, spec.claim.sub_path)
        return DirectoryStorage(name=name, root=path), Mounts(claims=(mount,))
    if prune and (spec.prune_credentials_secret_ref or spec.prune_service_account_name) is not None:
        pruner = {
            "credentials_secret_ref": spec.prune_credentials_secret_ref,
            "service_account_name": spec.prune_service_account_name,
        }
        spec = spec.model_copy(update=pruner)
    if spec.s3 is not None:
        return _s3(name, spec, spec.s3)
    if spec.azure is not None:
        return _azure(name, spec, spec.azure)
    if spec.gcs is not None:
        return _gcs(name, spec, spec.gcs)
    raise ValueError(f"storage {name} has no backend")  # the CRD refuses it


def _s3(name: str, spec: BackupStorageSpec, s3: S3) -> tuple[Storage, Mounts]:
    ca, ca_mounts = _authority(s3.ca_secret_ref)
    (access, secret, token), mounts = _trusted(
        spec, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
    )
    storage = S3Storage(
        name=name,
        bucket=s3.bucket,
        prefix=_prefix(s3.prefix),
        region=s3.region,
        endpoint=s3.endpoint,
        force_path_style=s3.force_path_style,
        ca_file=ca,
        access_key_id=access,
        secret_access_key=secret,
        session_token=token,
        single_writer=True if spec.conditional_writes == "SingleWriterAccepted" else None,
    )
    return storage, mounts + ca_mounts


def _azure(name: str, spec: BackupStorageSpec, azure: Azure) -> tuple[Storage, Mounts]:
    ca, ca_mounts = _authority(azure.ca_secret_ref)
    (connection, key), mounts = _trusted(spec, "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT_KEY")
    storage = AzureStorage(
        name=name,
        container=azure.container,
        prefix=_prefix(azure.prefix),
        account_name=azure.account_name,
        endpoint=azure.endpoint,
        ca_file=ca,
        connection_string=connection,
        account_key=key,
    )
    return storage, mounts + ca_mounts


def _gcs(name: str, spec: BackupStorageSpec, gcs: GoogleCloudStorage) -> tuple[Storage, Mounts]:
    ca, ca_mounts = _authority(gcs.ca_secret_ref)
    (found,), mounts = _trusted(spec, "GOOGLE_APPLICATION_CREDENTIALS_JSON")
    storage = GcsStorage(
        name=name,
        bucket=gcs.bucket,
        prefix=_prefix(gcs.prefix),
        project_id=gcs.project_id,
        endpoint=gcs.endpoint,
        ca_file=ca,
        credentials=found,
    )
    return storage, mounts + ca_mounts


def _trusted(spec: BackupStorageSpec, *keys: str) -> tuple[tuple[Credential | None, ...], Mounts]:
    """Give what makes a pod trusted by a store: its keys, or its identity."""
    secret, account = spec.credentials_secret_ref, spec.service_account_name
    mounts = Mounts(
        secrets=(SecretMount(secret.name, keys),) if secret else (),
        identities=(Identity(account, azure=spec.azure is not None),) if account else (),
    )
    return tuple(credential(secret.name, key) if secret else None for key in keys), mounts


def _authority(reference: KeyReference | None) -> tuple[str | None, Mounts]:
    found, mounts = _key(reference)
    return found.file if found else None, mounts


def _key(reference: _OneKey | None) -> tuple[Credential | None, Mounts]:
    """Give one key of a Secret, and its mounts."""
    if reference is None:
        return None, Mounts()
    mount = SecretMount(reference.name, (reference.key,))
    return credential(reference.name, reference.key), Mounts(secrets=(mount,))


def _prefix(text: str) -> str:
    return text if not text or text.endswith("/") else f"{text}/"


def encryption_part(spec: PolicyEncryption | None) -> tuple[Encryption | None, Mounts]:
    """Give whom a request encrypts for, and its mounts: public keys alone, whatever else the Secret holds."""
    if spec is None:
        return None, Mounts()
    if spec.recipients_secret_ref is None:
        return Encryption(recipients=spec.recipients), Mounts()
    found, mounts = _key(spec.recipients_secret_ref)
    return Encryption(recipients_file=found), mounts


def signing_part(spec: PolicySigning | None) -> tuple[Credential | None, Mounts]:
    """Give what signs a backup, and its mounts: for what makes backups, or their tombstones; never for what reads."""
    return _key(spec.key_secret_ref if spec else None)


def trusting(place: Place, spec: PolicySigning | None) -> Place:
    """Give a place whose backups are believed only as the policy says."""
    if spec is None or spec.trusted_keys is None:
        return place
    storage = place.storage.model_copy(update={"trusted_keys": spec.trusted_keys})
    return place.model_copy(update={"storage": storage})


def identity_part(reference: IdentityReference | None) -> tuple[Credential | None, Mounts]:
    """Give what opens an encrypted backup, and its mounts: for what reads backups, never for what makes them."""
    return _key(reference)


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
        preserve=preserve_part(files.preserve) if use == "backup" else None,
    )
    return request, Mounts(claims=(mount,))


def preserve_part(spec: PolicyPreserve | RestoredPreserve | None) -> Preserve | None:
    """Give what of files is held, or set; ``None`` where nothing is."""
    found = Preserve.model_validate(spec.model_dump()) if spec is not None else Preserve()
    return found if found != Preserve() else None


def _postgresql(name: str, found: Postgresql) -> tuple[Source, Mounts]:
    secret = found.credentials_secret_ref
    ca, ca_mounts = _authority(found.ca_secret_ref)
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
        jobs=found.jobs,
        include_globals=found.include_globals,
        schemas=found.schemas,
        exclude_tables=found.exclude_tables,
    )
    keys = SecretMount(secret.name, (secret.username_key, secret.password_key))
    return request, Mounts(secrets=(keys,)) + ca_mounts
