"""How objects of unknown length are cut, buffered and sent."""

from __future__ import annotations

import itertools
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_backup.errors import StorageInvalid, StorageUnavailable
from avalanche_backup.storage import parts
from avalanche_backup.storage.parts import IN_FLIGHT, MEMORY, MIB, Part, PartPlan, PartUploads, part_size

TIB = 1024**4
SMALL = PartPlan(most=10_000, size=lambda _: 1000)


def content(part: Part) -> bytes:
    body = part.body()
    return body if isinstance(body, bytes) else body.read()


def test_ten_thousand_parts_reach_five_tebibytes() -> None:
    assert sum(part_size(number) for number in range(1, 10_001)) > 5 * TIB


def test_every_part_is_one_that_s3_takes_and_google_too() -> None:
    sizes = {part_size(number) for number in range(1, 10_001)}
    assert min(sizes) >= 5 * MIB and max(sizes) <= 5 * 1024 * MIB
    assert all(size % (256 * 1024) == 0 for size in sizes)


def test_no_part_is_smaller_than_the_one_before() -> None:
    sizes = [part_size(number) for number in range(1, 12_001)]
    assert sizes == sorted(sizes) and sizes[-1] == sizes[9_999]


def test_what_waits_in_memory_is_bounded_at_any_length() -> None:
    """One is filled while two are sent; sealing one copies it once."""
    assert (IN_FLIGHT + 2) * MEMORY <= 64 * MIB
    small = itertools.takewhile(lambda number: part_size(number) <= MEMORY, range(1, 10_001))
    assert sum(part_size(number) for number in small) > 23 * 1024 * MIB


@pytest.mark.parametrize(("limit", "kind"), [(MEMORY, bytes), (MEMORY + 1, IO)])
def test_a_large_part_waits_in_a_file(limit: int, kind: type) -> None:
    part = Part(1, limit)
    part.write(memoryview(b"some"))
    body = part.body()
    assert isinstance(body, bytes) is (kind is bytes)
    assert (content(part), content(part)) == (b"some", b"some")
    part.close()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=12))
def test_parts_come_to_the_whole_in_order(pieces: list[bytes]) -> None:
    sent: dict[str, bytes] = {}

    def send(part: Part) -> str:
        sent[str(part.number)] = content(part)
        return str(part.number)

    uploads = PartUploads(lambda: None, send, SMALL)
    for piece in pieces:
        uploads.write(piece)
    single = uploads.single
    whole = single if single is not None else b"".join(sent[each] for each in uploads.finish())
    uploads.close()
    assert whole == b"".join(pieces)
    assert [len(each) for each in list(sent.values())[:-1]] == [1000] * (len(sent) - 1)


def test_more_parts_than_a_store_takes_is_a_refusal() -> None:
    uploads = PartUploads(lambda: None, lambda _: "", PartPlan(most=2, size=lambda _: 10))
    with pytest.raises(StorageInvalid) as raised:
        uploads.write(bytes(40))
    uploads.close()
    assert raised.value.reason == "ObjectTooLarge"


def test_a_part_that_fails_for_good_fails_the_upload() -> None:
    def refuse(part: Part) -> str:
        raise StorageInvalid("no")

    uploads = PartUploads(lambda: None, refuse, SMALL)
    uploads.write(bytes(2000))
    with pytest.raises(StorageInvalid):
        uploads.finish()
    uploads.close()


@pytest.mark.parametrize(
    ("reason", "tries"), [("StorageUnavailable", 3), ("BodyDamaged", 3), ("CredentialsExpired", 1)]
)
def test_patience_is_for_what_may_pass(reason: str, tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FIRST_WAIT_SECONDS", 0.001)
    calls = itertools.count(1)

    def third() -> int:
        if (number := next(calls)) < 3:
            raise StorageUnavailable("away", reason=reason)
        return number

    if tries == 3:
        assert parts.patiently(third) == 3
    else:
        with pytest.raises(StorageUnavailable):
            parts.patiently(third)
    assert next(calls) == tries + 1


def test_an_upload_that_is_given_up_waits_no_longer() -> None:
    uploads = PartUploads(lambda: None, _away, SMALL)
    uploads.write(bytes(1000))
    uploads.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        uploads.write(bytes(1000))


def _away(part: Part) -> str:
    raise StorageUnavailable("away")
