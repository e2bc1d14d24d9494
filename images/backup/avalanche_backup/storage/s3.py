"""S3, and the services that speak it.

Objects of unknown length go up in parts (:mod:`parts`); create-only is the store's ``If-None-Match``. Every body
carries its MD5, which the store compares. Checksums of the SDK are asked for only where a call requires them: some
services stored the SDK's framing inside the object (boto/boto3#4435). Every object carries the mark of its writer, so
that a write whose reply was lost is known as ours. What went up is read back by the pipeline in any case.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import IO, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as TransportFailed,
)

from avalanche_backup.credentials import find_credential, read_credential
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
    TRIES,
    Answers,
    broken_off,
)
from avalanche_backup.storage.base import CHUNK, PAGE, WRITER, ObjectInfo, ObjectWriter, new_token
from avalanche_backup.storage.parts import IN_FLIGHT, Part, PartPlan, PartUploads, patiently, put_marked
from avalanche_contract.storage import S3Storage

PARTS = PartPlan(most=10_000)
READ_TRIES = 4
_DENIED = ("AccessDenied", "access is denied: wrong key, or not allowed by its policy")
_REFUSED = {
    "NoSuchBucket": ("BucketMissing", "the bucket does not exist: create it, or correct the name"),
    "InvalidBucketName": ("BucketMissing", "that is no name for a bucket"),
    "AccessDenied": ("AccessDenied", "access is denied: the key's policy must allow it"),
    "InvalidAccessKeyId": ("AccessDenied", "the access key is not known there"),
    "SignatureDoesNotMatch": ("AccessDenied", "the secret key does not fit the access key"),
    "401": _DENIED,
    "403": _DENIED,
    "PermanentRedirect": ("RegionWrong", "the bucket lies in another region"),
    "AuthorizationHeaderMalformed": ("RegionWrong", "the region is wrong for the bucket"),
    "EntityTooLarge": FULL,
    "QuotaExceeded": ("StorageFull", "the store is full"),
    "XMinioStorageFull": ("StorageFull", "the store is full"),
    "RequestTimeTooSkewed": (
        "ClockSkew",
        "the clocks differ by more than the store accepts: set this machine's",
    ),
    "NotImplemented": ("NotSupported", "the store does not know this request"),
    "501": ("NotSupported", "the store does not know this request"),
}
_DAMAGED = (DAMAGED, "a body arrived damaged")
_AGAIN = {
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"), EXPIRED
    ),
    **dict.fromkeys(("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"), _DAMAGED),
    "NoSuchUpload": ("UploadLost", "the upload was aborted by somebody else"),
}
_MISSING = frozenset({"NoSuchKey", "404"})
_TAKEN = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})


class S3Store:
    """The store of one bucket, beneath one prefix."""

    def __init__(self, storage: S3Storage) -> None:
        self.name, self.trusted_keys = storage.name, storage.trusted_keys or ()
        self._bucket = storage.bucket
        self._prefix = storage.prefix
        self.conditional = not storage.single_writer
        self._answers = Answers(
            self.name,
            f"bucket {self._bucket}",
            taken=_TAKEN,
            missing=_MISSING,
            refused=_REFUSED,
            again=_AGAIN,
        )
        self._client = _client(storage)

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""
        return _Writer(self, key)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object."""
        condition = {} if overwrite else self.create_only(key)
        put_marked(
            lambda token: self._put(key, data, token, condition),
            lambda token: self.wrote(key, token, len(data)),
        )

    def _put(self, key: str, data: bytes, token: str, condition: dict[str, str]) -> None:
        with self.mapped(key):
            self._client.put_object(
                **self.at(key), Body=data, ContentMD5=md5(data), Metadata={WRITER: token}, **condition
            )

    def create_only(self, key: str) -> dict[str, str]:
        """Give the condition of a create-only write; where the store knows none, look whether the name is free.

        :raises ObjectExists: it is not.
        """
        if self.conditional:
            return {"IfNoneMatch": "*"}
        if self.head(key) is not None:
            raise ObjectExists(f"{self.name}: {key} is there already")
        return {}

    def wrote(self, key: str, token: str, size: int) -> bool:
        """Say whether the object there is what a writer of ours has just written: its reply may have been lost."""
        try:
            with self.mapped(key):
                found = self._client.head_object(**self.at(key))
        except Failure:
            return False
        return bool(found.get("Metadata", {}).get(WRITER) == token and found["ContentLength"] == size)

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Open an object; a stream that breaks is taken up where it broke."""
        answer = self._get(key)
        chunks = self._chunks(key, answer)
        try:
            yield chunks
        finally:
            with suppress(ValueError):  # a thread that was left behind still reads
                chunks.close()
            answer["Body"].close()

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is there."""
        try:
            with self.mapped(key):
                answer = self._client.head_object(**self.at(key))
        except ObjectMissing:
            return None
        return ObjectInfo(key, answer["ContentLength"], answer["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object beneath a prefix."""
        pages = self._client.get_paginator("list_objects_v2")
        with self.mapped(prefix):
            for page in pages.paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix, PaginationConfig={"PageSize": PAGE}
            ):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key, found["Size"], found["LastModified"])

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.mapped(key):
            self._client.delete_object(**self.at(key))

    def remove_abandoned(self, prefix: str, before: datetime) -> int:
        """Abort the multipart uploads that began before a moment and were never ended."""
        pages, removed = self._client.get_paginator("list_multipart_uploads"), 0
        with self.mapped(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                old = [each for each in page.get("Uploads", ()) if each["Initiated"] < before]
                for each in old:
                    with suppress(self._client.exceptions.NoSuchUpload):  # it ended meanwhile
                        self._client.abort_multipart_upload(
                            Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"]
                        )
                        removed += 1
        return removed

    def locate(self, key: str) -> str:
        """Name the object for a person."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def at(self, key: str) -> dict[str, str]:
        """Give the parameters that name an object."""
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    @property
    def client(self) -> Any:
        """The SDK's client."""
        return self._client

    @contextmanager
    def mapped(self, key: str) -> Iterator[None]:
        """Turn the SDK's errors into ours; no body of an answer reaches a message."""
        try:
            yield
        except ClientError as error:
            raise self._answered(error, key) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise CredentialsMissing(
                f"storage {self.name}: there are no credentials for S3: name a Secret, or set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or use the identity of the machine"
            ) from None
        except CredentialRetrievalError:
            raise CredentialsMissing(
                f"storage {self.name}: the identity of the pod or machine gave no credentials for S3"
            ) from None
        except EndpointConnectionError:
            raise StorageUnavailable(f"storage {self.name}: the endpoint cannot be reached") from None
        except SSLError as error:
            raise broken_off(self.name, error, "the TLS connection broke") from None
        except (TransportFailed, HTTPClientError, IncompleteReadError) as error:
            raise StorageUnavailable(f"storage {self.name}: {type(error).__name__} at {key}") from None
        except BotoCoreError as error:
            raise StorageInvalid(f"storage {self.name}: {type(error).__name__} at {key}") from None

    def _answered(self, error: ClientError, key: str) -> Failure:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return self._answers.failure(code, status, key)

    def _get(self, key: str, **more: str) -> Any:
        with self.mapped(key):
            return self._client.get_object(**self.at(key), **more)

    def _chunks(self, key: str, answer: Any) -> Generator[bytes, None, None]:
        done, expected, tries = 0, answer["ContentLength"], 0
        while True:
            try:
                with self.mapped(key):
                    while chunk := answer["Body"].read(CHUNK):
                        done, tries = done + len(chunk), 0
                        yield chunk
                if done == expected:
                    return
                raise StorageUnavailable(f"{self.name}: {key} ended after {done} of {expected} bytes")
            except StorageUnavailable:
                tries += 1
                if tries == READ_TRIES or done == expected:
                    raise
            finally:
                answer["Body"].close()
            answer = self._get_rest(key, done, answer["ETag"])

    def _get_rest(self, key: str, done: int, etag: str) -> Any:
        try:
            return self._get(key, Range=f"bytes={done}-", IfMatch=etag)
        except ObjectExists:
            raise StorageUnavailable(f"{self.name}: {key} was replaced while it was read") from None


class _Writer:
    """One object under way: a single request where it is small, else parts."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key, self._token = store, key, new_token()
        self._upload: str | None = None
        self._size = 0
        self._parts = PartUploads(self._begin, self._send, PARTS)

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
            answers = self._parts.finish()
            patiently(lambda: self._complete(answers))
            self._upload = None
        self._parts.close()

    def abort(self) -> None:
        """Give everything up, the parts that went up included."""
        upload, self._upload = self._upload, None
        self._parts.close()
        if upload is not None:
            with suppress(Failure), self._store.mapped(self._key):
                self._store.client.abort_multipart_upload(**self._store.at(self._key), UploadId=upload)

    def _begin(self) -> None:
        with self._store.mapped(self._key):
            answer = self._store.client.create_multipart_upload(
                **self._store.at(self._key), Metadata={WRITER: self._token}
            )
        self._upload = answer["UploadId"]

    def _send(self, part: Part) -> str:
        checksum = md5(part.body())
        with self._store.mapped(self._key):
            answer = self._store.client.upload_part(
                **self._store.at(self._key),
                UploadId=self._upload,
                PartNumber=part.number,
                Body=part.body(),
                ContentMD5=checksum,
            )
        return str(answer["ETag"])

    def _complete(self, etags: list[str]) -> None:
        """Ask for the object; an answer that is an error, empty or lost is no verdict: what lies there is."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, start=1)]
        try:
            with self._store.mapped(self._key):
                answer = self._store.client.complete_multipart_upload(
                    **self._store.at(self._key),
                    UploadId=self._upload,
                    MultipartUpload={"Parts": parts},
                    **self._store.create_only(self._key),
                )
            if not answer.get("ETag"):
                raise StorageUnavailable(f"storage {self._store.name}: an empty answer at {self._key}")
        except Failure:
            if not self._store.wrote(self._key, self._token, self._size):
                raise


def md5(body: bytes | IO[bytes]) -> str:
    """Give the checksum that a store compares, as its header has it."""
    if isinstance(body, bytes):
        digest = hashlib.md5(body, usedforsecurity=False)
    else:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := body.read(CHUNK):
            digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()


def _client(storage: S3Storage) -> Any:
    config = Config(  # type: ignore[no-untyped-call]
        signature_version="s3v4",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": TRIES},
        max_pool_connections=IN_FLIGHT + 2,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if storage.force_path_style else "auto"},
    )
    keys = {}
    if storage.access_key_id and storage.secret_access_key:
        keys = {
            "aws_access_key_id": read_credential(storage.access_key_id),
            "aws_secret_access_key": read_credential(storage.secret_access_key),
            "aws_session_token": find_credential(storage.session_token),
        }
    return boto3.client(  # type: ignore[no-untyped-call]
        "s3",
        endpoint_url=storage.endpoint,
        region_name=storage.region or "us-east-1",
        verify=storage.ca_file,
        config=config,
        **keys,
    )
