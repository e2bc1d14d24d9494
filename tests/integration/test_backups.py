"""Runs and their identity, the commit, locks: what makes one run one backup."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog, layout, locks
from avalanche_backup.errors import (
    ObjectExists,
    StorageInvalid,
    StorageUnavailable,
    TargetLocked,
    is_uncertain,
)
from avalanche_backup.metadata import BackupMetadata, write_metadata
from avalanche_backup.storage.base import Store
from avalanche_backup.verbs import catalog as listing
from avalanche_backup.verbs import destinations
from avalanche_contract.request import Run
from avalanche_contract.source import SqliteSource
from tests.integration import runs
from tests.integration.runs import PREFIX, Runner

SLOT = datetime(2026, 1, 2, 2, 0, tzinfo=UTC)
JOB = f"cron-{int(SLOT.timestamp()) // 60}"


@pytest.fixture
def source(tmp_path: Path) -> SqliteSource:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    return SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))


def scheduled(runner: Runner, source: SqliteSource, scratch: str = "one") -> str:
    context = replace(runner.context(), job_name=JOB, job_uid="uid", scratch=runner.scratch / scratch)
    return runner.backup(source, run_of=Run(cron_job="cron"), context=context).backup_id or ""


def committed(runner: Runner) -> list[str]:
    return [key for key in runner.stored() if key.endswith("_metadata.json")]


def test_a_run_repeated_for_its_slot_is_one_backup(runner: Runner, source: SqliteSource) -> None:
    assert scheduled(runner, source) == scheduled(runner, source) == "database_20260102_020000"
    assert len(committed(runner)) == 1


def test_two_pods_of_one_run_make_one_backup(runner: Runner, source: SqliteSource) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda number: scheduled(runner, source, f"pod-{number}"), range(4)))
    assert set(made) == {"database_20260102_020000"} and len(committed(runner)) == 1
    assert len([key for key in runner.stored() if key.endswith(".sqlite.gz")]) == 1


def test_a_manual_run_in_the_second_of_a_scheduled_one_is_another_backup(
    runner: Runner, source: SqliteSource
) -> None:
    manual = runner.backup(source, run_of=runner.manual(SLOT, "a-backup")).backup_id
    assert scheduled(runner, source) == "database_20260102_020001" and manual == "database_20260102_020000"


def test_a_target_that_is_being_restored_is_not_backed_up(runner: Runner, source: SqliteSource) -> None:
    locks.take_lock(runner.store, PREFIX, "a-restore", datetime.now(UTC))
    with pytest.raises(TargetLocked):
        runner.backup(source)
    assert committed(runner) == []


def test_a_lock_that_nobody_renews_stops_nothing(runner: Runner, source: SqliteSource) -> None:
    locks.take_lock(runner.store, PREFIX, "a-dead-restore", datetime.now(UTC) - timedelta(hours=1))
    assert runner.backup(source).verdict == "Succeeded"


def test_a_commit_without_an_answer_deletes_nothing_and_says_that_it_may_have_happened(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commits_and_breaks_off(store: Store, prefix: str, metadata: BackupMetadata) -> None:
        store.put(layout.metadata_key(prefix, metadata.backup_id), write_metadata(metadata))
        raise StorageUnavailable("no answer")

    monkeypatch.setattr(catalog, "commit", commits_and_breaks_off)
    with pytest.raises(StorageUnavailable) as raised:
        scheduled(runner, source)
    assert is_uncertain(raised.value) and len(committed(runner)) == 1
    monkeypatch.undo()
    result = runner.backup(
        source, run_of=Run(cron_job="cron"), context=replace(runner.context(), job_name=JOB)
    )
    assert result.reason == "AlreadyCommitted" and runner.verify(result).reason == "Verified"


class LosesReplies:
    """A store that writes one metadata file and says that the name was taken, and whose next read breaks off."""

    def __init__(self, store: Store, reads_that_break: int) -> None:
        self._store, self._breaks, self._lost = store, reads_that_break, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write; the SDK's own second try is told that the name is taken."""
        self._store.put(key, data, overwrite=overwrite)
        if key.endswith("_metadata.json") and not self._lost:
            self._lost = True
            raise ObjectExists(f"{key} is there already")

    def read(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Read, or break off."""
        if self._lost and self._breaks:
            self._breaks -= 1
            raise StorageUnavailable("reset")
        return self._store.read(key)


@pytest.mark.parametrize("reads_that_break", [0, 1])
def test_a_lost_reply_to_the_commit_never_costs_the_data_that_it_names(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch, reads_that_break: int
) -> None:
    losing = LosesReplies(runner.store, reads_that_break)
    monkeypatch.setattr(destinations, "open_store", lambda _storage: losing)
    with suppress(StorageUnavailable):
        scheduled(runner, source)
    monkeypatch.undo()
    result = runner.backup(
        source, run_of=Run(cron_job="cron"), context=replace(runner.context(), job_name=JOB)
    )
    assert result.reason == "AlreadyCommitted" and runner.verify(result).reason == "Verified"
    assert len(committed(runner)) == 1


def test_the_folder_of_another_cluster_is_refused(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner.backup(source)
    monkeypatch.setattr(runs, "WRITER", runs.WRITER.model_copy(update={"cluster_uid": "another"}))
    with pytest.raises(StorageInvalid) as raised:
        runner.backup(source)
    assert raised.value.reason == "OwnedByAnother"


def test_metadata_that_cannot_be_read_never_stops_a_list(runner: Runner, source: SqliteSource) -> None:
    made = runner.backup(source).backup_id or ""
    whole = catalog.read_document(runner.store, layout.metadata_key(PREFIX, made))
    chance = random.Random(1)
    for number in range(60):
        damaged = bytearray(whole[: chance.randrange(len(whole))] + os.urandom(chance.randrange(20)))
        key = layout.metadata_key(PREFIX, f"database_20200101_0000{number:02}")
        runner.store.put(key, bytes(damaged))
    found = catalog.backups(runner.store, PREFIX)
    assert len(found) == 61
    assert [each.metadata.backup_id for each in found if isinstance(each, catalog.Found)] == [made]


def test_an_odd_document_beside_a_backup_never_stops_a_list(runner: Runner, source: SqliteSource) -> None:
    made = runner.backup(source).backup_id or ""
    runner.store.put(layout.verification_key(PREFIX, made), b'{"status": "Splendid", "verified_time": 7}')
    deep = b'{"format_version": "1.0", "a": ' + b"[" * 200_000
    runner.store.put(layout.metadata_key(PREFIX, "database_20200101_000000"), deep)
    runner.run_catalog()
    assert [each.verification for each in runner.reported.entries if each.backup_id == made][
        -1
    ] == "NotVerified"


def test_an_owner_that_cannot_be_read_is_not_taken_for_nobody(runner: Runner, source: SqliteSource) -> None:
    runner.store.put(f"{PREFIX}{layout.OWNER_FILE}", b"")
    with pytest.raises(StorageInvalid) as raised:
        runner.backup(source)
    assert raised.value.reason == "OwnerUnknown" and committed(runner) == []


def test_a_catalog_comes_in_pages_that_a_log_can_hold(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE_MAX_BYTES", 500)
    made = [runner.backup(source, run_of=runner.manual(SLOT, f"b{n}")).backup_id for n in range(3)]
    runner.reported.entries.clear()
    first = runner.run_catalog()
    assert first.entry_count == 1 and first.next_cursor is not None
    runner.run_catalog(after=first.next_cursor)
    assert [each.backup_id for each in runner.reported.entries] == made[:2]


def test_what_was_damaged_after_the_commit_is_found_by_verify(
    runner: Runner, source: SqliteSource, tmp_path: Path
) -> None:
    made = runner.backup(source)
    assert runner.verify(made).reason == "Verified"
    path = tmp_path / "volume" / PREFIX / "database" / f"{made.backup_id}.sqlite.gz"
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(Exception, match=r"bytes, the metadata says|ends early"):
        runner.verify(made)
    entry = catalog.entry(runner.store, catalog.find(runner.store, PREFIX, made.backup_id or ""))
    assert entry.verification == "VerificationFailed"
