"""Compressed streams come back whole, or not at all; and plain tools read them."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.errors import VerificationFailed
from avalanche_backup.pipeline.compression import Algorithm, compressor, decompressed

ALGORITHMS: tuple[Algorithm, ...] = ("Gzip", "Zstd", "None")
CHECKED: tuple[Algorithm, ...] = ("Gzip", "Zstd")
SAMPLE = bytes(range(256)) * 400


def _compressed(algorithm: Algorithm, data: bytes, level: int | None = None) -> bytes:
    sink = io.BytesIO()

    class Output:
        def write(self, chunk: bytes | memoryview) -> None:
            sink.write(chunk)

    stream = compressor(algorithm, level, Output())
    for begin in range(0, len(data), 7001):
        stream.write(data[begin : begin + 7001])
    stream.finish()
    return sink.getvalue()


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def _plain(algorithm: Algorithm, stored: bytes, size: int = 999) -> bytes:
    return b"".join(decompressed(algorithm, _chunks(stored, size)))


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=20_000), st.integers(1, 5000))
def test_what_goes_in_comes_back(algorithm: Algorithm, data: bytes, size: int) -> None:
    assert _plain(algorithm, _compressed(algorithm, data), size) == data


@pytest.mark.parametrize("level", [None, 1, 5, 9])
def test_any_gzip_reads_ours(level: int | None) -> None:
    assert gzip.decompress(_compressed("Gzip", SAMPLE, level)) == SAMPLE


def test_a_gzip_file_of_several_members_is_not_what_we_wrote() -> None:
    with pytest.raises(VerificationFailed, match="follow"):
        _plain("Gzip", gzip.compress(b"one") + gzip.compress(b"two"))


@given(st.sampled_from(CHECKED), st.integers(0, 10_000))
def test_a_stream_that_ends_early_is_refused(algorithm: Algorithm, cut: int) -> None:
    stored = _compressed(algorithm, SAMPLE)
    with pytest.raises(VerificationFailed):
        _plain(algorithm, stored[: cut % len(stored)])


@given(st.sampled_from(CHECKED), st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(algorithm: Algorithm, place: int, bit: int) -> None:
    """A few bits of a header mean nothing (gzip's time and system); the data is right or refused, always."""
    stored = bytearray(_compressed(algorithm, SAMPLE))
    stored[place % len(stored)] ^= 1 << bit
    try:
        assert _plain(algorithm, bytes(stored)) == SAMPLE
    except VerificationFailed:
        return


@pytest.mark.parametrize("algorithm", CHECKED)
def test_bytes_behind_the_end_are_refused(algorithm: Algorithm) -> None:
    with pytest.raises(VerificationFailed):
        _plain(algorithm, _compressed(algorithm, SAMPLE) + b"\0")


@pytest.mark.parametrize("algorithm", CHECKED)
def test_a_small_file_that_unpacks_to_much_comes_in_small_chunks(algorithm: Algorithm) -> None:
    stored = _compressed(algorithm, bytes(50_000_000))
    assert max(len(chunk) for chunk in decompressed(algorithm, iter([stored]))) <= 1024 * 1024


@pytest.mark.parametrize("level", [None, *range(1, 10)])
def test_no_level_of_gzip_makes_data_larger_that_does_not_compress(level: int | None) -> None:
    data = os.urandom(2_000_000)
    assert len(_compressed("Gzip", data, level)) < 1.001 * len(data)


def test_a_higher_level_makes_a_smaller_stream() -> None:
    sizes = [len(_compressed("Gzip", SAMPLE * 20, level)) for level in (1, 4, 7)]
    assert sizes == sorted(sizes, reverse=True)
    assert _plain("Zstd", _compressed("Zstd", SAMPLE, 19)) == SAMPLE
