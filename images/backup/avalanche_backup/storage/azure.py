"""Azure Blob Storage.

Objects of unknown length go up as blocks (:mod:`parts`) that nobody sees before the list of them is committed, with
``If-None-Match: *``. Every body carries its MD5, which the service compares. Blocks that were never committed expire
after a week; there is no request that removes them. Every blob carries the mark of its writer, so that a write whose
reply was lost is known as ours.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
)
from azure.storage.blob import BlobBlock, BlobClient, ContainerClient

from avalanche_backup.credentials import find_credential
from avalanche_backup.errors import (
    CredentialsMissing,
    Failure,
    ObjectExists,
    ObjectMissing,
    StorageUnavailable,
)
from avalanche_backup.storage.answers import (
    CONNECT_SECONDS,
    DAMAGED,
    EXPIRED,
    FULL,
    READ_SECONDS,
    TRIES,
    Answers,
    broken_off,
)
from avalanche_backup.storage.base import PAGE, WRITER, ObjectInfo, ObjectWriter, new_token
from avalanche_backup.storage.parts import (
    IN_FLIGHT,
    MIB,
    Part,
    PartPlan,
    PartUploads,
    patiently,
    put_marked,
)
from avalanche_contract.storage import AzureStorage

PARTS = PartPlan(most=50_000)
READ_BYTES = 4 * MIB
_DENIED = ("AccessDenied", "access is denied: the key's or identity's role must allow it")
_REFUSED = {
    "ContainerNotFound": ("BucketMissing", "the container does not exist: create it, or correct the name"),
    "ContainerBeingDeleted": ("BucketMissing", "the container is being deleted"),
    "InvalidResourceName": ("BucketMissing", "that is no name for a container"),
    "ContainerDisabled": ("AccessDenied", "the container is disabled"),
    "AccountIsDisabled": ("AccessDenied", "the account is disabled"),
    "AuthenticationFailed": ("AccessDenied", "the key or signature is not accepted"),
    "NoAuthenticationInformation": ("AccessDenied", "the service wants credentials"),
    "InvalidAuthenticationInfo": ("AccessDenied", "the credentials are not accepted"),
    "BlobImmutableDueToPolicy": ("AccessDenied", "an immutability policy holds the blob"),
    "RequestBodyTooLarge": FULL,
    "413": FULL,
    "401": _DENIED,
    "403": _DENIED,
}
_AGAIN = {
    "SignatureExpired": EXPIRED,  # not Azure's: see AzureStore._answered
    # InvalidOperation is Azurite's word for it.
    **dict.fromkeys(("Md5Mismatch", "InvalidMd5", "InvalidOperation"), (DAMAGED, "a body arrived damaged")),
    "ConditionNotMet": ("Replaced", "an object was replaced while it was read"),
}
_MISSING = frozenset({"BlobNotFound", "404"})
_TAKEN = frozenset({"BlobAlreadyExists", "ResourceAlreadyExists", "UnauthorizedBlobOverwrite"})


class AzureStore:
    """The store of one container, beneath one prefix."""

    def __init__(self, storage: AzureStorage) -> None:
        self.name, self.trusted_keys = storage.name, storage.trusted_keys or ()
        self.conditional = True
        self._answers = Answers(
            self.name, f"container {storage.container}",
            taken=_TAKEN, missing=_MISSING, refused=_REFUSED, again=_AGAIN,
        )  # fmt: skip
        self._prefix = storage.prefix
        self._container = _client(storage)

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""
        return _Writer(self, key)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object."""
        put_marked(
            lambda token: self._put(key, data, token, overwrite),
            lambda token: self.wrote(key, token, len(data)),
        )

    def _put(self, key: str, data: bytes, token: str, overwrite: bool) -> None:
        with self.mapped(key):
            self.blob(key).upload_blob(
                data, overwrite=overwrite, validate_content=True, metadata={WRITER: token}
            )

    def wrote(self, key: str, token: str, size: int) -> bool:
        """Say whether the object there is what a writer of ours has just written: its reply may have been lost."""
        try:
            found = self._properties(key)
        except Failure:
            return False
        return bool(found.metadata.get(WRITER) == token and found.size == size)

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Open an object; the SDK asks for a few MiB at a time, and again where a stream breaks."""
        with self.mapped(key):
            found = self.blob(key).download_blob(max_concurrency=1)
        yield self._chunks(key, found)

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is there."""
        try:
            found = self._properties(key)
        except ObjectMissing:
            return None
        return ObjectInfo(key, found.size, found.last_modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object beneath a prefix."""
        with self.mapped(prefix):
            for found in self._container.list_blobs(
                name_starts_with=self._prefix + prefix, results_per_page=PAGE
            ):
                yield ObjectInfo(found.name.removeprefix(self._prefix), found.size, found.last_modified)

    def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            with self.mapped(key):
                self.blob(key).delete_blob(delete_snapshots="include")
        except ObjectMissing:
            pass

    def remove_abandoned(self, prefix: str, before: datetime) -> int:
        """Do nothing: blocks that were never committed expire after a week."""
        del prefix, before
        return 0

    def locate(self, key: str) -> str:
        """Name the object for a person."""
        return f"{self._container.url.partition('?')[0]}/{self._prefix}{key}"

    def blob(self, key: str) -> BlobClient:
        """Give the SDK's client of one object."""
        return self._container.get_blob_client(self._prefix + key)

    def _properties(self, key: str) -> Any:
        with self.mapped(key):
            return self.blob(key).get_blob_properties()

    def _chunks(self, key: str, found: Any) -> Iterator[bytes]:
        done = 0
        with self.mapped(key):
            for chunk in found.chunks():
                done += len(chunk)
                yield chunk
        if done != found.size:
            raise StorageUnavailable(f"{self.name}: {key} ended after {done} of {found.size} bytes")

    @contextmanager
    def mapped(self, key: str) -> Iterator[None]:
        """Turn the SDK's errors into ours; no body of an answer reaches a message."""
        try:
            yield
        except ClientAuthenticationError as error:
            raise self._unauthenticated(error) from None
        except HttpResponseError as error:
            raise self._answered(error, key) from None
        except ServiceRequestError as error:
            raise broken_off(self.name, error, "the endpoint cannot be reached") from None
        except AzureError as error:
            raise broken_off(self.name, error, f"{type(error).__name__} at {key}") from None

    def _unauthenticated(self, error: ClientAuthenticationError) -> Failure:
        if error.response is None:
            return CredentialsMissing(
                f"storage {self.name}: there are no credentials for Azure that work: name a Secret, or set "
                "AZURE_STORAGE_CONNECTION_STRING, or use the identity of the pod or machine"
            )
        return self._answered(error, "")

    def _answered(self, error: HttpResponseError, key: str) -> Failure:
        found: Any = getattr(error, "error_code", None)
        code = str(getattr(found, "value", found) or "")
        if code == "AuthenticationFailed" and "expir" in str(getattr(error, "additional_info", "")).lower():
            code = "SignatureExpired"
        return self._answers.failure(code, int(error.status_code or 0), key)


class _Writer:
    """One object under way: a single request where it is small, else blocks."""

    def __init__(self, store: AzureStore, key: str) -> None:
        self._store, self._key, self._token = store, key, new_token()
        self._size = 0
        self._parts = PartUploads(lambda: None, self._send, PARTS)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._parts.write(data)
        self._size += len(data)

    def commit(self) -> None:
        """Make the object exist."""
        single = self._parts.single
        if single is not None:
            self._store.put(self._key, single)
        else:
            blocks = [BlobBlock(block_id=each) for each in self._parts.finish()]
            patiently(lambda: self._commit(blocks))
        self._parts.close()

    def abort(self) -> None:
        """Give everything up; nobody sees the blocks, and they expire."""
        self._parts.close()

    def _send(self, part: Part) -> str:
        # Two writers of one name share its blocks: each of them has names of its own.
        block = base64.b64encode(f"{self._token}-{part.number:05}".encode()).decode()
        with self._store.mapped(self._key):
            self._store.blob(self._key).stage_block(
                block, part.body(), length=part.size, validate_content=True
            )
        return block

    def _commit(self, blocks: list[BlobBlock]) -> None:
        """Ask for the object; an answer that is an error or lost is no verdict: what lies there is."""
        try:
            with self._store.mapped(self._key):
                self._store.blob(self._key).commit_block_list(
                    blocks, metadata={WRITER: self._token}, match_condition=MatchConditions.IfMissing
                )
        except Failure:
            if self._store.wrote(self._key, self._token, self._size):
                return
            if self._store.head(self._key) is not None:  # it took our blocks away when it was committed
                raise ObjectExists(f"{self._store.name}: {self._key} is there already") from None
            raise


def _throttled(response: Any) -> None:
    """Let the SDK try again after 429, which it does only after 503: gateways in front of Azure answer so."""
    if response.http_response.status_code == 429:
        response.http_response.status_code = 503


def _client(storage: AzureStorage) -> ContainerClient:
    options: dict[str, Any] = {
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retry_total": TRIES - 1,
        "initial_backoff": 1,
        "increment_base": 2,
        "random_jitter_range": 1,
        "max_single_get_size": READ_BYTES,
        "max_chunk_get_size": READ_BYTES,
        "connection_pool_size": IN_FLIGHT + 2,
        "raw_response_hook": _throttled,
    }
    if storage.ca_file is not None:
        options["connection_verify"] = storage.ca_file
    text = find_credential(storage.connection_string)
    try:
        if text is not None:
            return ContainerClient.from_connection_string(text, storage.container, **options)
        return ContainerClient(
            _account_url(storage), storage.container, credential=_credential(storage), **options
        )
    except ValueError:
        raise CredentialsMissing(
            f"storage {storage.name}: the connection string, account or endpoint cannot be read: copy it again from the portal",
            reason="CredentialsInvalid",
        ) from None


def _account_url(storage: AzureStorage) -> str:
    if storage.endpoint is None and storage.account_name is None:
        raise CredentialsMissing(
            f"storage {storage.name}: neither a connection string nor an account is named"
        )
    return storage.endpoint or f"https://{storage.account_name}.blob.core.windows.net"


def _credential(storage: AzureStorage) -> Any:
    key = find_credential(storage.account_key)
    if key is not None:
        return {"account_name": storage.account_name or "", "account_key": key}
    if storage.account_key is not None or storage.connection_string is not None:
        named = [each.described for each in (storage.connection_string, storage.account_key) if each]
        raise CredentialsMissing(f"{' or '.join(named)} is missing or empty")
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - loads half a second of modules

    return DefaultAzureCredential(
        exclude_cli_credential=True,
        exclude_developer_cli_credential=True,
        exclude_powershell_credential=True,
        exclude_visual_studio_code_credential=True,
        exclude_shared_token_cache_credential=True,
    )
