"""One stream to several stores: what one of them does is no trouble of the others."""

from __future__ import annotations

import gc
import hashlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyrage
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avalanche_backup.errors import ObjectExists, StorageUnavailable, VerificationFailed
from avalanche_backup.pipeline import fanout
from avalanche_backup.pipeline.compression import Algorithm
from avalanche_backup.pipeline.encryption import parse_recipients
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.pipeline.upload import Encoding, Stored, Upload
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.directory import PARTIAL, DirectoryStore
from avalanche_contract.storage import DirectoryStorage
from tests.fakes.stores import StandsStill, Trouble, Troubled, dies_at

DATA = os.urandom(64 * 1024) * 100


def _nothing(operation: str, key: str) -> None:
    del operation, key


def _destinations(folder: Path, *troubles: Trouble) -> list[Destination]:
    made = []
    for number, trouble in enumerate(troubles):
        (folder / f"s{number}").mkdir()
        store: Store = DirectoryStore(DirectoryStorage(name=f"s{number}", root=str(folder / f"s{number}")))
        made.append(Destination(Troubled(store, trouble), "p/"))
    return made


def _upload(destinations: Sequence[Destination], data: bytes = DATA) -> Stored:
    with Upload(destinations, lambda number: f"object{number}", Encoding("None")) as upload:
        for start in range(0, len(data), 300_007):
            upload.write(memoryview(data)[start : start + 300_007])
        return upload.commit()


def _stored(folder: Path) -> list[str]:
    """Give the stores that hold just what was written, whole."""
    digest = hashlib.sha256(DATA).digest()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(PARTIAL)]
    assert all(hashlib.sha256(path.read_bytes()).digest() == digest for path in files)
    return [path.relative_to(folder).parts[0] for path in files]


@pytest.mark.parametrize("operation", ["head", "create", "write", "commit", "read"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_store_that_dies_is_left_out_and_the_others_have_everything(
    tmp_path: Path, operation: str, place: int
) -> None:
    troubles: list[Trouble] = [_nothing] * 3
    troubles[place] = dies_at(operation)
    destinations = _destinations(tmp_path, *troubles)
    assert _upload(destinations).facts.size_bytes == len(DATA)
    failures = [each.failure.message if each.failure else None for each in destinations]
    assert failures == [f"broke off at {operation}" if number == place else None for number in range(3)]
    assert _stored(tmp_path) == [f"s{number}" for number in range(3) if number != place]


@pytest.mark.parametrize("operation", ["write", "commit", "read"])
def test_a_store_that_stands_still_is_given_up_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    monkeypatch.setattr(fanout, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(fanout, "_TICK", 0.05)
    monkeypatch.setattr(fanout, "ABORT_SECONDS", 0.1)
    still = StandsStill(operation)
    destinations = _destinations(tmp_path, still, _nothing)
    _upload(destinations)
    assert destinations[0].failure is not None and destinations[0].failure.reason == "TooSlow"
    assert destinations[1].failure is None and "s1" in _stored(tmp_path)
    still.released.set()


def test_a_store_that_was_given_up_while_it_committed_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(fanout, "_TICK", 0.05)
    still = StandsStill("commit")
    _upload(_destinations(tmp_path, _nothing, still))
    still.released.set()
    for thread in [each for each in threading.enumerate() if each.name == "upload-s1"]:
        thread.join(10)
    assert _stored(tmp_path) == ["s0"]


def test_a_store_that_holds_the_others_up_for_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fanout, "HELD_UP_SECONDS", 0.3)
    monkeypatch.setattr(fanout, "_TICK", 0.02)
    pause = threading.Event()

    def slow(operation: str, key: str) -> None:
        del key
        if operation == "write":
            pause.wait(0.05)

    destinations = _destinations(tmp_path, slow, _nothing)
    _upload(destinations)
    assert destinations[0].failure is not None and "held the others up" in destinations[0].failure.message


def test_a_store_that_is_alone_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fanout, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(fanout, "_TICK", 0.02)
    still = StandsStill("write")
    threading.Timer(0.5, still.released.set).start()
    _upload(_destinations(tmp_path, still))
    assert _stored(tmp_path) == ["s0"]


def test_where_all_die_the_failure_tells_of_each(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable) as raised:
        _upload(_destinations(tmp_path, dies_at("write"), dies_at("commit")))
    assert raised.value.reason == "NoDestination"
    assert "at write" in raised.value.message and "at commit" in raised.value.message
    assert _stored(tmp_path) == []


def test_a_defect_in_one_store_stops_no_other(tmp_path: Path) -> None:
    def defect(operation: str, key: str) -> None:
        if operation == "write":
            raise TypeError(key)

    destinations = _destinations(tmp_path, _nothing, defect)
    _upload(destinations)
    assert destinations[1].failure is not None and "a defect" in destinations[1].failure.message


def test_a_copy_that_reads_back_wrong_is_removed_and_the_other_is_decoded_instead(tmp_path: Path) -> None:
    destinations = _destinations(tmp_path, _nothing, _nothing)
    store = destinations[0].store

    def spoil(operation: str, key: str) -> None:
        if operation == "read":
            path = tmp_path / "s0" / key
            path.write_bytes(b"x" + path.read_bytes()[1:])

    destinations[0].store = Troubled(store, spoil)
    _upload(destinations)
    assert isinstance(destinations[0].failure, VerificationFailed) and _stored(tmp_path) == ["s1"]


def test_a_name_that_is_taken_anywhere_is_used_nowhere(tmp_path: Path) -> None:
    destinations = _destinations(tmp_path, _nothing, _nothing)
    destinations[1].store.put("p/object0", DATA)
    assert _upload(destinations).name == "object1"


def test_of_two_uploads_of_one_name_one_gets_it_everywhere(tmp_path: Path) -> None:
    destinations = _destinations(tmp_path, _nothing, _nothing)
    with Upload(destinations, lambda number: f"object{number}", Encoding("None")) as late:
        late.write(b"late")
        _upload([Destination(each.store, each.prefix) for each in destinations])
        with pytest.raises(ObjectExists):
            late.commit()
    assert _stored(tmp_path) == ["s0", "s1"]


def test_an_upload_that_is_given_up_leaves_nothing_anywhere(tmp_path: Path) -> None:
    destinations = _destinations(tmp_path, _nothing, _nothing)
    with Upload(destinations, lambda number: f"object{number}", Encoding("Gzip")) as upload:
        upload.write(DATA)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["", "create", "write", "commit", "read"]), min_size=1, max_size=4))
def test_whatever_dies_what_is_left_is_whole(
    tmp_path_factory: pytest.TempPathFactory, operations: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("stores")
    alive = [number for number, each in enumerate(operations) if not each]
    destinations = _destinations(folder, *(dies_at(each) if each else _nothing for each in operations))
    try:
        _upload(destinations)
    except StorageUnavailable:
        assert not alive
    assert _stored(folder) == [f"s{number}" for number in alive]


def test_memory_is_bounded_by_a_few_pieces(tmp_path: Path) -> None:
    still = StandsStill("write")
    given_bytes = 0

    def feed(upload: Upload) -> None:
        nonlocal given_bytes
        for chunk in _chunks():
            upload.write(chunk)
            given_bytes += len(chunk)

    with Upload(
        _destinations(tmp_path, still, _nothing), lambda number: f"o{number}", Encoding("None")
    ) as upload:
        feeding = threading.Thread(target=feed, args=(upload,))
        feeding.start()
        feeding.join(0.5)
        assert feeding.is_alive() and given_bytes <= (fanout.WAITING + 2) * fanout.PIECE
        still.released.set()
        feeding.join()
        upload.commit()
    assert given_bytes == 20 * fanout.PIECE


def _chunks() -> Iterator[bytes]:
    return (bytes(fanout.PIECE) for _ in range(20))


@pytest.mark.parametrize("algorithm", ["Gzip", "Zstd", "None"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_an_upload_that_ended_lets_go_of_its_memory_at_once(
    tmp_path: Path, algorithm: Algorithm, encrypted: bool
) -> None:
    """A run stores one source after the other: what the first one held was missing to the next, and the pod was killed."""
    public = str(pyrage.x25519.Identity.generate().to_public())
    recipients = parse_recipients([public], "test") if encrypted else ()
    gc.disable()
    try:
        with Upload(
            _destinations(tmp_path, _nothing), lambda _: "one", Encoding(algorithm, None, recipients)
        ) as upload:
            upload.write(DATA)
            upload.commit()
        held = weakref.ref(upload)
        del upload
        assert held() is None
    finally:
        gc.enable()
