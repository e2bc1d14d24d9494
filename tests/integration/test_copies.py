"""Several copies of one backup, in a folder and a bucket: made at once, missed, completed, healed, restored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog, layout, locks
from avalanche_backup.errors import (
    BackupMissing,
    CopiesMissing,
    Failure,
    StorageInvalid,
    StorageUnavailable,
    TargetLocked,
    VerificationFailed,
    is_uncertain,
)
from avalanche_backup.pipeline import fanout
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import destinations
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.request import CopyRequest, Run
from avalanche_contract.result import Result
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import DirectoryStorage, Place, S3Storage, Storage
from tests.fakes.stores import StandsStill, Trouble, Troubled, dies_at
from tests.integration.runs import NONCE, PREFIX, Runner

SLOT = datetime(2026, 1, 2, 2, 0, tzinfo=UTC)
JOB = f"cron-{int(SLOT.timestamp()) // 60}"
Break = Callable[..., None]


@pytest.fixture
def runner(tmp_path: Path, corner: S3Storage) -> Runner:
    root = tmp_path / "volume"
    root.mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(root)), tmp_path / "scratch", others=(corner,))


@pytest.fixture
def source(tmp_path: Path) -> SqliteSource:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n, blob)")
        made.executemany("INSERT INTO t VALUES (?, randomblob(1000))", [(n,) for n in range(3000)])
        made.commit()
    return SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Put a trouble before the store of one name; ``None`` mends it."""
    troubles: dict[str, Trouble] = {}

    def opened(storage: Storage) -> Store:
        store = open_store(storage)
        found = troubles.get(storage.name)
        return Troubled(store, found) if found else store

    def begin(name: str, found: Trouble | None) -> None:
        troubles.pop(name, None)
        if found is not None:
            troubles[name] = found

    monkeypatch.setattr(destinations, "open_store", opened)
    return begin


def scheduled(runner: Runner, source: SqliteSource, **more: Any) -> Result:
    context = replace(runner.context(), job_name=JOB, job_uid="uid")
    return runner.backup(source, run_of=Run(cron_job="cron"), context=context, **more)


def held(runner: Runner) -> dict[str, dict[str, bytes]]:
    """Give all that belongs to backups, in each place: the documents of a verification and of a failed run aside."""
    found: dict[str, dict[str, bytes]] = {}
    for storage in (runner.storage, *runner.others):
        store = open_store(storage)
        keys = [each.key for each in store.list(PREFIX) if "/database/" in each.key]
        own = [key for key in keys if not key.endswith(("_verification.json", "_attempt.json"))]
        found[storage.name] = {key: catalog.read_document(store, key) for key in own}
    return found


def names(runner: Runner) -> dict[str, int]:
    return {name: len(objects) for name, objects in held(runner).items()}


def rows(path: str | Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as opened:
        return opened.execute("SELECT * FROM t ORDER BY n").fetchall()


def test_one_pass_over_the_source_makes_the_same_backup_in_every_place(
    runner: Runner, source: SqliteSource
) -> None:
    result = scheduled(runner, source)
    found = held(runner)
    assert found["volume"] == found["s3"] and len(found["s3"]) == 2
    assert [(each.storage, each.status) for each in result.copies] == [
        ("volume", "Verified"),
        ("s3", "Verified"),
    ]
    entry = runner.reported.entries[-1]
    assert [each.location.partition(":")[0] for each in entry.copies][1] == "s3"
    assert {each.checksum for each in entry.copies} == {result.checksum}


@pytest.mark.parametrize("operation", ["put", "list", "create", "write", "commit", "read"])
@pytest.mark.parametrize("name", ["volume", "s3"])
def test_a_place_that_dies_costs_its_own_copy_alone(
    runner: Runner, source: SqliteSource, trouble: Break, name: str, operation: str
) -> None:
    trouble(name, dies_at(operation))
    result = scheduled(runner, source, min_copies=1)
    other = {"volume": "s3", "s3": "volume"}[name]
    assert names(runner)[other] == 2
    statuses = {each.storage: each.status for each in result.copies}
    assert statuses == {name: "NotVerified", other: "Verified"} and name in result.message


def test_a_place_that_stands_still_is_left_out(
    runner: Runner, source: SqliteSource, trouble: Break, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(fanout, "_TICK", 0.05)
    monkeypatch.setattr(fanout, "ABORT_SECONDS", 0.1)
    still = StandsStill("write")
    trouble("s3", still)
    result = scheduled(runner, source, min_copies=1)
    still.released.set()
    assert [each.reason for each in result.copies] == ["", "TooSlow"] and names(runner)["volume"] == 2


def test_too_few_copies_are_a_failure_and_the_next_try_copies_instead_of_dumping_again(
    runner: Runner, source: SqliteSource, trouble: Break
) -> None:
    trouble("s3", dies_at("commit"))
    with pytest.raises(CopiesMissing) as raised:
        scheduled(runner, source)
    assert "1 of 2" in raised.value.message and not is_uncertain(raised.value)
    trouble("s3", None)
    Path(source.path).unlink()  # it is not read again
    assert scheduled(runner, source).reason == "AlreadyCommitted"
    assert held(runner)["volume"] == held(runner)["s3"] and names(runner)["s3"] == 2


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("name", ["volume", "s3"])
@pytest.mark.parametrize("ending", ["_metadata.json", ".sqlite.gz"])
def test_killed_between_the_commits_and_repeated_it_is_one_backup_with_both_copies(
    runner: Runner, source: SqliteSource, trouble: Break, name: str, ending: str
) -> None:
    def killed(operation: str, key: str) -> None:
        if operation in ("put", "commit") and key.endswith(ending):
            raise Killed

    trouble(name, killed)
    with suppress(Killed, Failure):
        scheduled(runner, source)
    trouble(name, None)
    result = scheduled(runner, source)
    found = held(runner)
    metadata = {key: data for key, data in found["volume"].items() if key.endswith(".json")}
    assert len(metadata) == 1 and {each.status for each in result.copies} == {"Verified"}
    assert {key: found["s3"][key] for key in metadata} == metadata
    assert runner.verify(result).reason == "Verified"


def test_a_commit_of_this_run_in_any_place_is_its_backup(
    runner: Runner, source: SqliteSource, trouble: Break
) -> None:
    trouble("volume", dies_at("put"))
    first = scheduled(runner, source, min_copies=1)
    trouble("volume", None)
    with closing(sqlite3.connect(source.path)) as changed:
        changed.execute("DELETE FROM t")
        changed.commit()
    second = scheduled(runner, source)
    assert (second.backup_id, second.checksum) == (first.backup_id, first.checksum)
    assert held(runner)["volume"] == held(runner)["s3"]


def test_pods_of_one_run_that_race_make_one_backup_with_both_copies(
    runner: Runner, source: SqliteSource
) -> None:
    def attempt(number: int) -> Result:
        (runner.scratch / str(number)).mkdir(parents=True)
        context = replace(runner.context(), job_name=JOB, scratch=runner.scratch / str(number))
        return runner.backup(source, run_of=Run(cron_job="cron"), context=context)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(attempt, range(4)))
    assert len({(each.backup_id, each.checksum) for each in made}) == 1
    assert held(runner)["volume"] == held(runner)["s3"] and names(runner)["s3"] == 2


def test_an_id_that_is_taken_in_one_place_moves_on_in_all(runner: Runner, source: SqliteSource) -> None:
    replace(runner, storage=runner.others[0], others=()).backup(source, run_of=runner.manual(SLOT, "another"))
    result = scheduled(runner, source)
    assert result.backup_id == "database_20260102_020001"
    assert names(runner) == {"volume": 2, "s3": 4}


def test_a_lock_in_any_place_stops_the_backup(runner: Runner, source: SqliteSource) -> None:
    locks.take_lock(open_store(runner.others[0]), PREFIX, "a-restore", datetime.now(UTC))
    with pytest.raises(TargetLocked):
        scheduled(runner, source, min_copies=1)
    assert names(runner) == {"volume": 0, "s3": 0}


def test_two_names_of_one_place_are_refused(runner: Runner, source: SqliteSource) -> None:
    same = runner.storage.model_copy(update={"name": "other"})
    with pytest.raises(StorageInvalid) as raised:
        scheduled(replace(runner, others=(same,)), source)
    assert raised.value.reason == "SamePlace" and names(runner)["volume"] == 0


def test_no_place_at_all_is_one_failure_that_tells_of_each(
    runner: Runner, source: SqliteSource, trouble: Break
) -> None:
    trouble("volume", dies_at("write"))
    trouble("s3", dies_at("create"))
    with pytest.raises(StorageUnavailable) as raised:
        scheduled(runner, source)
    assert "at write" in raised.value.message and "at create" in raised.value.message


def test_credentials_that_are_missing_cost_their_own_copy_alone(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S3_SECRET")
    result = scheduled(runner, source, min_copies=1)
    assert [each.reason for each in result.copies] == ["", "CredentialsMissing"]


def damage(runner: Runner, name: str, how: str) -> None:
    """Lose or spoil the copy in one place."""
    storage = next(each for each in (runner.storage, *runner.others) if each.name == name)
    store, objects = open_store(storage), held(runner)[name]
    for key, data in objects.items():
        artifact = key.endswith(".sqlite.gz")
        if how == "all" or (how == "artifact" and artifact) or (how == "metadata" and not artifact):
            store.delete(key)
        elif how == "bit" and artifact:
            store.put(key, data[:500] + bytes([data[500] ^ 1]) + data[501:], overwrite=True)
        elif how == "garbled" and not artifact:
            store.put(key, data[:100], overwrite=True)


@pytest.mark.parametrize("how", ["all", "artifact", "metadata", "bit", "garbled"])
@pytest.mark.parametrize("name", ["volume", "s3"])
def test_a_copy_that_is_missing_or_damaged_is_healed_by_the_next_verification(
    runner: Runner, source: SqliteSource, name: str, how: str
) -> None:
    made = scheduled(runner, source)
    before = held(runner)
    damage(runner, name, how)
    told = runner.verify(made)
    reasons = {each.storage: each.reason for each in told.copies}
    assert told.reason == "CopiesIncomplete" and reasons.pop(name) and set(reasons.values()) == {""}
    assert runner.verify(made, heal=True).reason == "Healed"
    assert held(runner) == before and runner.verify(made).reason == "Verified"


@pytest.mark.parametrize("ending", ["_metadata.json", ".sqlite.gz"])
@pytest.mark.parametrize("operation", ["put", "create", "commit"])
def test_healing_that_is_broken_off_is_taken_up_again(
    runner: Runner, source: SqliteSource, trouble: Break, operation: str, ending: str
) -> None:
    made = scheduled(runner, source)
    before = held(runner)
    damage(runner, "s3", "bit")
    trouble("s3", dies_at(operation, ending=ending))
    runner.verify(made, heal=True)
    trouble("s3", None)
    runner.verify(made, heal=True)
    assert held(runner) == before and runner.verify(made).reason == "Verified"


def test_without_a_good_copy_nothing_is_replaced(runner: Runner, source: SqliteSource) -> None:
    made = scheduled(runner, source)
    damage(runner, "volume", "bit")
    damage(runner, "s3", "bit")
    before = held(runner)
    with pytest.raises(VerificationFailed):
        runner.verify(made, heal=True)
    assert held(runner) == before


def test_a_backup_that_is_being_removed_is_not_brought_back(runner: Runner, source: SqliteSource) -> None:
    made = scheduled(runner, source)
    damage(runner, "s3", "all")
    runner.store.put(layout.tombstone_key(PREFIX, made.backup_id or ""), b"{}")
    told = runner.verify(made, heal=True)
    assert told.reason == "CopiesIncomplete" and "is being removed" in told.message
    assert held(runner)["s3"] == {}


def test_two_backups_with_one_id_are_both_kept(runner: Runner, source: SqliteSource) -> None:
    alone = replace(runner, others=())
    made = alone.backup(source, run_of=runner.manual(SLOT, "one"))
    with closing(sqlite3.connect(source.path)) as changed:
        changed.execute("DELETE FROM t WHERE n > 10")
        changed.commit()
    replace(alone, storage=runner.others[0]).backup(source, run_of=runner.manual(SLOT, "two"))
    before = held(runner)
    told = runner.verify(made, heal=True)
    assert [each.reason for each in told.copies] == ["", "CopiesDiffer"] and held(runner) == before
    damage(runner, "s3", "bit")
    before = held(runner)
    told = runner.verify(made, heal=True)
    assert [each.status for each in told.copies] == ["Verified", "VerificationFailed"]
    assert "another backup" in told.message and held(runner) == before


@pytest.mark.parametrize("place", [0, 1])
def test_every_copy_restores_the_same_data(
    runner: Runner, source: SqliteSource, tmp_path: Path, place: int
) -> None:
    made = scheduled(runner, source)
    storage = (runner.storage, *runner.others)[place]
    target = SqliteSource(name="database", path=str(tmp_path / "back.sqlite"))
    replace(runner, storage=storage, others=()).restore(made, target)
    assert rows(target.path) == rows(source.path) and len(rows(target.path)) == 3000


def test_a_restore_takes_its_lock_in_every_place_that_answers(
    runner: Runner, source: SqliteSource, tmp_path: Path
) -> None:
    volume, bucket = open_store(runner.storage), open_store(runner.others[0])
    with locks.KeptLocks([(volume, PREFIX), (bucket, PREFIX)], "request", lambda: datetime.now(UTC)):
        assert {locks.read_lock(each, PREFIX) is None for each in (volume, bucket)} == {False}
    down = runner.others[0].model_copy(update={"endpoint": "http://127.0.0.1:1"})
    made = scheduled(runner, source)
    target = SqliteSource(name="database", path=str(tmp_path / "back.sqlite"))
    replace(runner, others=(down,)).restore(made, target)
    assert rows(target.path) == rows(source.path)
    nowhere = [(open_store(down), PREFIX), (volume, "another/policy/")]
    with pytest.raises(StorageUnavailable), locks.KeptLocks(nowhere, "request", lambda: datetime.now(UTC)):
        pass


def copied(runner: Runner, made: Result, *sources: Storage, target: Storage) -> Result:
    request = CopyRequest(
        nonce=NONCE, backup_type="database", backup_id=made.backup_id or "",
        sources=tuple(Place(storage=each, prefix=PREFIX) for each in sources), target=Place(storage=target, prefix=PREFIX),
    )  # fmt: skip
    return run(request, runner.context())


def test_a_copy_is_made_from_the_first_good_one_and_is_the_same_byte_for_byte(
    runner: Runner, source: SqliteSource, tmp_path: Path
) -> None:
    made = scheduled(runner, source)
    damage(runner, "volume", "bit")
    (tmp_path / "third").mkdir()
    third = DirectoryStorage(name="third", root=str(tmp_path / "third"))
    told = copied(runner, made, runner.storage, runner.others[0], target=third)
    assert told.reason == "Copied" and "from s3" in told.message
    assert held(replace(runner, others=(third,)))["third"] == held(runner)["s3"]
    assert copied(runner, made, runner.others[0], target=third).reason == "AlreadyThere"


def test_a_damaged_copy_is_never_copied(runner: Runner, source: SqliteSource, tmp_path: Path) -> None:
    made = scheduled(replace(runner, others=()), source)
    damage(runner, "volume", "bit")
    with pytest.raises(VerificationFailed):
        copied(runner, made, runner.storage, target=runner.others[0])
    assert held(runner)["s3"] == {}
    with pytest.raises(BackupMissing):
        copied(runner, made, runner.others[0], target=runner.storage)


def test_the_folder_of_another_policy_is_not_copied_into(runner: Runner, source: SqliteSource) -> None:
    made = scheduled(replace(runner, others=()), source)
    open_store(runner.others[0]).put(f"{PREFIX}{layout.OWNER_FILE}", b'{"cluster_uid": "another"}')
    with pytest.raises(StorageInvalid) as raised:
        copied(runner, made, runner.storage, target=runner.others[0])
    assert raised.value.reason == "OwnedByAnother" and held(runner)["s3"] == {}
