"""Cleaning up: what goes, what stays, and a cleanup that dies at any point."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import holds, layout, removal
from avalanche_backup.catalog import commit, find
from avalanche_backup.errors import BackupMissing, RemovalRefused, StorageInvalid, StorageUnavailable
from avalanche_backup.holds import Hold
from avalanche_backup.storage.base import ObjectInfo, Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import cleanup, destinations
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.exitcodes import PERMANENT
from avalanche_contract.request import CleanupRequest, Retention, Run
from avalanche_contract.result import Mark, Result
from avalanche_contract.source import SqliteSource
from avalanche_contract.storage import DirectoryStorage, S3Storage, Storage
from tests.fakes.mortal import Mortal, lives
from tests.integration import runs
from tests.integration.runs import NONCE, PREFIX, WRITER, Runner
from tests.integration.servers import Seaweed

NEWEST = datetime(2026, 3, 31, 2, tzinfo=UTC)
NOW = NEWEST + timedelta(hours=1)
THREE_DAYS = Retention(keep_daily=3)
DAYS = [f"database_{NEWEST - timedelta(days=number):%Y%m%d_%H%M%S}" for number in range(5)]


@pytest.fixture
def source(tmp_path: Path) -> SqliteSource:
    with closing(sqlite3.connect(tmp_path / "db.sqlite")) as made:
        made.execute("CREATE TABLE t (n)")
        made.execute("INSERT INTO t VALUES (1)")
        made.commit()
    return SqliteSource(name="database", path=str(tmp_path / "db.sqlite"))


@pytest.fixture
def runner(storage: Storage, source: SqliteSource, tmp_path: Path) -> Runner:
    """Give a place with a backup of each of five days."""
    made = Runner(storage, tmp_path / "scratch")
    for number in range(5):
        _scheduled(made, source, NEWEST - timedelta(days=number))
    return made


@pytest.fixture
def volume(source: SqliteSource, tmp_path: Path) -> Runner:
    """Give the same on a folder, whose files can be made old."""
    (tmp_path / "volume").mkdir()
    made = Runner(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path / "scratch")
    for number in range(5):
        _scheduled(made, source, NEWEST - timedelta(days=number))
    return made


def _scheduled(runner: Runner, source: SqliteSource, slot: datetime) -> None:
    job = f"cron-{int(slot.timestamp()) // 60}"
    context = replace(runner.context(), job_name=job, job_uid=job, scratch=runner.scratch / job)
    runner.backup(source, run_of=Run(cron_job="cron"), context=context)


def _clean(
    runner: Runner, retention: Retention | None = THREE_DAYS, now: datetime = NOW, **more: Any
) -> Result:
    request = CleanupRequest(
        nonce=NONCE, place=runner.place, others=runner.places[1:], writer=WRITER, retention=retention, **more
    )
    runner.reported.decisions.clear()
    return run(request, replace(runner.context(), now=lambda: now))


def _left(runner: Runner) -> list[str]:
    """Give the IDs of which anything at all is left."""
    split = [layout.split_object_key(key) for key in runner.stored()]
    return sorted({each[0] for each in split if each}, reverse=True)


def test_what_no_rule_keeps_goes_with_everything_beside_it(runner: Runner) -> None:
    result = _clean(runner)
    assert _left(runner) == DAYS[:3] and result.message == "2 of 5 backups removed"
    told = {each.backup_id: (each.verdict, each.reasons) for each in runner.reported.decisions}
    assert told[DAYS[0]] == ("Keep", ("last-verified", "daily-1")) and told[DAYS[4]] == (
        "Remove",
        ("no-rule",),
    )


def test_a_dry_run_says_the_same_and_removes_nothing(runner: Runner) -> None:
    before = runner.stored()
    assert _clean(runner, dry_run=True).message == "2 of 5 backups would be removed"
    assert runner.stored() == before and len(runner.reported.decisions) == 5


def test_without_retention_everything_stays(runner: Runner) -> None:
    assert _clean(runner, None).message == "0 of 5 backups removed"


def test_too_much_at_once_is_refused_until_it_is_allowed(runner: Runner) -> None:
    with pytest.raises(RemovalRefused, match="4 of 5 backups"):
        _clean(runner, Retention(keep_daily=1))
    assert _left(runner) == DAYS
    _clean(runner, Retention(keep_daily=1), max_delete_percent=100)
    assert _left(runner) == DAYS[:1]


def test_a_held_backup_stays_and_an_expired_one_goes(runner: Runner) -> None:
    holds.write_hold(runner.store, PREFIX, DAYS[4], Hold(held=True), NOW)
    holds.write_hold(runner.store, PREFIX, DAYS[1], Hold(expiration=NOW), NOW)
    _clean(runner)
    assert _left(runner) == [DAYS[0], DAYS[2], DAYS[3], DAYS[4]]


def test_a_backup_that_a_restore_has_chosen_stays_for_two_days(runner: Runner) -> None:
    holds.keep_for_restore(runner.store, PREFIX, DAYS[4], "a-restore", NOW)
    holds.keep_for_restore(runner.store, PREFIX, DAYS[3], "a-dead-restore", NOW - holds.RESTORE_LIFE)
    _clean(runner)
    assert DAYS[4] in _left(runner) and DAYS[3] not in _left(runner)


def test_a_clock_of_ours_that_is_fast_removes_nothing(runner: Runner) -> None:
    """kopia: "bigger clock skews can lead to … deleting its own data"."""
    holds.write_hold(runner.store, PREFIX, DAYS[1], Hold(expiration=datetime(2036, 1, 1, tzinfo=UTC)), NOW)
    before = runner.stored()
    with pytest.raises(RemovalRefused, match="ahead of the one of storage") as raised:
        _clean(runner, Retention(keep_daily=9), now=datetime(2036, 1, 2, tzinfo=UTC))
    assert raised.value.reason == "ClockSkew" and runner.stored() == before


def test_a_policy_that_was_made_anew_does_not_age_the_backups_of_the_old_one_away(
    runner: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "WRITER", WRITER.model_copy(update={"policy_uid": "made-anew"}))
    _scheduled(runner, source, NEWEST + timedelta(minutes=30))
    _clean(runner, Retention(keep_daily=4))
    assert _left(runner) == [f"database_{NEWEST + timedelta(minutes=30):%Y%m%d_%H%M%S}", *DAYS[:4]]


def _rewritten(runner: Runner, backup_id: str, as_id: str | None = None, **changes: Any) -> None:
    """Put changed metadata of a backup there, under its own ID or another one."""
    document = find(runner.store, PREFIX, backup_id).metadata.model_dump(mode="json")
    changed = {**document, "backup_id": as_id or backup_id, **changes}
    key = layout.metadata_key(PREFIX, as_id or backup_id)
    runner.store.put(key, json.dumps(changed).encode(), overwrite=True)


def test_a_copied_metadata_file_takes_no_slot_and_its_end_takes_no_data_along(runner: Runner) -> None:
    copy = "database_20260331_010000"
    _rewritten(runner, DAYS[0], copy)
    _clean(runner)
    told = {each.backup_id: each.reasons for each in runner.reported.decisions if not each.removed}
    assert told[copy] == ("duplicate",) and told[DAYS[0]] == ("last-verified", "daily-1")
    holds.write_hold(runner.store, PREFIX, copy, Hold(expiration=NOW), NOW)
    _clean(runner)
    assert _left(runner) == DAYS[:3]
    _is_whole(runner, DAYS[0])


def test_a_backup_whose_data_is_gone_takes_no_slot(runner: Runner) -> None:
    artifact = find(runner.store, PREFIX, DAYS[1]).metadata.artifacts[0].file
    runner.store.delete(f"{PREFIX}database/{artifact}")
    _clean(runner)
    told = {each.backup_id: each.reasons for each in runner.reported.decisions}
    assert told[DAYS[1]] == ("objects-missing",) and told[DAYS[3]] == ("daily-3",)


def test_a_suspect_backup_counts_again_once_it_is_accepted(runner: Runner) -> None:
    _rewritten(runner, DAYS[0], status="suspect")
    _clean(runner, dry_run=True)
    assert _why(runner, DAYS[0]) == ["suspect"]
    assert runner.hold(DAYS[0], accept_anomaly=True).mark == Mark(anomaly_accepted=True)
    _clean(runner, dry_run=True)
    assert _why(runner, DAYS[0]) == ["last-verified", "daily-1"]


def _why(runner: Runner, backup_id: str) -> list[str]:
    return next(list(each.reasons) for each in runner.reported.decisions if each.backup_id == backup_id)


def test_a_cleanup_that_dies_at_any_point_is_brought_to_its_end_by_the_next(
    volume: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def clean_up(mortal: Mortal) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(cleanup, "open_store", lambda _storage: mortal)
            _clean(volume)

    deaths = 0
    for died in lives(clean_up, volume.store, [tmp_path / "volume"]):
        deaths += died
        listed = [each.metadata.backup_id for each in removal.survey(volume.store, PREFIX).backups]
        assert set(DAYS[:3]) <= set(listed)
        for backup_id in listed:
            _is_whole(volume, backup_id)
        told = {each.backup_id for each in volume.reported.decisions if each.removed}
        _clean(volume)
        told |= {each.backup_id for each in volume.reported.decisions if each.removed}
        assert _left(volume) == DAYS[:3] and told == set(DAYS[3:])
    assert deaths >= 2 * 6


class Interrupted(Mortal):
    """A store before whose n-th change somebody else does something."""

    def __init__(self, store: Store, number: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(store, number)
        self._meanwhile = meanwhile

    def _live(self) -> None:
        if not self.changes:
            self._meanwhile()
        self.changes -= 1


class AtThatTime(Runner):
    """Who runs verbs by the clock of the cleanup."""

    def context(self, **more: Any) -> Context:
        """Give surroundings with that clock."""
        return replace(super().context(**more), now=lambda: NOW)


def test_a_restore_that_begins_at_any_point_of_a_removal_brings_the_backup_back_or_touches_nothing(
    volume: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once it began, the backup stays for it: the cleanup goes round it, and the next one as well."""
    whole = {path: path.read_bytes() for path in (tmp_path / "volume").rglob("*") if path.is_file()}
    restorer = AtThatTime(volume.storage, tmp_path / "restorer")
    wanted = _made(DAYS[3])
    target = source.model_copy(update={"path": str(tmp_path / "back.sqlite")})
    came_to: list[str] = []

    def restore() -> None:
        Path(target.path).unlink(missing_ok=True)
        try:
            restorer.restore(wanted, target)
        except BackupMissing:
            came_to.append("refused")
            assert not Path(target.path).exists()
        else:
            came_to.append("restored")

    for number in range(40):
        for path, data in whole.items():
            path.write_bytes(data)
        with monkeypatch.context() as patched:
            store = Interrupted(volume.store, number, restore)
            patched.setattr(cleanup, "open_store", lambda _storage, store=store: store)
            _clean(volume)
        if store.changes >= 0:
            break  # the whole cleanup makes no more changes
        if came_to[-1] == "restored":
            with closing(sqlite3.connect(target.path)) as back:
                assert back.execute("SELECT n FROM t").fetchall() == [(1,)]
        _clean(volume, now=NOW + timedelta(days=9))  # what a dead restore may have left has passed by then
        assert _left(volume) == DAYS[:3]
    assert set(came_to) == {"restored", "refused"} and len(came_to) >= 6


def _made(backup_id: str) -> Result:
    return Result(nonce=NONCE, verb="backup", verdict="Succeeded", reason="", message="", backup_id=backup_id)


def _is_whole(runner: Runner, backup_id: str) -> None:
    """What is listed can be restored, however far a removal came."""
    assert runner.verify(_made(backup_id)).verdict == "Succeeded"


def test_a_hold_that_comes_after_the_tombstone_saves_the_backup(runner: Runner) -> None:
    found = find(runner.store, PREFIX, DAYS[4])
    tombstone = {
        "backup_id": DAYS[4],
        "time": "2026-03-31T02:04:59Z",
        "files": [found.metadata.artifacts[0].file],
    }
    runner.store.put(layout.tombstone_key(PREFIX, DAYS[4]), json.dumps(tombstone).encode())
    with pytest.raises(BackupMissing, match="being removed"):
        holds.write_hold(runner.store, PREFIX, DAYS[4], Hold(held=True), NOW - timedelta(minutes=55))
    _clean(runner)
    assert DAYS[4] in _left(runner)
    assert runner.store.head(layout.tombstone_key(PREFIX, DAYS[4])) is None


class AppendOnly(Mortal):
    """A store that lets nothing be deleted."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, changes=99)

    def delete(self, key: str) -> None:
        """Refuse."""
        raise StorageInvalid(f"{key}: access denied", reason="AccessDenied")


def test_a_storage_that_lets_nothing_be_deleted_is_said_once_with_an_exit_code_that_is_not_tried_again(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "open_store", lambda storage: AppendOnly(open_store(storage)))
    for _ in range(2):
        with pytest.raises(StorageInvalid, match="does not let backups be removed") as raised:
            _clean(runner)
        assert raised.value.reason == "DeleteRefused" and _left(runner) == DAYS
    assert raised.value.exit_code in PERMANENT


def test_a_tombstone_that_an_append_only_time_left_removes_nothing_that_stays_now(runner: Runner) -> None:
    key = layout.tombstone_key(PREFIX, DAYS[4])
    runner.store.put(key, json.dumps({"backup_id": DAYS[4], "time": "2026-03-01T00:00:00Z"}).encode())
    _clean(runner, Retention(keep_daily=9))
    assert _left(runner) == DAYS and runner.store.head(key) is None


def test_a_key_that_may_not_delete_makes_backups_all_the_same(
    volume: Runner, source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "open_store", lambda storage: AppendOnly(open_store(storage)))
    assert volume.backup(source).verdict == "Succeeded"


def test_a_bucket_whose_policy_denies_deletion_takes_backups_and_says_that_it_deletes_nothing(
    bucket: S3Storage, seaweed: Seaweed, source: SqliteSource, tmp_path: Path
) -> None:
    resource = f"arn:aws:s3:::{bucket.bucket}/*"
    denied = {"Effect": "Deny", "Principal": "*", "Action": ["s3:DeleteObject"], "Resource": [resource]}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    seaweed.client().put_bucket_policy(Bucket=bucket.bucket, Policy=policy)
    runner = Runner(bucket, tmp_path / "scratch")
    for number in range(3):
        _scheduled(runner, source, NEWEST - timedelta(days=number))
    with pytest.raises(StorageInvalid) as raised:
        _clean(runner, Retention(keep_daily=2))
    assert raised.value.reason == "DeleteRefused" and _left(runner) == DAYS[:3]
    seaweed.client().delete_bucket_policy(Bucket=bucket.bucket)
    _clean(runner, Retention(keep_daily=2), now=NOW + holds.REMOVAL_LIFE)
    assert _left(runner) == DAYS[:2]


class Full(Mortal):
    """A disk that takes no further byte until something was deleted."""

    freed = False

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write, where there is room."""
        if not self.freed:
            raise StorageInvalid("no space left", reason="StorageFull")
        super().put(key, data, overwrite=overwrite)

    def delete(self, key: str) -> None:
        """Make room."""
        self.freed = True
        super().delete(key)


def test_a_disk_that_is_full_gets_room_all_the_same(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleanup, "open_store", lambda storage: Full(open_store(storage), 99))
    _clean(runner)
    assert _left(runner) == DAYS[:3]


def _make_old(runner: Runner, tmp_path: Path, name: str, days: int = 2) -> Path:
    path = tmp_path / "volume" / PREFIX / "database" / name
    path.write_bytes(b"x")
    old = datetime.now(UTC).timestamp() - days * 86400
    os.utime(path, (old, old))
    return path


def test_what_a_dead_attempt_left_is_removed_after_a_day_and_nothing_else(
    volume: Runner, tmp_path: Path
) -> None:
    old = _make_old(volume, tmp_path, "database_20260330_020000_1.sqlite.gz")
    lonely = _make_old(volume, tmp_path, "database_20200101_020000_verification.json")
    upload = _make_old(volume, tmp_path, ".database_20260330_020000.sqlite.gz.0123.partial")
    young = _make_old(volume, tmp_path, "database_20260330_020000_2.sqlite.gz", days=0)
    under_way = _make_old(volume, tmp_path, ".database_20260330_020000.sqlite.gz.4567.partial", days=0)
    foreign = _make_old(volume, tmp_path, "notes.txt")
    impossible = _make_old(volume, tmp_path, "database_20261399_020000.sqlite.gz")
    result = _clean(volume, Retention(keep_daily=9), now=datetime.now(UTC))
    assert "3 objects and uploads that no backup names removed" in result.message
    assert not any(path.exists() for path in (old, lonely, upload))
    assert all(path.exists() for path in (young, under_way, foreign, impossible))


def test_a_run_whose_objects_were_taken_for_left_over_does_not_commit(volume: Runner) -> None:
    """pgBackRest 2.59: "expire removing a backup in progress on another host"."""
    metadata = find(volume.store, PREFIX, DAYS[0]).metadata
    volume.store.delete(f"{PREFIX}database/{metadata.artifacts[0].file}")
    late = metadata.model_copy(update={"backup_id": "database_20260331_030000"})
    with pytest.raises(StorageUnavailable, match="while the run was under way"):
        commit(volume.store, PREFIX, late)


def test_uploads_that_never_ended_are_looked_for_in_our_folders_and_by_the_storages_clock(
    bucket: S3Storage, source: SqliteSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Barman BAR-674: what killed uploads left fills the disk."""
    asked: list[tuple[str, datetime]] = []

    class Asked(Mortal):
        def remove_abandoned(self, prefix: str, before: datetime) -> int:
            asked.append((prefix, before))
            return int(self._store.remove_abandoned(prefix, before))

    runner = Runner(bucket, tmp_path / "scratch")
    _scheduled(runner, source, NEWEST)
    monkeypatch.setattr(cleanup, "open_store", lambda storage: Asked(open_store(storage), 99))
    _clean(runner, now=datetime.now(UTC) + timedelta(days=30))
    assert [prefix for prefix, _ in asked] == list(layout.folders(PREFIX))
    assert all(before < datetime.now(UTC) - timedelta(hours=23) for _, before in asked)


def test_what_a_failed_run_left_stays_until_a_success_follows(volume: Runner, tmp_path: Path) -> None:
    """Else the next success would not be known to be a recovery."""
    before = _make_old(volume, tmp_path, "database_20260330_010000_attempt.json")
    after = _make_old(volume, tmp_path, "database_20260331_090000_attempt.json")
    _clean(volume, Retention(keep_daily=9), now=datetime.now(UTC))
    assert after.exists() and not before.exists()


class Forgetful(Mortal):
    """A store whose list leaves one object out."""

    forgotten = layout.metadata_key(PREFIX, DAYS[2])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List all but one."""
        return (each for each in self._store.list(prefix) if each.key != self.forgotten)


def test_what_a_list_leaves_out_makes_no_data_an_orphan(
    volume: Runner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """restic#1246: a list that is not whole must not make a prune remove what is in use."""
    old = _make_old(volume, tmp_path, "database_20260330_020000_1.sqlite.gz")
    for path in (tmp_path / "volume" / PREFIX / "database").glob(f"{DAYS[2]}*"):
        os.utime(path, (old.stat().st_mtime, old.stat().st_mtime))
    monkeypatch.setattr(cleanup, "open_store", lambda storage: Forgetful(open_store(storage), 99))
    _clean(volume, Retention(keep_daily=9), now=datetime.now(UTC))
    _is_whole(volume, DAYS[2])
    assert old.exists(), "where the list is not whole, nothing is left over"


def test_a_clock_of_ours_that_is_fast_makes_nothing_old(volume: Runner, tmp_path: Path) -> None:
    under_way = _make_old(volume, tmp_path, "database_20260330_020000_1.sqlite.gz", days=0)
    _clean(volume, Retention(keep_daily=9), now=datetime.now(UTC) + timedelta(days=30))
    assert under_way.exists()


def test_where_metadata_cannot_be_read_no_object_is_an_orphan(volume: Runner, tmp_path: Path) -> None:
    old = _make_old(volume, tmp_path, "database_20260330_020000_1.sqlite.gz")
    damaged = _make_old(volume, tmp_path, "database_20260301_020000_metadata.json")
    result = _clean(volume, Retention(keep_daily=9), now=datetime.now(UTC))
    assert old.exists() and damaged.exists() and "1 metadata files cannot be read" in result.message


@pytest.mark.parametrize(
    "tombstone", [b"", b"{}", b"[1]", b'{"backup_id": "database_20260327_020000", "files": ["../../x"]}']
)
def test_a_tombstone_that_is_damaged_or_hostile_removes_nothing_else(
    volume: Runner, tombstone: bytes, tmp_path: Path
) -> None:
    precious = tmp_path / "volume" / "x"
    precious.write_text("precious")
    volume.store.put(layout.tombstone_key(PREFIX, DAYS[4]), tombstone, overwrite=True)
    _clean(volume, Retention(keep_daily=9))
    assert precious.exists() and set(DAYS[:4]) <= set(_left(volume))
