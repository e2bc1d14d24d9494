"""What disks and network file systems do to a folder, and what comes of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import Failure, ObjectExists, StorageInvalid, StorageUnavailable
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_contract.storage import DirectoryStorage

CALLS = "avalanche_backup.storage.directory.os."


@pytest.fixture
def store(folder: DirectoryStorage) -> Store:
    return open_store(folder)


def upload(store: Store, data: bytes = b"data") -> None:
    writer = store.create("a/object")
    try:
        writer.write(data)
        writer.commit()
    finally:
        writer.abort()


def failing(error: int, *, times: int = 1000, skip: int = 0, real: Callable[..., Any] | None = None) -> Any:
    """Give a call that fails some times; with ``real`` it is carried out first, as when a reply is lost."""
    count = 0

    def call(*arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        found = real(*arguments, **more) if real else None
        if skip < count <= skip + times:
            raise OSError(error, os.strerror(error))
        return found

    return call


def leftovers(folder: DirectoryStorage) -> list[Path]:
    return [path for path in Path(folder.root).rglob("*") if path.is_file()]


@pytest.mark.parametrize(("call", "told"), [
    ("write", (errno.EIO, "StorageUnavailable")),
    ("write", (errno.ENOSPC, "StorageFull")),
    ("write", (errno.EDQUOT, "StorageFull")),
    ("fsync", (errno.EIO, "StorageUnavailable")),
    ("fsync", (errno.ENOSPC, "StorageFull")),
    ("link", (errno.EPERM, "PermissionDenied")),
    ("link", (errno.EIO, "StorageUnavailable")),
    ("open", (errno.EROFS, "PermissionDenied")),
    ("open", (errno.ESTALE, "StorageUnavailable")),
])  # fmt: skip
def test_a_disk_that_fails_is_named_and_nothing_is_left(
    folder: DirectoryStorage, store: Store, monkeypatch: pytest.MonkeyPatch, call: str, told: tuple[int, str]
) -> None:
    error, reason = told
    with monkeypatch.context() as broken:
        broken.setattr(CALLS + call, failing(error))
        with pytest.raises(Failure) as raised:
            upload(store)
    assert raised.value.reason == reason and leftovers(folder) == []


def test_a_name_that_is_not_durable_is_taken_back(
    folder: DirectoryStorage, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was synced, its folder was not: after a power failure the name would be gone."""
    with monkeypatch.context() as broken:
        broken.setattr(CALLS + "fsync", failing(errno.EIO, skip=1, real=os.fsync))
        with pytest.raises(StorageUnavailable):
            upload(store)
    assert leftovers(folder) == []


def test_short_writes_lose_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(CALLS + "write", lambda file, data: real(file, bytes(data[:1000])))
    data = os.urandom(12_345)
    upload(store, data)
    with store.read("a/object") as chunks:
        assert b"".join(chunks) == data


def test_a_link_whose_reply_was_lost_is_a_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS sends it again, and finds the name taken: by the very file."""
    with monkeypatch.context() as broken:
        broken.setattr(CALLS + "link", failing(errno.EEXIST, real=os.link))
        upload(store)
    assert store.head("a/object") is not None


def test_a_link_that_finds_the_file_of_another_is_no_commit(store: Store) -> None:
    upload(store, b"of another")
    with pytest.raises(ObjectExists):
        upload(store, b"ours")
    with store.read("a/object") as chunks:
        assert b"".join(chunks) == b"of another"


def test_a_disk_that_cannot_be_read_is_a_failure_and_never_an_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(store, bytes(3_000_000))
    real = os.read
    monkeypatch.setattr(CALLS + "read", failing(errno.EIO, skip=1, real=real))
    with store.read("a/object") as chunks, pytest.raises(StorageUnavailable):
        list(chunks)


def test_a_file_that_shrinks_while_it_is_read_is_a_failure(folder: DirectoryStorage, store: Store) -> None:
    upload(store, bytes(3_000_000))
    with store.read("a/object") as chunks:
        next(iter(chunks))
        os.truncate(Path(folder.root, "a/object"), 1_500_000)
        with pytest.raises(StorageUnavailable, match="ended after 1500000 of 3000000 bytes"):
            list(chunks)


def test_a_volume_that_is_not_mounted_is_no_empty_storage(folder: DirectoryStorage, store: Store) -> None:
    Path(folder.root).rmdir()
    for ask in (lambda: list(store.list("")), lambda: store.head("a"), lambda: upload(store)):
        with pytest.raises(StorageInvalid) as raised:
            ask()
        assert raised.value.reason == "StorageMissing"


def test_a_folder_is_no_object(store: Store) -> None:
    upload(store)
    assert store.head("a") is None
