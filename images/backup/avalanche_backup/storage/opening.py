"""From a storage of the request to its store. SDKs are loaded only when theirs is opened."""

from __future__ import annotations

from avalanche_backup.storage.answers import check_authority
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.directory import DirectoryStore
from avalanche_contract.storage import AzureStorage, DirectoryStorage, S3Storage, Storage


def open_store(storage: Storage) -> Store:
    """Open a store; nothing is asked of it yet.

    :raises CredentialsMissing: a Secret, key, variable or certificate authority that it names is missing.
    """
    if isinstance(storage, DirectoryStorage):
        return DirectoryStore(storage)
    check_authority(storage.name, storage.ca_file)
    if isinstance(storage, S3Storage):
        from avalanche_backup.storage.s3 import S3Store  # noqa: PLC0415 - the SDK takes 0.3 s to load

        return S3Store(storage)
    if isinstance(storage, AzureStorage):
        from avalanche_backup.storage.azure import AzureStore  # noqa: PLC0415 - likewise

        return AzureStore(storage)
    from avalanche_backup.storage.gcs import GcsStore  # noqa: PLC0415 - likewise

    return GcsStore(storage)
