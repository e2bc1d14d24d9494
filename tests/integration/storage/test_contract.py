"""What every store must do, tried on each of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from avalanche_backup.errors import ObjectExists, ObjectMissing, StorageInvalid, StorageUnavailable
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_contract.request import DirectoryStorage, S3Storage, Storage


@pytest.fixture
def store(storage: Storage) -> Store:
    return open_store(storage)


def read(store: Store, key: str) -> bytes:
    with store.read(key) as chunks:
        return b"".join(chunks)


@pytest.mark.parametrize("size", [0, 1, 8 * 1024 * 1024, 21 * 1024 * 1024 + 7])
def test_an_object_of_any_length_comes_back(store: Store, size: int) -> None:
    data = os.urandom(size)
    writer = store.create("a/object")
    for start in range(0, size, 1_000_003):
        writer.write(data[start : start + 1_000_003])
    assert store.head("a/object") is None
    writer.commit()
    writer.abort()
    found = store.head("a/object")
    assert found is not None and found.size == size
    assert hashlib.sha256(read(store, "a/object")).digest() == hashlib.sha256(data).digest()


def test_an_aborted_object_leaves_nothing(store: Store) -> None:
    writer = store.create("a/object")
    writer.write(bytes(20 * 1024 * 1024))
    writer.abort()
    assert list(store.list("")) == [] and store.head("a/object") is None


def test_of_two_writers_of_one_name_the_first_to_commit_wins(store: Store) -> None:
    one, two = store.create("name"), store.create("name")
    one.write(b"one")
    two.write(b"two")
    one.commit()
    with pytest.raises(ObjectExists):
        two.commit()
    two.abort()
    assert read(store, "name") == b"one"


def test_large_objects_are_create_only_too(store: Store) -> None:
    store.put("name", b"first")
    writer = store.create("name")
    writer.write(bytes(20 * 1024 * 1024))
    with pytest.raises(ObjectExists):
        writer.commit()
    writer.abort()
    assert read(store, "name") == b"first"


def test_a_small_object_is_create_only_unless_told(store: Store) -> None:
    store.put("name", b"first")
    with pytest.raises(ObjectExists):
        store.put("name", b"second")
    store.put("name", b"third", overwrite=True)
    assert read(store, "name") == b"third"


def test_what_is_not_there_is_missing(store: Store) -> None:
    assert store.head("nowhere") is None
    with pytest.raises(ObjectMissing):
        read(store, "nowhere")
    store.delete("nowhere")


def test_a_list_holds_more_than_a_page_and_only_what_begins_alike(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("s3", "azure", "gcs"):
        monkeypatch.setattr(f"avalanche_backup.storage.{module}.PAGE", 10)
    keys = [f"many/{number:04}" for number in range(35)] + ["many-else", "other/inner/name"]
    for key in keys:
        store.put(key, b"x")
    assert sorted(each.key for each in store.list("")) == sorted(keys)
    assert len(list(store.list("many/"))) == 35
    assert [each.key for each in store.list("other/inner/na")] == ["other/inner/name"]


def test_a_deleted_object_is_gone(store: Store) -> None:
    store.put("name", b"x")
    store.delete("name")
    assert store.head("name") is None


def test_a_bucket_that_is_not_there_is_named(bucket: S3Storage) -> None:
    with pytest.raises(StorageInvalid) as raised:
        list(open_store(bucket.model_copy(update={"bucket": "no-such-bucket"})).list(""))
    assert raised.value.reason == "BucketMissing"


def test_a_wrong_key_is_named_and_not_shown(bucket: S3Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET", "wrong-secret-key")
    with pytest.raises(StorageInvalid) as raised:
        open_store(bucket).put("key", b"x")
    assert raised.value.reason == "AccessDenied" and "wrong-secret-key" not in raised.value.message


def test_an_endpoint_that_does_not_answer_is_worth_another_try(bucket: S3Storage) -> None:
    with pytest.raises(StorageUnavailable):
        open_store(bucket.model_copy(update={"endpoint": "http://127.0.0.1:1"})).put("key", b"x")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], check=True)
    try:
        store = open_store(DirectoryStorage(name="volume", root=str(tmp_path)))
        writer = store.create("object")
        with pytest.raises(StorageInvalid) as raised:
            writer.write(bytes(4 * 1024 * 1024))
        writer.abort()
        assert raised.value.reason == "StorageFull" and list(tmp_path.iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("key", ["../out", "/out", "a//b", "a/./b"])
def test_a_key_that_would_leave_a_folder_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(StorageInvalid):
        open_store(DirectoryStorage(name="volume", root=str(tmp_path))).put(key, b"x")
