"""Encrypted streams: age opens them, what was changed is refused, and whichever side fails, both end."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_backup.errors import StorageUnavailable, UsageInvalid, VerificationFailed
from avalanche_backup.pipeline import stages
from avalanche_backup.pipeline.compression import Algorithm, compressor
from avalanche_backup.pipeline.encryption import (
    Encryptor,
    decrypted,
    encryptor,
    parse_identities,
    parse_recipients,
)

OWN, OTHER, STRANGER = (pyrage.x25519.Identity.generate() for _ in range(3))
RECIPIENTS = parse_recipients([str(OWN.to_public()), str(OTHER.to_public())], "here")
OURS = parse_identities(str(OWN), "here")
AGE_CHUNK = 64 * 1024
SAMPLE = os.urandom(3 * AGE_CHUNK + 5)
BOUNDARIES = st.sampled_from([0, 1, AGE_CHUNK - 1, AGE_CHUNK, AGE_CHUNK + 1, 2 * AGE_CHUNK, 300_000])


class Broken:
    """A store that breaks off after some bytes."""

    def __init__(self, after: int) -> None:
        self.left = after

    def write(self, data: bytes | memoryview) -> None:
        self.left -= len(data)
        if self.left < 0:
            raise StorageUnavailable("the bucket went away")


class Collected(io.BytesIO):
    """A store that takes everything."""

    def write(self, data: bytes | memoryview) -> None:  # type: ignore[override]
        super().write(data)


def _encrypted(data: bytes, size: int = 7001) -> tuple[bytes, Encryptor]:
    sink = Collected()
    stream = encryptor(RECIPIENTS, sink)
    for begin in range(0, len(data), size):
        stream.write(memoryview(data)[begin : begin + size])
    stream.finish()
    return sink.getvalue(), stream


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def _opened(stored: bytes, size: int = 10_007) -> bytes:
    return b"".join(decrypted(_chunks(stored, size), OURS))


@settings(deadline=None)
@given(BOUNDARIES | st.integers(0, 200_000), st.integers(1, 90_000), st.integers(1, 90_000))
def test_what_goes_in_comes_back_in_chunks_of_any_size(length: int, written: int, read: int) -> None:
    data = os.urandom(length)
    stored, stream = _encrypted(data, max(written, length // 500))
    assert _opened(stored, max(read, length // 500)) == data
    assert b"".join(decrypted(iter([stored]), stream.identities)) == data


@pytest.mark.parametrize("identity", [OWN, OTHER], ids=["the first", "the second"])
def test_each_recipient_alone_opens_it_and_nobody_else(identity: pyrage.x25519.Identity) -> None:
    stored, _ = _encrypted(SAMPLE)
    assert pyrage.decrypt(stored, [identity]) == SAMPLE
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(stored, [STRANGER])


def test_the_key_of_the_read_back_is_another_one_each_time() -> None:
    (_, first), (_, second) = _encrypted(b"x"), _encrypted(b"x")
    known = {each.text for each in RECIPIENTS}
    own = {each.identities[0].recipient for each in (first, second)}
    assert len(own) == 2 and not own & known


def test_a_wrong_identity_is_refused() -> None:
    stored, _ = _encrypted(SAMPLE)
    with pytest.raises(VerificationFailed):
        list(decrypted(iter([stored]), parse_identities(str(STRANGER), "here")))


def test_no_more_than_a_few_pieces_are_ever_under_way() -> None:
    """A slow store slows the source down: what was given to the stream and has not left it stays small."""
    given_bytes = left = most = 0

    class Slow:
        def write(self, data: bytes | memoryview) -> None:
            nonlocal left, most
            most = max(most, given_bytes - left)
            left += len(data)

    stream = encryptor(RECIPIENTS, Slow())
    for _ in range(200):
        given_bytes += AGE_CHUNK
        stream.write(bytes(AGE_CHUNK))
    stream.finish()
    assert left > given_bytes and most <= 16 * AGE_CHUNK


@settings(deadline=None)
@given(st.integers(0, 10**6) | st.sampled_from([AGE_CHUNK, AGE_CHUNK + 16, 2 * (AGE_CHUNK + 16)]))
def test_a_stream_that_ends_early_is_refused(cut: int) -> None:
    stored, _ = _encrypted(SAMPLE)
    with pytest.raises(VerificationFailed):
        _opened(stored[: cut % len(stored)])


@settings(deadline=None)
@given(st.integers(0, 10**6) | st.integers(0, 300), st.integers(0, 7))
def test_a_flipped_bit_is_refused(place: int, bit: int) -> None:
    stored = bytearray(_encrypted(SAMPLE)[0])
    stored[place % len(stored)] ^= 1 << bit
    with pytest.raises(VerificationFailed):
        _opened(bytes(stored))


@pytest.mark.parametrize("length", [5, AGE_CHUNK, 2 * AGE_CHUNK])
def test_bytes_behind_the_end_are_refused(length: int) -> None:
    with pytest.raises(VerificationFailed):
        _opened(_encrypted(os.urandom(length))[0] + b"\0")


@pytest.mark.parametrize("after", [0, 100, 200_000, 3_000_000])
@pytest.mark.parametrize("algorithm", ["Gzip", "Zstd", "None"])
def test_a_store_that_breaks_off_is_named_and_ends_the_run(algorithm: Algorithm, after: int) -> None:
    stream = encryptor(RECIPIENTS, Broken(after))
    pressed = compressor(algorithm, None, stream)

    def write_all() -> None:
        for _ in range(8):
            pressed.write(os.urandom(1_000_000))
        pressed.finish()
        stream.finish()

    with pytest.raises(StorageUnavailable, match="the bucket went away"):
        write_all()
    pressed.abandon()
    stream.abandon()


@pytest.mark.parametrize("algorithm", ["Gzip", "Zstd", "None"])
@pytest.mark.parametrize("length", [0, 10, 5_000_000])
def test_an_abandoned_stream_ends_at_once_and_is_no_whole_one(algorithm: Algorithm, length: int) -> None:
    sink, before = Collected(), threading.active_count()
    stream = encryptor(RECIPIENTS, sink)
    pressed = compressor(algorithm, None, stream)
    pressed.write(os.urandom(length))
    pressed.abandon()
    stream.abandon()
    stream.abandon()
    assert threading.active_count() == before
    with pytest.raises(VerificationFailed):
        _opened(sink.getvalue())


def test_a_reader_that_stops_early_leaves_no_thread() -> None:
    stored, before = _encrypted(os.urandom(5_000_000))[0], threading.active_count()
    opened = decrypted(_chunks(stored, 1000), OURS)
    next(opened)
    opened.close()
    assert threading.active_count() == before


def test_a_store_that_breaks_off_while_it_is_read_is_named() -> None:
    stored, _ = _encrypted(SAMPLE)

    def broken() -> Iterator[bytes]:
        yield stored[:100_000]
        raise StorageUnavailable("the bucket went away")

    with pytest.raises(StorageUnavailable):
        list(decrypted(broken(), OURS))


def test_a_file_of_recipients_is_read_as_age_reads_it() -> None:
    one, two = str(OWN.to_public()), str(OTHER.to_public())
    lines = ["# the team", "", f"  {one}  ", two, one.upper()]
    assert [each.text for each in parse_recipients(lines, "here")] == [one, two]


@pytest.mark.parametrize(("lines", "sentence"), [
    ([], "holds no age public key"),
    (["# nothing"], "holds no age public key"),
    ([str(OWN.to_public()), "age1broken"], "line 2 is no age public key"),
    ([str(OWN.to_public())[:-1] + "b"], "line 1 is no age public key"),
    ([str(STRANGER)], "line 1 is an identity, a private key"),
], ids=["none", "a comment", "broken", "a typing error", "a private key"])  # fmt: skip
def test_what_is_no_recipient_is_named_and_never_repeated(lines: list[str], sentence: str) -> None:
    with pytest.raises(UsageInvalid, match=sentence) as raised:
        parse_recipients(lines, "here")
    assert raised.value.reason == "RecipientsInvalid" and not any(each in str(raised.value) for each in lines)


@pytest.mark.parametrize(
    "text", ["", "# made today\n", f"{OWN}x", str(OWN.to_public()), "-----BEGIN AGE"],
    ids=["nothing", "a comment", "a typing error", "a public key", "one with a passphrase"],
)  # fmt: skip
def test_what_is_no_identity_is_named_and_never_repeated(text: str) -> None:
    with pytest.raises(UsageInvalid) as raised:
        parse_identities(text, "key of Secret")
    assert raised.value.reason == "IdentityInvalid" and "SECRET-KEY-1Q" not in raised.value.message
    assert str(OWN) not in raised.value.message


def test_an_identity_does_not_show_itself() -> None:
    text = f"# created: today\n# public key: {OWN.to_public()}\n{OWN}\n{OTHER}\n"
    found = parse_identities(text, "here")
    assert [each.recipient for each in found] == [str(OWN.to_public()), str(OTHER.to_public())]
    assert "SECRET" not in repr(found) + str(found)


def test_an_end_midway_waits_for_no_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, _ = _encrypted(os.urandom(9 * AGE_CHUNK))
    asked, answers = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        yield stored[: 3 * AGE_CHUNK + AGE_CHUNK // 2]  # what reader, pipe and writer hold together
        asked.set()
        answers.wait()

    monkeypatch.setattr(stages, "END_SECONDS", 0.1)
    opened = decrypted(chunks(), OURS)
    assert next(opened) and asked.wait(30)
    ended = threading.Thread(target=opened.close, daemon=True)
    ended.start()
    ended.join(30)
    assert not ended.is_alive()
    answers.set()
