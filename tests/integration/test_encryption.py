"""Encrypted backups: who opens them, what is said where nobody can, and that a private key is nowhere."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog
from avalanche_backup.errors import (
    CredentialsMissing,
    Failure,
    IdentityMissing,
    UsageInvalid,
    VerificationFailed,
)
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.storage.base import Store
from avalanche_backup.verbs import restore, verify
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.base import Credential
from avalanche_contract.request import Encryption, ProbeRequest
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.storage import Storage
from tests.integration.conftest import FINGERPRINT
from tests.integration.keys import KeyPair, encrypted_for, key_pair
from tests.integration.runs import NONCE, PREFIX, Reported, Runner
from tests.integration.servers import Postgres


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return key_pair(folder / "old"), key_pair(folder / "new"), key_pair(folder / "stranger")


@pytest.fixture
def tree(tmp_path: Path) -> FilesSource:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a name to be seen by nobody").write_bytes(os.urandom(200_000))
    return FilesSource(name="files", root=str(tmp_path / "tree"))


def empty(tmp_path: Path) -> FilesSource:
    (tmp_path / "target").mkdir()
    return FilesSource(name="files", root=str(tmp_path / "target"))


def stored(runner: Runner, ending: str) -> list[bytes]:
    def content(key: str) -> bytes:
        with runner.store.read(key) as chunks:
            return b"".join(chunks)

    return [content(key) for key in runner.stored() if key.endswith(ending)]


class Counting:
    """A store that counts what is read of artifacts."""

    def __init__(self, store: Store) -> None:
        self._store, self.reads = store, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def read(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Count, and read."""
        self.reads += [] if key.endswith(".json") else [key]
        return self._store.read(key)


@pytest.fixture
def counting(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Counting:
    store = Counting(runner.store)
    monkeypatch.setattr(restore, "open_store", lambda _: store)
    monkeypatch.setattr(verify, "open_destination", lambda place: Destination(store, place.prefix))
    return store


def test_what_is_stored_says_nothing_but_who_opens_it(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...]
) -> None:
    made = runner.backup(tree, kind="files", encryption=encrypted_for(*keys[:2]))
    metadata = catalog.find(runner.store, PREFIX, made.backup_id or "").metadata
    assert metadata.encrypted and metadata.format_version.startswith("1.")
    assert [each.recipients for each in metadata.artifacts] == [[each.recipient for each in keys[:2]]] * 2
    assert [each.file.split(".", 1)[1] for each in metadata.artifacts] == ["tar.gz.age", "ndjson.zst.age"]
    content = stored(runner, ".age")
    assert len(content) == 2 and all(each.startswith(b"age-encryption.org/v1\n") for each in content)
    assert all(each.count(b"-> X25519 ") == 3 for each in content)  # two recipients, and the read-back


def test_after_a_rotation_an_old_identity_opens_old_backups_and_a_file_with_both_opens_all(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    old, new, _ = keys
    both = tmp_path / "both"
    both.write_text(f"# of 2025\n{old.secret}\n\n# of 2026\n{new.secret}\n")
    first = runner.backup(tree, kind="files", encryption=encrypted_for(old))
    second = runner.backup(tree, kind="files", encryption=encrypted_for(new))
    opening = runner.opening(Credential(described="both", file=str(both)))
    assert [opening.verify(each).reason for each in (first, second)] == ["Verified"] * 2
    assert runner.opening(old.credential).verify(first).reason == "Verified"
    with pytest.raises(IdentityMissing) as raised:
        runner.opening(new.credential).verify(first)
    assert raised.value.reason == "IdentityDoesNotFit"
    assert old.recipient in raised.value.message and new.recipient in raised.value.message


LOST = {
    "none": "IdentityMissing",
    "a missing file": "IdentityMissing",
    "a stranger's": "IdentityDoesNotFit",
    "no identity": "IdentityInvalid",
}


@pytest.mark.parametrize("given", LOST)
def test_a_lost_identity_is_an_error_before_anything_is_downloaded(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], counting: Counting, given: str
) -> None:
    made, target = (
        runner.backup(tree, kind="files", encryption=encrypted_for(keys[0])),
        empty(runner.scratch.parent),
    )
    opening = runner.opening(_lost(given, keys[2], runner.scratch))
    attempts = [lambda: opening.plan(made, target), lambda: opening.execute(made, target, None)]
    attempts += [] if given == "none" else [lambda: opening.verify(made)]
    for failure in map(_fails, attempts):
        assert failure.reason == LOST[given] and failure.exit_code == 14
        assert keys[0].recipient in failure.message and "hunter2" not in failure.message
    assert counting.reads == [] and list(Path(target.root).iterdir()) == []


def _lost(given: str, stranger: KeyPair, folder: Path) -> Credential | None:
    (folder / "no identity").write_text("hunter2\n")
    return {
        "none": None,
        "a missing file": Credential(described='key "identity" of Secret "age"', file="/nowhere"),
        "a stranger's": stranger.credential,
        "no identity": Credential(described="that file", file=str(folder / "no identity")),
    }[given]


def test_verify_without_an_identity_compares_the_stored_bytes_and_says_that_this_is_all(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...]
) -> None:
    made = runner.backup(tree, kind="files", encryption=encrypted_for(keys[0]))
    told = runner.verify(made)
    assert (told.verdict, told.reason) == ("Succeeded", "NotDecoded")
    assert "not decoded: it is encrypted for" in told.message and keys[0].recipient in told.message
    found = catalog.find(runner.store, PREFIX, made.backup_id or "")
    assert found.verification is not None and "not decoded" in found.verification["message"]
    assert runner.opening(keys[0].credential).verify(made).reason == "Verified"


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_damage_to_what_is_encrypted_is_found_with_an_identity_and_without(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], damage: str
) -> None:
    made = runner.backup(tree, kind="files", encryption=encrypted_for(keys[0]))
    path = runner.scratch.parent / "volume" / PREFIX / "files" / f"{made.backup_id}.tar.gz.age"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= damage == "flipped"
    path.write_bytes(data[:-1] if damage == "cut" else data + b"\0" * (damage == "longer"))
    opening, target = runner.opening(keys[0].credential), empty(runner.scratch.parent)
    for each in (opening, runner):
        with pytest.raises(VerificationFailed, match=made.backup_id):
            each.verify(made)
    with pytest.raises(VerificationFailed, match="The target is untouched"):
        opening.execute(made, target, None)
    assert list(Path(target.root).iterdir()) == []


def test_metadata_that_promises_another_recipient_does_not_open_anything(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    made = runner.backup(tree, kind="files", encryption=encrypted_for(keys[0]))
    path = tmp_path / "volume" / PREFIX / "files" / f"{made.backup_id}_metadata.json"
    path.write_text(path.read_text().replace(keys[0].recipient, keys[2].recipient))
    target = empty(tmp_path)
    with pytest.raises(VerificationFailed, match="The target is untouched"):
        runner.opening(keys[2].credential).execute(made, target, None)
    assert list(Path(target.root).iterdir()) == []


def test_recipients_come_from_a_file_as_a_secret_shows_it(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    (tmp_path / "recipients").write_text(f"# the team\n{keys[0].recipient}\n{keys[1].recipient}\n")
    asked = Encryption(recipients_file=Credential(described="Secret", file=str(tmp_path / "recipients")))
    made = runner.backup(tree, kind="files", encryption=asked)
    assert runner.opening(keys[1].credential).verify(made).reason == "Verified"


UNREADABLE: dict[str, tuple[type[Failure], str]] = {
    "": (CredentialsMissing, 'key "recipients" of Secret "age" is missing'),
    "# nobody\n": (UsageInvalid, "holds no age public key"),
    "age1nobody\n": (UsageInvalid, "line 1 is no age public key"),
}


@pytest.mark.parametrize("content", UNREADABLE)
def test_recipients_that_cannot_be_read_are_named_by_the_probe_and_nothing_is_written(
    runner: Runner, tree: FilesSource, tmp_path: Path, content: str
) -> None:
    if content:
        (tmp_path / "recipients").write_text(content)
    where = Credential(described='key "recipients" of Secret "age"', file=str(tmp_path / "recipients"))
    asked, (expected, sentence) = Encryption(recipients_file=where), UNREADABLE[content]
    with pytest.raises(expected, match=sentence):
        run(ProbeRequest(nonce=NONCE, sources=(tree,), encryption=asked), runner.context())
    with pytest.raises(expected, match=sentence):
        runner.backup(tree, kind="files", encryption=asked)
    assert runner.stored() == []


def test_the_probe_and_the_plan_say_whom_backups_are_encrypted_for(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    asked = encrypted_for(*keys[:2])
    told = run(ProbeRequest(nonce=NONCE, sources=(tree,), encryption=asked), runner.context())
    assert f"encrypted for {keys[0].recipient}, {keys[1].recipient}" in told.message
    made = runner.backup(tree, kind="files", encryption=asked)
    plan = runner.opening(keys[0].credential).plan(made, empty(tmp_path))
    assert plan.recipients == asked.recipients


class Stopped(Reported):
    """A run that is told to stop midway, as by SIGTERM."""

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Stop after two megabytes."""
        del phase, source, total_bytes
        if done_bytes > 2_000_000:
            raise KeyboardInterrupt


def test_a_run_that_is_stopped_midway_leaves_no_object_and_no_thread(
    storage: Storage, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    runner = Runner(storage, tmp_path / "scratch", reported=Stopped())
    (Path(tree.root) / "zz-large").write_bytes(os.urandom(5_000_000))
    with pytest.raises(KeyboardInterrupt):
        runner.backup(tree, kind="files", encryption=encrypted_for(keys[0]))
    assert [key for key in runner.stored() if "/files/" in key] == []
    assert [each for each in threading.enumerate() if each.name == "age"] == []


@pytest.fixture
def heard(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[[], list[str]]:
    """Give what was started, logged and printed since."""
    started: list[Any] = []
    begin = subprocess.Popen

    def recorded(*words: Any, **more: Any) -> Any:
        started.append((words, more))
        return begin(*words, **more)

    monkeypatch.setattr(subprocess, "Popen", recorded)
    return lambda: [*map(str, started), caplog.text, str(capfd.readouterr())]


def test_a_private_key_is_in_no_argument_list_answer_report_or_document(
    runner: Runner,
    postgres: Postgres,
    database: PostgresqlSource,
    keys: tuple[KeyPair, ...],
    heard: Callable[[], list[str]],
) -> None:
    before = postgres.psql(database.database, FINGERPRINT)
    opening = runner.opening(keys[0].credential)
    made = runner.backup(database, encryption=encrypted_for(*keys[:2]))
    told = [made, opening.verify(made), opening.restore(made, database), opening.reported]
    told += [_fails(lambda: runner.opening(keys[2].credential).verify(made)).message]
    assert postgres.psql(database.database, FINGERPRINT) == before
    everything = f"{told} {heard()} {stored(runner, '.json')}"
    assert keys[0].recipient in everything and "pg_dump" in everything and "psql" in everything
    assert "AGE-SECRET-KEY-" not in everything.upper()


def test_several_sources_are_encrypted_alike(
    runner: Runner, tree: FilesSource, keys: tuple[KeyPair, ...], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "app.sqlite")) as made_database:
        made_database.execute("CREATE TABLE t (n)")
    source = SqliteSource(name="database", path=str(tmp_path / "app.sqlite"))
    made: Result = runner.backup(source, tree, kind="full", encryption=encrypted_for(keys[0]))
    assert len(stored(runner, ".age")) == 3
    assert runner.opening(keys[0].credential).verify(made).reason == "Verified"
    documents = [json.loads(each) for each in stored(runner, "_metadata.json")]
    commands = [each["restore_command"] for each in documents[0]["artifacts"] if each["role"] == "data"]
    assert all(each.startswith("age -d -i <identity file> full_") for each in commands)


def _fails(attempt: Any) -> Failure:
    with pytest.raises(Failure) as raised:
        attempt()
    return raised.value
