"""S3, and the services that speak it.

Objects of unknown length go up in parts, two at a time, so that memory stays bounded; create-only is the store's
``If-None-Match``. Checksums of the SDK are asked for only where a call requires them: some services stored the
SDK's framing inside the object (boto/boto3#4435). What went up is read back by the pipeline in any case.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as TransportFailed,
)

from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import (
    CredentialsMissing,
    Failure,
    ObjectExists,
    ObjectMissing,
    StorageInvalid,
    StorageUnavailable,
)
from avalanche_backup.storage.base import ObjectInfo, ObjectWriter
from avalanche_contract.request import S3Storage

CHUNK = 1024 * 1024
PART = 8 * 1024 * 1024
LARGEST_PART = 64 * 1024 * 1024
IN_FLIGHT = 2
_PERMANENT = {
    "NoSuchBucket": ("BucketMissing", "the bucket does not exist: create it, or correct the name"),
    "InvalidBucketName": ("BucketMissing", "that is no name for a bucket"),
    "AccessDenied": ("AccessDenied", "access is denied: the key's policy must allow it"),
    "InvalidAccessKeyId": ("AccessDenied", "the access key is not known there"),
    "SignatureDoesNotMatch": ("AccessDenied", "the secret key does not fit the access key"),
    "403": ("AccessDenied", "access is denied: wrong key, or not allowed by its policy"),
    "PermanentRedirect": ("RegionWrong", "the bucket lies in another region"),
    "AuthorizationHeaderMalformed": ("RegionWrong", "the region is wrong for the bucket"),
    "EntityTooLarge": ("StorageFull", "the store does not take objects of this size"),
    "QuotaExceeded": ("StorageFull", "the store is full"),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_TAKEN = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


class S3Store:
    """The store of one bucket, beneath one prefix."""

    def __init__(self, storage: S3Storage) -> None:
        self.name = storage.name
        self._bucket = storage.bucket
        self._prefix = storage.prefix
        self._client = _client(storage)

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""
        return _Writer(self, key)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object."""
        condition = {} if overwrite else {"IfNoneMatch": "*"}
        with self.mapped(key):
            self._client.put_object(**self.at(key), Body=data, ContentMD5=_md5(data), **condition)

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Open an object."""
        with self.mapped(key):
            answer = self._client.get_object(**self.at(key))
        body = answer["Body"]
        try:
            yield self._chunks(body, key, answer["ContentLength"])
        finally:
            body.close()

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
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(self._prefix)
                    yield ObjectInfo(key, found["Size"], found["LastModified"])

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self.mapped(key):
            self._client.delete_object(**self.at(key))

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
        except EndpointConnectionError:
            raise StorageUnavailable(f"storage {self.name}: the endpoint cannot be reached") from None
        except (TransportFailed, HTTPClientError) as error:
            raise StorageUnavailable(f"storage {self.name}: {type(error).__name__} at {key}") from None
        except BotoCoreError as error:
            raise StorageInvalid(f"storage {self.name}: {type(error).__name__} at {key}") from None

    def _answered(self, error: ClientError, key: str) -> Failure:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in _TAKEN or status == 412:
            return ObjectExists(f"{self.name}: {key} is there already")
        if code in _PERMANENT:
            reason, remedy = _PERMANENT[code]
            return StorageInvalid(f"storage {self.name}, bucket {self._bucket}: {remedy}", reason=reason)
        if code in _MISSING:
            return ObjectMissing(f"{self.name}: there is no object {key}")
        if status == 501 or code == "NotImplemented":
            return StorageInvalid(
                f"storage {self.name}: the store does not know this request", reason="NotSupported"
            )
        if 400 <= status < 500 and status not in (408, 429):
            return StorageInvalid(f"storage {self.name}: refused with {code or status} at {key}")
        return StorageUnavailable(f"storage {self.name}: answered {code or status} at {key}")

    def _chunks(self, body: Any, key: str, expected: int) -> Iterator[bytes]:
        done = 0
        with self.mapped(key):
            while chunk := body.read(CHUNK):
                done += len(chunk)
                yield chunk
        if done != expected:
            raise StorageUnavailable(f"{self.name}: {key} ended after {done} of {expected} bytes")


class _Writer:
    """One object under way: a single request where it is small, else parts, two of them in flight."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store, self._key = store, key
        self._buffer = bytearray()
        self._upload: str | None = None
        self._number = 0
        self._etags: list[str] = []
        self._pending: deque[Future[str]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        rest = memoryview(data)
        while rest:
            taken = rest[: part_size(self._number + 1) - len(self._buffer)]
            self._buffer += taken
            rest = rest[len(taken) :]
            if len(self._buffer) == part_size(self._number + 1):
                self._send()

    def commit(self) -> None:
        """Make the object exist."""
        if self._upload is None:
            self._store.put(self._key, bytes(self._buffer))
            return
        if self._buffer:
            self._send()
        while self._pending:
            self._etags.append(self._pending.popleft().result())
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(self._etags, start=1)]
        with self._store.mapped(self._key):
            self._store.client.complete_multipart_upload(
                **self._store.at(self._key),
                UploadId=self._upload,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        self._upload = None
        self._close()

    def abort(self) -> None:
        """Give everything up, the parts that went up included."""
        upload, self._upload = self._upload, None
        self._close()
        if upload is not None:
            with suppress(Failure), self._store.mapped(self._key):
                self._store.client.abort_multipart_upload(**self._store.at(self._key), UploadId=upload)

    def _send(self) -> None:
        if self._upload is None:
            with self._store.mapped(self._key):
                answer = self._store.client.create_multipart_upload(**self._store.at(self._key))
            self._upload = answer["UploadId"]
            self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="upload")
        if len(self._pending) >= IN_FLIGHT:
            self._etags.append(self._pending.popleft().result())
        self._number += 1
        data, self._buffer = bytes(self._buffer), bytearray()
        if self._pool is None:
            raise StorageUnavailable(f"{self._key} is closed")
        self._pending.append(self._pool.submit(self._send_part, self._number, data))

    def _send_part(self, number: int, data: bytes) -> str:
        with self._store.mapped(self._key):
            answer = self._store.client.upload_part(
                **self._store.at(self._key),
                UploadId=self._upload,
                PartNumber=number,
                Body=data,
                ContentMD5=_md5(data),
            )
        return str(answer["ETag"])

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
        self._pending.clear()
        self._buffer = bytearray()


def part_size(number: int) -> int:
    """Give the size of a part: small at first, larger later, so that 10,000 parts reach 500 GiB in bounded memory."""
    return min(PART << ((number - 1) // 1000), LARGEST_PART)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _client(storage: S3Storage) -> Any:
    config = Config(  # type: ignore[no-untyped-call]
        signature_version="s3v4",
        connect_timeout=10,
        read_timeout=60,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=IN_FLIGHT + 2,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if storage.force_path_style else "auto"},
    )
    keys = {
        parameter: read_credential(credential)
        for parameter, credential in (
            ("aws_access_key_id", storage.access_key_id),
            ("aws_secret_access_key", storage.secret_access_key),
            ("aws_session_token", storage.session_token),
        )
        if credential is not None
    }
    return boto3.client(  # type: ignore[no-untyped-call]
        "s3",
        endpoint_url=storage.endpoint,
        region_name=storage.region or "us-east-1",
        verify=storage.ca_file,
        config=config,
        **keys,
    )
