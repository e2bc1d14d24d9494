"""Steps of a stream in threads: nothing is lost, changed or reordered, and nothing is left running."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.errors import StorageUnavailable
from avalanche_backup.pipeline.stages import HANDED_OVER, WAITING, Gathered, Hashing, ahead

SIZES = st.lists(st.sampled_from([0, 1, 511, HANDED_OVER - 1, HANDED_OVER, HANDED_OVER + 1]), max_size=20)


def _pieces(sizes: list[int]) -> list[bytes]:
    return [bytes([number % 251]) * size for number, size in enumerate(sizes)]


def _running() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name in ("ahead", "hash")}


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=40))
def test_what_runs_ahead_comes_in_its_order(chunks: list[bytes]) -> None:
    assert list(ahead(ahead(iter(chunks)))) == chunks
    assert not _running()


def test_a_failure_comes_after_all_that_came_before_it() -> None:
    def broken() -> Iterator[bytes]:
        yield from (b"one", b"two")
        raise StorageUnavailable("the bucket went away")

    reading = ahead(broken())
    assert [next(reading), next(reading)] == [b"one", b"two"]
    with pytest.raises(StorageUnavailable):
        next(reading)


def test_no_more_than_a_few_pieces_are_read_before_they_are_wanted() -> None:
    given_out = []

    def endless() -> Iterator[bytes]:
        while True:
            given_out.append(1)
            yield b"more"

    reading = ahead(endless())
    for _ in range(10):
        next(reading)
    assert len(given_out) <= 10 + WAITING + 2
    reading.close()


def test_what_is_closed_early_closes_what_it_reads_and_ends_its_threads() -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            closed.set()

    reading = ahead(ahead(endless()))
    next(reading)
    reading.close()
    assert closed.is_set() and not _running()


@given(SIZES)
def test_a_hash_beside_the_stream_is_the_hash_of_the_stream(sizes: list[int]) -> None:
    hashing = Hashing()
    for piece in _pieces(sizes):
        hashing.update(memoryview(piece))
    assert hashing.hexdigest() == hashlib.sha256(b"".join(_pieces(sizes))).hexdigest()
    hashing.close()
    assert not _running()


def test_a_hash_that_nobody_asks_for_leaves_no_thread() -> None:
    hashing = Hashing()
    hashing.update(bytes(3 * HANDED_OVER))
    hashing.close()
    assert not _running()


@given(SIZES)
def test_small_pieces_go_on_together_and_none_is_held_back(sizes: list[int]) -> None:
    passed: list[bytes] = []
    gathered = Gathered(passed.append)
    for piece in _pieces(sizes):
        gathered.write(piece)
    gathered.flush()
    assert b"".join(passed) == b"".join(_pieces(sizes))
    assert all(len(each) >= HANDED_OVER for each in passed[:-1])
