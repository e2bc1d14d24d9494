"""Google Cloud Storage.

Objects of unknown length go up in a resumable session with ``ifGenerationMatch=0``; nobody sees them before its last
request. The session is spoken here and not by the SDK's file writer: that one makes an object of whatever it holds when
it is closed, by the garbage collector too, and older emulators forget its precondition. Every object carries its
CRC32C, which the service compares, and the mark of its writer, so that a write whose reply was lost is known as ours.
Sessions that were never ended expire after a week.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import google.auth
import google_crc32c
import requests
from google.api_core.exceptions import GoogleAPICallError, RetryError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from google.auth.exceptions import GoogleAuthError as AuthFailed
from google.auth.transport.requests import AuthorizedSession
from google.cloud.storage import Blob, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY
from google.oauth2.service_account import Credentials
from requests.adapters import HTTPAdapter

from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import (
    CredentialsMissing,
    Failure,
    ObjectExists,
    ObjectMissing,
    StorageInvalid,
    StorageUnavailable,
)
from avalanche_backup.storage.answers import (
    CONNECT_SECONDS,
    DAMAGED,
    EXPIRED,
    FULL,
    READ_SECONDS,
    Answers,
    broken_off,
)
from avalanche_backup.storage.base import PAGE, WRITER, ObjectInfo, ObjectWriter, new_token
from avalanche_backup.storage.gcs_session import ResumableSession
from avalanche_backup.storage.parts import MIB, Part, PartPlan, PartUploads, patiently, put_marked
from avalanche_contract.storage import GcsStorage

_REFUSED = {
    "NoBucket": ("BucketMissing", "the bucket does not exist: create it, or correct the name"),
    "403": ("AccessDenied", "access is denied: the account's role must allow it"),
    "413": FULL,
}
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
READ_BYTES = 4 * MIB
PARTS = PartPlan(most=10**9, size=lambda _: 8 * MIB, in_flight=1)
"""A session takes its bytes in order, and any number of requests."""
RETRY = DEFAULT_RETRY.with_delay(initial=0.5, maximum=8.0).with_timeout(20.0)
_ASKED: dict[str, Any] = {"retry": RETRY, "timeout": (CONNECT_SECONDS, READ_SECONDS)}


class GcsStore:
    """The store of one bucket, beneath one prefix."""

    def __init__(self, storage: GcsStorage) -> None:
        self.name, self.trusted_keys = storage.name, storage.trusted_keys or ()
        self.conditional = True
        self._prefix = storage.prefix
        self._answers = Answers(
            self.name, f"bucket {storage.bucket}",
            taken=frozenset({"412"}), missing=frozenset({"404"}), refused=_REFUSED, again={"401": EXPIRED},
        )  # fmt: skip
        self._session = _session(storage)
        options = {"api_endpoint": storage.endpoint} if storage.endpoint else None
        self._client = Client(
            project=storage.project_id or "unused",
            credentials=self._session.credentials,
            _http=self._session,
            client_options=options,
        )
        self._bucket = self._client.bucket(storage.bucket)

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""
        return _Writer(self, key)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object."""
        put_marked(
            lambda token: self._put(key, data, token, overwrite),
            lambda token: self.wrote(key, token, crc32c(data)),
        )

    def _put(self, key: str, data: bytes, token: str, overwrite: bool) -> None:
        blob = self._blob(key)
        blob.metadata = {WRITER: token}
        with self.mapped(key, creates=True):
            blob.upload_from_string(
                data, checksum="crc32c", if_generation_match=None if overwrite else 0, **_ASKED
            )

    def wrote(self, key: str, token: str, checksum: str) -> bool:
        """Say whether the object there is what a writer of ours has just written: its reply may have been lost."""
        try:
            found = self._find(key)
        except Failure:
            return False
        return found is not None and (found.metadata or {}).get(WRITER) == token and found.crc32c == checksum

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Open an object; the SDK asks for a few MiB at a time, of one generation, and again where a stream breaks."""
        found = self._find(key)
        if found is None:
            raise ObjectMissing(f"{self.name}: there is no object {key}")
        yield self._chunks(key, found)

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is there."""
        found = self._find(key)
        return ObjectInfo(key, found.size, found.updated) if found is not None else None

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object beneath a prefix."""
        fields = "items(name,size,updated),nextPageToken"
        with self.mapped(prefix, creates=True):
            for found in self._client.list_blobs(
                self._bucket, prefix=self._prefix + prefix, page_size=PAGE, fields=fields, **_ASKED
            ):
                yield ObjectInfo(found.name.removeprefix(self._prefix), found.size, found.updated)

    def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            with self.mapped(key):
                self._blob(key).delete(**_ASKED)
        except ObjectMissing:
            pass

    def remove_abandoned(self, prefix: str, before: datetime) -> int:
        """Do nothing: sessions that were never ended expire after a week."""
        del prefix, before
        return 0

    def locate(self, key: str) -> str:
        """Name the object for a person."""
        return f"gs://{self._bucket.name}/{self._prefix}{key}"

    def begin(self, key: str, token: str) -> ResumableSession:
        """Begin a session that creates an object."""
        url = f"{self._client._connection.API_BASE_URL}/upload/storage/v1/b/{self._bucket.name}/o"
        with self.mapped(key, creates=True):
            return ResumableSession(self._session, url, self._prefix + key, {WRITER: token})

    def discard(self, key: str, generation: str) -> None:
        """Remove just what a session of ours made."""
        with suppress(Failure), self.mapped(key):
            self._blob(key).delete(if_generation_match=int(generation), **_ASKED)

    @contextmanager
    def mapped(self, key: str, *, creates: bool = False) -> Iterator[None]:
        """Turn the SDK's errors into ours; no body of an answer reaches a message.

        ``creates``: what is not there can only be the bucket.
        """
        try:
            yield
        except GoogleAPICallError as error:
            raise self._answered(int(error.code or 0), key, creates) from None
        except DataCorruption:
            raise StorageUnavailable(f"storage {self.name}: {key} arrived damaged", reason=DAMAGED) from None
        except InvalidResponse as error:
            raise self._answered(int(error.response.status_code), key, creates) from None
        except RefreshError as error:
            raise self._unauthenticated(error) from None
        except (AuthFailed, RetryError, requests.RequestException, OSError) as error:
            raise broken_off(self.name, error, f"{type(error).__name__} at {key}") from None

    def _unauthenticated(self, error: RefreshError) -> Failure:
        if error.retryable:
            return StorageUnavailable(f"storage {self.name}: no token could be had for the credentials")
        return StorageInvalid(
            f"storage {self.name}: the credentials are not accepted: the key was deleted, or the identity may not be used",
            reason="AccessDenied",
        )

    def _answered(self, status: int, key: str, creates: bool) -> Failure:
        return self._answers.failure("NoBucket" if status == 404 and creates else "", status, key)

    def _blob(self, key: str) -> Blob:
        return self._bucket.blob(self._prefix + key)

    def _find(self, key: str) -> Any:
        with self.mapped(key):
            return self._bucket.get_blob(self._prefix + key, **_ASKED)

    def _chunks(self, key: str, found: Blob) -> Iterator[bytes]:
        done, pinned = 0, Blob(found.name, self._bucket, generation=found.generation)
        with self.mapped(key), pinned.open("rb", chunk_size=READ_BYTES, **_ASKED) as file:
            while done < found.size and (chunk := file.read(READ_BYTES)):
                done += len(chunk)
                yield chunk
        if done != found.size:
            raise StorageUnavailable(f"{self.name}: {key} ended after {done} of {found.size} bytes")


class _Writer:
    """One object under way: a single request where it is small, else a session."""

    def __init__(self, store: GcsStore, key: str) -> None:
        self._store, self._key, self._token = store, key, new_token()
        self._hash = google_crc32c.Checksum()
        self._session: ResumableSession | None = None
        self._parts = PartUploads(self._begin, self._send, PARTS)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(bytes(data))
        self._parts.write(data)

    def commit(self) -> None:
        """Make the object exist."""
        single = self._parts.single
        if single is not None:
            self._store.put(self._key, single)
        else:
            self._parts.drain()
            # Known before the last part is sent in vain; that nobody comes in between is the session's precondition.
            if self._store.head(self._key) is not None:
                raise ObjectExists(f"{self._store.name}: {self._key} is there already")
            last = self._parts.last
            patiently(lambda: self._finish(last))
            self._session = None
        self._parts.close()

    def abort(self) -> None:
        """Give everything up, what went up included."""
        session, self._session = self._session, None
        self._parts.close()
        if session is not None:
            with suppress(Failure), self._store.mapped(self._key):
                session.cancel()

    def _begin(self) -> None:
        self._session = patiently(lambda: self._store.begin(self._key, self._token))

    def _send(self, part: Part) -> str:
        if self._session is not None:
            with self._store.mapped(self._key, creates=True):
                self._session.send(part.number, part.body())
        return ""

    def _finish(self, part: Part) -> None:
        """Send the last part; an answer that is an error or lost is no verdict: what lies there is."""
        checksum = _base64(self._hash)
        try:
            with self._store.mapped(self._key):
                answer = self._session.finish(part.body(), checksum) if self._session else {}
        except Failure as failure:
            if self._store.wrote(self._key, self._token, checksum):
                return
            raise self._lost(failure) from None
        if answer.get("crc32c") != checksum:
            self._store.discard(self._key, str(answer.get("generation", 0)))
            raise StorageUnavailable(
                f"storage {self._store.name}: {self._key} arrived damaged", reason="ChecksumMismatch"
            )

    def _lost(self, failure: Failure) -> Failure:
        """Give a session that the service has forgotten its right name: only a new one would do."""
        if isinstance(failure, ObjectMissing):
            return StorageUnavailable(
                f"storage {self._store.name}: the upload of {self._key} was lost", reason="UploadLost"
            )
        return failure


def crc32c(data: bytes) -> str:
    """Give the checksum as the service tells it."""
    return _base64(google_crc32c.Checksum(data))


def _base64(checksum: Any) -> str:
    return base64.b64encode(checksum.digest()).decode()


def _session(storage: GcsStorage) -> Any:
    session: Any = AuthorizedSession(_credentials(storage))
    if storage.ca_file is not None:
        session.mount("https://", _OwnAuthority(storage.ca_file))
    return session


class _OwnAuthority(HTTPAdapter):
    """Checks certificates by one authority, whatever REQUESTS_CA_BUNDLE says."""

    def __init__(self, ca_file: str) -> None:
        super().__init__()
        self._ca_file = ca_file

    def send(self, request: Any, **more: Any) -> Any:  # type: ignore[override] # only ever called by keywords
        """Send one request."""
        return super().send(request, **{**more, "verify": self._ca_file})


def _credentials(storage: GcsStorage) -> Any:
    if storage.credentials is not None:
        return _of_service_account(storage, read_credential(storage.credentials))
    if (storage.endpoint or "").startswith("http://"):
        return AnonymousCredentials()  # an emulator: no token goes out in the clear
    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except DefaultCredentialsError:
        raise CredentialsMissing(
            f"storage {storage.name}: there are no credentials for Google Cloud: name a Secret, or set "
            "GOOGLE_APPLICATION_CREDENTIALS, or use the identity of the pod or machine"
        ) from None


def _of_service_account(storage: GcsStorage, text: str) -> Any:
    try:
        return Credentials.from_service_account_info(json.loads(text), scopes=[SCOPE])
    except (ValueError, TypeError, AttributeError):
        raise CredentialsMissing(
            f"storage {storage.name}: {storage.credentials.described if storage.credentials else ''} is not the JSON of a "
            "service account's key",
            reason="CredentialsInvalid",
        ) from None
