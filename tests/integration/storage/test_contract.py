"""What every store must do, tried on each of them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from avalanche_backup.errors import (
    CredentialsMissing,
    ObjectExists,
    ObjectMissing,
    StorageInvalid,
    StorageUnavailable,
)
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_contract.base import Credential
from avalanche_contract.storage import AzureStorage, DirectoryStorage, GcsStorage, Storage
from tests.integration.conftest import STORAGES
from tests.integration.servers import Azurite

WRONG_KEY = "d3Jvbmcta2V5"


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


def test_what_is_left_open_is_removed_once_it_is_old(store: Store, storage: Storage) -> None:
    """Azure and Google expire it themselves, and say so by removing nothing."""
    for key in ("inside/old", "outside/old"):
        store.create(key).write(bytes(20 * 1024 * 1024))
    store.put("inside/whole", b"x")
    now = datetime.now(UTC)
    assert store.remove_abandoned("inside/", now - timedelta(hours=1)) == 0
    found = store.remove_abandoned("inside/", now + timedelta(hours=1))
    assert found == (1 if storage.kind in ("s3", "directory") else 0)
    assert store.remove_abandoned("inside/", now + timedelta(hours=1)) == 0
    assert store.remove_abandoned("", now + timedelta(hours=1)) == found
    assert [each.key for each in store.list("")] == ["inside/whole"]


def test_a_head_says_when_by_the_stores_clock(store: Store) -> None:
    store.put("name", b"four")
    found = store.head("name")
    assert found is not None and (found.key, found.size) == ("name", 4)
    assert abs(datetime.now(UTC) - found.modified) < timedelta(minutes=1)


@pytest.mark.parametrize("key", ["a b/c+d", "ä/漢字.json", "a%2Fb", "a?b#c"])
def test_a_key_of_any_characters_comes_back(store: Store, key: str) -> None:
    store.put(key, b"x")
    assert [each.key for each in store.list("")] == [key] and read(store, key) == b"x"
    store.delete(key)
    assert store.head(key) is None


def test_a_reader_that_stops_early_leaves_the_store_usable(store: Store) -> None:
    store.put("name", bytes(9 * 1024 * 1024))
    for _ in range(12):
        with store.read("name") as chunks:
            assert next(iter(chunks))
    assert len(read(store, "name")) == 9 * 1024 * 1024


GONE: dict[str, dict[str, object]] = {
    "s3": {"bucket": "no-such-bucket"},
    "azure": {"container": "no-such-container"},
    "gcs": {"bucket": "no-such-bucket"},
}


@pytest.mark.parametrize("kind", GONE)
def test_a_bucket_that_is_not_there_is_named(kind: str, request: pytest.FixtureRequest) -> None:
    storage: Storage = request.getfixturevalue(STORAGES[kind])
    store = open_store(storage.model_copy(update=GONE[kind]))
    with pytest.raises(StorageInvalid) as raised:
        list(store.list(""))
    assert raised.value.reason == "BucketMissing"
    if kind != "s3":  # SeaweedFS makes a bucket for whoever writes to it
        with pytest.raises(StorageInvalid) as raised:
            store.put("key", b"x")
        assert raised.value.reason == "BucketMissing"


@pytest.mark.parametrize(("kind", "variable"), [("s3", "S3_SECRET"), ("azure", "AZURE_KEY")])
def test_a_wrong_key_is_named_and_not_shown(
    kind: str, variable: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage: Storage = request.getfixturevalue(STORAGES[kind])
    monkeypatch.setenv(variable, WRONG_KEY)
    with pytest.raises(StorageInvalid) as raised:
        open_store(storage).put("key", b"x")
    assert raised.value.reason == "AccessDenied" and WRONG_KEY not in raised.value.message


@pytest.mark.parametrize("kind", GONE)
def test_an_endpoint_that_does_not_answer_is_worth_another_try(
    kind: str, request: pytest.FixtureRequest
) -> None:
    storage: Storage = request.getfixturevalue(STORAGES[kind])
    with pytest.raises(StorageUnavailable):
        open_store(storage.model_copy(update={"endpoint": "http://127.0.0.1:1"})).put("key", b"x")


def test_azure_takes_a_connection_string(
    container: AzureStorage, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTION", azurite.connection_string())
    named = Credential(described="CONNECTION", environment="CONNECTION")
    bare = AzureStorage(name="azure", container=container.container, connection_string=named)
    open_store(bare).put("key", b"x")
    assert open_store(bare.model_copy(update={"account_key": named})).head("key") is not None
    monkeypatch.setenv("CONNECTION", "AccountKey=secret-and-nothing-else")
    with pytest.raises(CredentialsMissing) as raised:
        open_store(bare)
    assert raised.value.reason == "CredentialsInvalid" and "secret" not in raised.value.message


def test_a_secret_with_neither_of_azures_keys_names_both(container: AzureStorage) -> None:
    one, two = (Credential(described=f'key "{key}" of Secret "s"', file=f"/gone/{key}") for key in ("A", "B"))
    without = container.model_copy(update={"connection_string": one, "account_key": two})
    with pytest.raises(CredentialsMissing, match='key "A" of Secret "s" or key "B" of Secret "s" is missing'):
        open_store(without)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"type": "service_account", "private_key": "secret"}'])
def test_a_key_of_google_that_is_none_is_named_and_not_shown(
    gcs_bucket: GcsStorage, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE", text)
    named = Credential(described="variable GOOGLE", environment="GOOGLE")
    with pytest.raises(CredentialsMissing, match="variable GOOGLE is") as raised:
        open_store(gcs_bucket.model_copy(update={"credentials": named}))
    assert "private_key" not in raised.value.message


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
