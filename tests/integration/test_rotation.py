"""Verifying several backups of a policy at once: what is found, healed, told, and whose turn it is next."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog, layout
from avalanche_backup.errors import Failure, StorageInvalid, StorageUnavailable, VerificationFailed
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import destinations
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.notification import Notifications
from avalanche_contract.request import (
    BackupReference,
    CleanupRequest,
    DeleteRequest,
    Retention,
    Rotation,
    VerifyRequest,
)
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource
from avalanche_contract.storage import DirectoryStorage, S3Storage, Storage
from tests.fakes.stores import Trouble, Troubled
from tests.integration import mail
from tests.integration.mail import ENV_PASSWORD, PASSWORD, Mail
from tests.integration.runs import NOBODY, NONCE, PREFIX, WRITER, Runner

MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "first").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("content" * 1000)
    return Runner(DirectoryStorage(name="first", root=str(tmp_path / "first")), tmp_path / "scratch")


@pytest.fixture
def both(runner: Runner, tmp_path: Path) -> Runner:
    (tmp_path / "second").mkdir()
    return replace(runner, others=(DirectoryStorage(name="second", root=str(tmp_path / "second")),))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    monkeypatch.setenv(ENV_PASSWORD, PASSWORD)
    with mail.server(tmp_path) as running:
        yield running


def made(runner: Runner, tmp_path: Path, days: int) -> list[str]:
    """Back up at 02:00 on some days, and give the IDs."""
    source = FilesSource(name="data", root=str(tmp_path / "data"))
    return [_back_up(runner, source, day).backup_id or "" for day in range(days)]


def _back_up(runner: Runner, source: FilesSource, day: int) -> Result:
    moment = MOMENT + timedelta(days=day)
    asked, context = runner.manual(moment, f"run-{day}"), runner.context(now=lambda: moment)
    return runner.backup(source, kind="files", run_of=asked, context=context)


def rotate(
    runner: Runner, day: int, notifications: Notifications = NOBODY, *, heal: bool = True, **limits: Any
) -> Result:
    """Verify at 06:00 of a day what has its turn."""
    moment = MOMENT + timedelta(days=day, hours=4)
    request = VerifyRequest(
        nonce=NONCE,
        backup=Rotation(place=runner.place, writer=WRITER, **limits),
        others=runner.places[1:],
        heal=heal and bool(runner.others),
        notifications=notifications,
    )
    runner.reported.verified.clear()
    return run(request, runner.context(now=lambda: moment))


def damage(storage: Storage, backup_id: str) -> None:
    """Flip a bit of a stored object, behind everybody's back."""
    store = open_store(storage)
    found = catalog.find(store, PREFIX, backup_id)
    key = layout.folder(PREFIX, "files") + found.metadata.artifacts[0].file
    data = bytearray(catalog.read_document(store, key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data), overwrite=True)


def verdict(runner: Runner, backup_id: str) -> dict[str, Any]:
    return catalog.read_json(runner.store, layout.verification_key(PREFIX, backup_id)) or {}


def told(runner: Runner) -> dict[str, str]:
    return {each.backup_id: each.status for each in runner.reported.verified}


def test_a_night_reads_those_that_were_not_verified_for_longest_and_the_next_one_the_others(
    runner: Runner, tmp_path: Path
) -> None:
    ids = made(runner, tmp_path, 5)
    first = rotate(runner, 5, max_backups=2)
    assert list(told(runner)) == ids[:2] and first.entry_count == 2
    assert first.message == "2 of 5 backups were read and found whole"
    rotate(runner, 6, max_backups=2)
    assert list(told(runner)) == ids[2:4]
    rotate(runner, 7, max_backups=2)
    assert list(told(runner)) == [ids[4], ids[0]]


def test_a_night_reads_no_more_bytes_than_it_may_and_one_backup_at_least(
    runner: Runner, tmp_path: Path
) -> None:
    ids = made(runner, tmp_path, 4)
    size = catalog.find(runner.store, PREFIX, ids[0]).metadata.size_bytes
    rotate(runner, 5, max_bytes=2 * size + size // 2)
    assert list(told(runner)) == ids[:2]
    rotate(runner, 6, max_bytes=1)
    assert list(told(runner)) == ids[2:3]


def test_a_flipped_bit_is_found_the_others_are_read_and_retention_takes_the_next(
    runner: Runner, tmp_path: Path
) -> None:
    ids = made(runner, tmp_path, 3)
    damage(runner.storage, ids[0])
    with pytest.raises(VerificationFailed) as raised:
        rotate(runner, 3)
    assert ids[0] in raised.value.message and "2 of 3 backups" in raised.value.message
    assert told(runner) == {ids[0]: "VerificationFailed", ids[1]: "Verified", ids[2]: "Verified"}
    keep = CleanupRequest(
        nonce=NONCE, place=runner.place, writer=WRITER, retention=Retention(keep_monthly=1), dry_run=True
    )
    run(keep, runner.context())
    reasons = {each.backup_id: each.reasons for each in runner.reported.decisions}
    assert "verification-failed" in reasons[ids[0]] and "monthly-1" not in reasons[ids[0]]


def test_a_missing_and_a_damaged_copy_are_healed_whoever_else_has_its_turn(
    both: Runner, tmp_path: Path
) -> None:
    ids = made(both, tmp_path, 4)
    second = open_store(both.others[0])
    second.delete(layout.metadata_key(PREFIX, ids[3]))
    result = rotate(both, 4, max_backups=1)
    assert list(told(both)) == [ids[3]] and result.reason == "Healed"
    damage(both.others[0], ids[2])
    rotate(both, 5, max_backups=3)
    copies = {each.backup_id: [copy.reason for copy in each.copies] for each in both.reported.verified}
    assert copies[ids[2]] == ["", "Healed"]
    rotate(both, 6, max_backups=4)
    assert all(copy.status == "Verified" for each in both.reported.verified for copy in each.copies)


def test_what_was_damaged_in_one_place_and_could_not_be_healed_comes_first_the_next_night(
    both: Runner, tmp_path: Path
) -> None:
    ids = made(both, tmp_path, 3)
    damage(both.others[0], ids[2])
    rotate(both, 3, heal=False)
    assert {each.backup_id for each in both.reported.verified if each.reason == "CopiesIncomplete"} == {
        ids[2]
    }
    healed = rotate(both, 4, max_backups=1)
    assert list(told(both)) == [ids[2]] and healed.reason == "Healed"


def test_all_that_is_there_is_listed_with_where_that_was_looked_for(both: Runner, tmp_path: Path) -> None:
    ids = made(both, tmp_path, 3)
    open_store(both.others[0]).delete(layout.metadata_key(PREFIX, ids[0]))
    both.store.put(layout.metadata_key(PREFIX, ids[1]), b"{ garbled", overwrite=True)
    rotate(both, 3, heal=False, max_backups=1)
    (page,) = both.reported.pages
    assert page.storages == ("first", "second") and list(page.backup_ids) == ids
    gone = DirectoryStorage(name="second", root=str(tmp_path / "nowhere"))
    with pytest.raises(VerificationFailed):  # the garbled one has no good copy now
        rotate(replace(both, others=(gone,)), 4, max_backups=1)
    assert both.reported.pages[-1].storages == ("first",)


def test_an_emptied_bucket_is_an_empty_list(runner: Runner) -> None:
    result = rotate(runner, 1)
    assert [each.backup_ids for each in runner.reported.pages] == [()] and result.entry_count == 0


def test_a_place_that_is_away_stops_nobody_and_one_that_is_anothers_is_left_alone(
    both: Runner, tmp_path: Path
) -> None:
    ids = made(both, tmp_path, 2)
    gone = DirectoryStorage(name="second", root=str(tmp_path / "nowhere"))
    result = rotate(replace(both, others=(gone,)), 2)
    assert result.reason == "CopiesIncomplete" and set(told(both).values()) == {"Verified"}
    second = open_store(both.others[0])
    second.put(
        f"{PREFIX}{layout.OWNER_FILE}", json.dumps({"cluster_uid": "another"}).encode(), overwrite=True
    )
    second.delete(layout.metadata_key(PREFIX, ids[0]))
    assert "another" in rotate(both, 3).message
    assert second.head(layout.metadata_key(PREFIX, ids[0])) is None


def test_where_no_place_answers_nothing_is_said_of_any_backup(runner: Runner, tmp_path: Path) -> None:
    made(runner, tmp_path, 1)
    gone = DirectoryStorage(name="first", root=str(tmp_path / "nowhere"))
    with pytest.raises((StorageUnavailable, StorageInvalid)):
        rotate(replace(runner, storage=gone), 1)
    assert told(runner) == {}


def _beset(monkeypatch: pytest.MonkeyPatch, trouble: Trouble) -> None:
    """Let a trouble stand before every store that a verification opens."""
    monkeypatch.setattr(destinations, "open_store", lambda each: Troubled(open_store(each), trouble))


def test_a_storage_that_goes_away_midway_ends_the_night_and_damages_nothing(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 4)

    def trouble(operation: str, key: str) -> None:
        if operation == "read" and ids[0] not in key and key.endswith(".gz"):
            raise StorageUnavailable("away")

    _beset(monkeypatch, trouble)
    with pytest.raises(StorageUnavailable):
        rotate(runner, 4)
    assert told(runner) == {ids[0]: "Verified", ids[1]: "NotVerified", ids[2]: "NotVerified"}
    assert verdict(runner, ids[1]) == {}


@pytest.mark.parametrize(
    ("failure", "ending"),
    [(StorageUnavailable, ".gz"), (StorageInvalid, ".gz"), (StorageInvalid, "_metadata.json")],
)
def test_what_the_storage_does_not_give_takes_no_turn_away_and_does_not_pass_for_whole(
    failure: type[Failure], ending: str, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 4)

    def trouble(operation: str, key: str) -> None:
        if operation == "read" and ids[0] in key and key.endswith(ending):
            raise failure("it is in an archive")

    _beset(monkeypatch, trouble)
    for day, turn in ((4, ids[1]), (5, ids[2])):
        try:
            result = rotate(runner, day, max_backups=1)
            assert (result.verdict, result.reason) == ("Succeeded", "BackupsNotRead")
            assert "1 not read: it is in an archive" in result.message
        except StorageUnavailable:
            assert failure is StorageUnavailable
        assert told(runner) == {ids[0]: "NotVerified", turn: "Verified"}


def test_a_backup_that_a_cleanup_removes_meanwhile_is_not_damaged(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 2)

    def trouble(operation: str, key: str) -> None:
        if operation == "read" and ids[0] in key and key.endswith(".gz"):
            runner.store.put(layout.tombstone_key(PREFIX, ids[0]), b"{}", overwrite=True)
            runner.store.delete(layout.metadata_key(PREFIX, ids[0]))
            runner.store.delete(key)

    def opened(storage: Storage) -> Store:
        return Troubled(open_store(storage), trouble)

    monkeypatch.setattr(destinations, "open_store", opened)
    assert rotate(runner, 2).reason == "Verified"
    assert list(told(runner)) == ids[1:] and verdict(runner, ids[0]) == {}
    monkeypatch.undo()
    rotate(runner, 3)
    assert list(told(runner)) == ids[1:], "a removal that is under way is left alone"


def test_garbled_metadata_is_damage_and_metadata_of_a_newer_release_is_not(
    runner: Runner, tmp_path: Path
) -> None:
    ids = made(runner, tmp_path, 3)
    runner.store.put(layout.metadata_key(PREFIX, ids[0]), b"{ garbled", overwrite=True)
    key = layout.metadata_key(PREFIX, ids[1])
    newer = {**(catalog.read_json(runner.store, key) or {}), "format_version": "9.0"}
    runner.store.put(key, json.dumps(newer).encode(), overwrite=True)
    with pytest.raises(VerificationFailed):
        rotate(runner, 3)
    found = {each.backup_id: (each.status, each.reason) for each in runner.reported.verified}
    assert found == {
        ids[0]: ("VerificationFailed", "MetadataInvalid"),
        ids[1]: ("NotVerified", "MetadataNewer"),
        ids[2]: ("Verified", "Verified"),
    }


def test_damage_is_one_mail_of_all_that_is_new_and_not_one_each_morning(
    server: Mail, runner: Runner, tmp_path: Path
) -> None:
    notifications = Notifications(channels=(server.channel(),))
    ids = made(runner, tmp_path, 4)
    damage(runner.storage, ids[0])
    runner.store.put(layout.metadata_key(PREFIX, ids[1]), b"{ garbled", overwrite=True)
    for day in (4, 5):
        with pytest.raises(VerificationFailed):
            rotate(runner, day, notifications)
    assert len(server.received) == 1
    message = server.received[0][2]
    assert "2 backups failed verification" in message["Subject"]
    body = message.get_content()
    assert ids[0] in body and ids[1] in body
    damage(runner.storage, ids[3])
    with pytest.raises(VerificationFailed):
        rotate(runner, 6, notifications)
    assert len(server.received) == 2 and ids[3] in server.received[1][2]["Subject"]


def test_damage_that_nobody_could_be_told_of_is_told_the_next_morning(
    server: Mail, runner: Runner, tmp_path: Path
) -> None:
    ids = made(runner, tmp_path, 1)
    damage(runner.storage, ids[0])
    deaf = server.channel().model_copy(update={"port": 1})
    for channel in (deaf, server.channel(), server.channel()):
        with pytest.raises(VerificationFailed):
            rotate(runner, 1, Notifications(channels=(channel,)))
    assert len(server.received) == 1


def test_where_no_second_write_is_taken_the_same_damage_is_told_once(
    server: Mail, runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 2)
    rotate(runner, 2)  # both verdicts lie there now, and stay
    damage(runner.storage, ids[0])

    def trouble(operation: str, key: str) -> None:
        if operation == "put" and runner.store.head(key) is not None:
            raise StorageInvalid("append-only")

    _beset(monkeypatch, trouble)
    for day in (3, 4, 5):
        with pytest.raises(VerificationFailed):
            rotate(runner, day, Notifications(channels=(server.channel(),)))
    assert len(server.received) == 1
    damage(runner.storage, ids[1])
    with pytest.raises(VerificationFailed):
        rotate(runner, 6, Notifications(channels=(server.channel(),)))
    assert len(server.received) == 2, "what is new is told all the same"


def append_only(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the storage take each name once, and let nothing go."""

    def trouble(operation: str, key: str) -> None:
        if operation == "delete" or (operation == "put" and runner.store.head(key) is not None):
            raise StorageInvalid("append-only")

    _beset(monkeypatch, trouble)


def test_where_no_second_write_is_taken_every_backup_has_its_turn_again_and_again(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 5)
    append_only(runner, monkeypatch)
    nights: list[str] = []
    for day in range(5, 15):
        rotate(runner, day, max_backups=1)
        nights += list(told(runner))
    assert nights == ids * 2


@pytest.mark.parametrize("planted", ["a note", "a verdict"])
def test_a_reading_that_is_yet_to_come_keeps_no_backup_out_of_the_rotation(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """Nor gives it each turn: whoever may write beside backups would hide damage of one, or of all others."""
    ids = made(runner, tmp_path, 3)
    never = datetime(9999, 1, 1, tzinfo=UTC)
    plant = catalog.remember_read if planted == "a note" else catalog.write_verification
    plant(runner.store, PREFIX, ids[1], status="Verified", message="", now=never)
    append_only(runner, monkeypatch)
    nights: list[str] = []
    for day in range(5, 11):
        rotate(runner, day, max_backups=1)
        nights += list(told(runner))
    assert sorted(nights[:3]) == sorted(ids) and nights[3:] == nights[:3]


def test_where_no_second_write_is_taken_a_damaged_backup_does_not_take_the_turn_of_the_others(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 3)
    rotate(runner, 3)
    damage(runner.storage, ids[0])
    append_only(runner, monkeypatch)
    seen: list[str] = []
    for day in range(4, 10):
        with suppress(VerificationFailed):
            rotate(runner, day, max_backups=1)
        seen += list(told(runner))
    assert seen == ids * 2


def test_the_notes_of_readings_go_with_their_backup(
    runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(runner, tmp_path, 2)
    with monkeypatch.context() as meanwhile:
        append_only(runner, meanwhile)
        for day in (2, 3):
            rotate(runner, day)
    assert [each for each in runner.stored() if f"{ids[0]}_read_" in each] != []
    where = BackupReference(place=runner.place, backup_id=ids[0], backup_type="files")
    run(DeleteRequest(nonce=NONCE, backup=where, writer=WRITER), runner.context())
    assert [each for each in runner.stored() if ids[0] in each] == []
    assert catalog.read_times(runner.store, PREFIX, MOMENT + timedelta(days=9)) == {
        ids[1]: MOMENT + timedelta(days=3, hours=4)
    }


def test_in_a_bucket_it_is_the_same(corner: S3Storage, runner: Runner, tmp_path: Path) -> None:
    there = replace(runner, others=(corner,))
    ids = made(there, tmp_path, 2)
    damage(corner, ids[0])
    assert rotate(there, 2).reason == "Healed"
    assert told(there) == {ids[0]: "Verified", ids[1]: "Verified"}
    assert all(copy.status == "Verified" for each in there.reported.verified for copy in each.copies)
