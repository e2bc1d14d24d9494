"""Streams as an attacker writes them: no more is unpacked than the metadata says, whatever the stream promises (§5.43)."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.errors import VerificationFailed
from avalanche_backup.pipeline.compression import DECODED_CHUNK, Algorithm
from avalanche_backup.pipeline.download import StreamFacts, checked

CHUNK = 1024 * 1024
BOMB = 200_000_000
PROMISED = 1000
ZSTD_MAGIC = bytes.fromhex("28b52ffd")


def _gzip_of_zeros(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, 31)
    made = [coder.compress(bytes(CHUNK)) for _ in range(size // CHUNK + 1)]
    return b"".join([*made, coder.flush()])


BOMBS: dict[str, tuple[Algorithm, bytes]] = {
    "gzip": ("Gzip", _gzip_of_zeros(BOMB)),
    "zstd": ("Zstd", zstd.compress(bytes(BOMB))),
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_bomb_is_stopped_at_what_the_metadata_says_and_takes_no_memory(case: str) -> None:
    algorithm, stored = BOMBS[case]
    tracemalloc.start()
    try:
        failure, given_out = _refused(algorithm, stored)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "more decoded bytes than the 1000 of the metadata" in failure
    assert given_out <= PROMISED and peak < 4 * DECODED_CHUNK


REFUSED: dict[str, tuple[Algorithm, bytes]] = {
    "a zstd window of 2 GiB": ("Zstd", ZSTD_MAGIC + b"\x00" + bytes([21 << 3]) + b"\x09\0\0x"),
    "a zstd frame of 16 EiB": ("Zstd", ZSTD_MAGIC + b"\xe0" + b"\xff" * 8 + b"\x09\0\0x"),
    "a zstd dictionary that nobody has": ("Zstd", ZSTD_MAGIC + b"\x01\x00\x07" + b"\x09\0\0x"),
    "two zstd frames": ("Zstd", zstd.compress(b"one") + zstd.compress(b"two")),
    "a zstd frame behind one to be skipped": ("Zstd", bytes.fromhex("502a4d18") + b"\x02\0\0\0ab" + zstd.compress(b"x")),
    "garbage behind zstd": ("Zstd", zstd.compress(b"one") + b"garbage"),
    "zeros behind zstd": ("Zstd", zstd.compress(b"one") + bytes(600)),
    "two gzip members": ("Gzip", gzip.compress(b"one") + gzip.compress(b"two")),
    "garbage behind gzip": ("Gzip", gzip.compress(b"one") + b"garbage"),
    "zeros behind gzip": ("Gzip", gzip.compress(b"one") + bytes(600)),
    "a gzip name without end": ("Gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\x03" + b"n" * 3_000_000),
    "a gzip of another method": ("Gzip", b"\x1f\x8b\x07\0\0\0\0\0\0\x03" + b"x" * 100),
    "a gzip checksum of another content": ("Gzip", gzip.compress(b"one")[:-8] + b"\0" * 4 + b"\x03\0\0\0"),
    "a gzip length of another content": ("Gzip", gzip.compress(b"one")[:-4] + b"\xff\xff\xff\xff"),
    "zstd where gzip is named": ("Gzip", zstd.compress(b"one")),
    "gzip where zstd is named": ("Zstd", gzip.compress(b"one")),
    "nothing": ("Gzip", b""),
    "more than is named": ("None", b"x" * (PROMISED + 1)),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("size", [1, 7, CHUNK])
def test_a_stream_that_is_not_ours_is_refused(case: str, size: int) -> None:
    algorithm, stored = REFUSED[case]
    if size == 1:
        stored = stored[:20_000]  # byte by byte, and the end of a name is as far away as ever
    said = _refused(algorithm, stored, size)[0]
    assert "the metadata says" not in said and "SHA-256" not in said  # the stream itself is found out


def test_a_stored_object_that_grew_is_refused_before_it_is_read_to_its_end() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x" * 100

    facts = StreamFacts("None", 1000, "", 1000, "")
    with pytest.raises(VerificationFailed, match="more stored bytes"):
        list(checked(endless(), facts, "dump"))
    assert read == 11


@given(st.sampled_from(["Gzip", "Zstd"]), st.binary(max_size=300), st.integers(0, 400), st.integers(1, 64))
def test_any_bytes_end_in_plain_bytes_or_a_refusal(
    algorithm: Algorithm, noise: bytes, place: int, size: int
) -> None:
    ours = gzip.compress(b"one" * 50) if algorithm == "Gzip" else zstd.compress(b"one" * 50)
    stored = ours[:place] + noise
    facts = StreamFacts(algorithm, len(stored), hashlib.sha256(stored).hexdigest(), 150, hashlib.sha256(b"one" * 50).hexdigest())  # fmt: skip
    try:
        came = b"".join(checked(_chunks(stored, size), facts, "dump"))
    except VerificationFailed as failure:
        came = failure.message.encode()
    assert came == b"one" * 50 or came.startswith(b"dump: ")


def _refused(algorithm: Algorithm, stored: bytes, size: int = CHUNK) -> tuple[str, int]:
    """Give what is said of a stream that the metadata describes rightly but for its length, and how much came out."""
    facts = StreamFacts(algorithm, len(stored), hashlib.sha256(stored).hexdigest(), PROMISED, "")
    given_out = 0
    try:
        for chunk in checked(_chunks(stored, size), facts, "dump"):
            given_out += len(chunk)
    except VerificationFailed as failure:
        return failure.message, given_out
    raise AssertionError("nothing was refused")


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))
