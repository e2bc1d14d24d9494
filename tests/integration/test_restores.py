"""Restores on a real disk: what an approval stands for, what keeps the backup, and no backup of a half-restored target."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import RestoreRefused, StorageInvalid, TargetLocked, VerificationFailed
from avalanche_backup.holds import is_kept_for_restore, keep_for_restore
from avalanche_backup.sources.sqlite import SqliteDatabase
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import restore
from avalanche_contract.result import Result
from avalanche_contract.source import SqliteSource
from tests.integration.runs import PREFIX, Runner


@pytest.fixture
def source(tmp_path: Path) -> SqliteSource:
    found = SqliteSource(name="db", path=str(tmp_path / "db.sqlite"), described="claim data, path db.sqlite")
    run(found, "CREATE TABLE t (n)")
    run(found, "INSERT INTO t VALUES (1)")
    return found


@pytest.fixture
def made(runner: Runner, source: SqliteSource) -> Result:
    return runner.backup(source)


def run(source: SqliteSource, sql: str) -> list[Any]:
    with closing(sqlite3.connect(source.path)) as database, database:
        return database.execute(sql).fetchall()


def is_kept(runner: Runner, made: Result) -> bool:
    return is_kept_for_restore(runner.store, PREFIX, made.backup_id or "", datetime.now(UTC))


def damage(runner: Runner, made: Result, tmp_path: Path) -> None:
    path = tmp_path / "volume" / PREFIX / "database" / f"{made.backup_id}.sqlite.gz"
    os.truncate(path, path.stat().st_size - 4)


@pytest.mark.parametrize(
    "other", [{"plan_number": 1}, {"cluster_uid": "another"}, {"request_uid": "another"}], ids=str
)
def test_an_approval_counts_for_one_plan_of_one_request_in_one_cluster(
    runner: Runner, source: SqliteSource, made: Result, other: dict[str, Any]
) -> None:
    digest = runner.plan(made, source).digest
    assert runner.plan(made, source).digest == digest
    with pytest.raises(RestoreRefused) as raised:
        runner.execute(made, source, digest, **other)
    assert raised.value.reason == "PlanChanged"


def test_the_same_file_of_another_claim_is_another_plan(
    runner: Runner, source: SqliteSource, made: Result
) -> None:
    plan = runner.plan(made, source)
    spare = source.model_copy(update={"described": "claim spare, path db.sqlite"})
    assert plan.targets[0].target == "claim data, path db.sqlite"
    assert runner.plan(made, spare).digest != plan.digest


def test_the_plan_of_a_refusal_is_that_of_the_next_number(
    runner: Runner, source: SqliteSource, made: Result
) -> None:
    old = runner.plan(made, source).digest
    run(source, "CREATE TABLE precious (n)")
    with pytest.raises(RestoreRefused):
        runner.execute(made, source, old)
    fresh = runner.reported.plans[-1].digest
    assert runner.execute(made, source, fresh, plan_number=1).reason == "Restored"


def test_a_plan_keeps_the_backup_and_the_restore_lets_it_go(
    runner: Runner, source: SqliteSource, made: Result
) -> None:
    digest = runner.plan(made, source).digest
    assert is_kept(runner, made)
    runner.execute(made, source, digest)
    assert not is_kept(runner, made)


def test_a_restore_that_asks_again_still_keeps_the_backup(
    runner: Runner, source: SqliteSource, made: Result
) -> None:
    with pytest.raises(RestoreRefused):
        runner.execute(made, source, "sha256:00")
    assert is_kept(runner, made)


def test_a_restore_that_fails_lets_its_backup_go_and_not_that_of_another(
    runner: Runner, source: SqliteSource, made: Result, tmp_path: Path
) -> None:
    digest = runner.plan(made, source).digest
    damage(runner, made, tmp_path)
    with pytest.raises(VerificationFailed):
        runner.execute(made, source, digest)
    assert not is_kept(runner, made)
    keep_for_restore(runner.store, PREFIX, made.backup_id or "", "another", datetime.now(UTC))
    with pytest.raises(VerificationFailed):
        runner.execute(made, source, digest)
    assert is_kept(runner, made)


def test_a_plan_that_cannot_be_made_keeps_nothing(runner: Runner, source: SqliteSource, made: Result) -> None:
    nowhere = source.model_copy(update={"path": "/nowhere/at/all/db.sqlite"})
    with pytest.raises(RestoreRefused):
        runner.plan(made, nowhere)
    assert not is_kept(runner, made)


def test_a_backup_that_spans_a_whole_restore_commits_nothing(
    runner: Runner, source: SqliteSource, made: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = SqliteDatabase.dump

    def dump_then_restored(database: SqliteDatabase, *sink: Any, **more: Any) -> Any:
        found = dump(database, *sink, **more)
        runner.restore(made, source)
        return found

    before = runner.stored()
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(SqliteDatabase, "dump", dump_then_restored)
        with pytest.raises(TargetLocked, match="worked on the target"):
            runner.backup(source)
    assert [key for key in runner.stored() if key not in before] == [f"{PREFIX}restore-lock.json"]
    assert runner.backup(source).reason == "Committed"


class ReadOnly:
    """A store whose key may only read, as after a disaster."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Refuse."""
        del data, overwrite
        raise StorageInvalid(f"{key}: access is denied", reason="AccessDenied")

    def delete(self, key: str) -> None:
        """Refuse."""
        raise StorageInvalid(f"{key}: access is denied", reason="AccessDenied")


def test_a_backup_comes_back_from_a_storage_that_can_only_be_read(
    runner: Runner, source: SqliteSource, made: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(source, "DELETE FROM t")
    monkeypatch.setattr(restore, "open_store", lambda storage: ReadOnly(open_store(storage)))
    assert runner.restore(made, source).verdict == "Succeeded"
    assert run(source, "SELECT n FROM t") == [(1,)]
