"""From a stored object to plain bytes that were checked: sizes and both hashes, before the last of them is given."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from avalanche_backup.errors import VerificationFailed
from avalanche_backup.pipeline.compression import Algorithm, decompressed
from avalanche_backup.pipeline.encryption import Identity, decrypted
from avalanche_backup.pipeline.stages import Hashing, ahead, close


@dataclass(frozen=True)
class StreamFacts:
    """What a stored stream must be: sizes in bytes, SHA-256 in hex."""

    algorithm: Algorithm
    size_bytes: int
    sha256: str
    source_bytes: int
    source_sha256: str
    encrypted: bool = False


def checked(
    chunks: Iterator[bytes], facts: StreamFacts, name: str, identities: Sequence[Identity] = ()
) -> Generator[bytes]:
    """Give the plain bytes of a stored stream; the last chunk only once everything agreed.

    Whoever writes what comes out therefore never writes the end of something damaged. More than the metadata
    says is an error as soon as it shows: a bomb is not unpacked.

    :raises VerificationFailed: the object is damaged, truncated or another; ``name`` is in the message.
    """
    stored = _Counted(chunks, facts.size_bytes, "stored")
    # Reading, decoding, hashing, and whatever is done with what comes out: each in a thread of its own.
    opened = decrypted(iter(stored), identities) if facts.encrypted else ahead(iter(stored))
    # Counted before it runs ahead: of a bomb, no more is unpacked than shows that it is one.
    plain = _Counted(decompressed(facts.algorithm, opened), facts.source_bytes, "decoded")
    decoded = ahead(iter(plain))
    held = b""
    try:
        for chunk in decoded:
            if held:
                yield held
            held = chunk
        stored.check(facts.sha256)
        plain.check(facts.source_sha256)
        if held:
            yield held
    except VerificationFailed as failure:
        raise VerificationFailed(f"{name}: {failure.message}", reason=failure.reason) from None
    finally:
        for each in (decoded, opened):
            close(each)
        for counted in (stored, plain):
            counted.close()


def checked_as_stored(chunks: Iterator[bytes], facts: StreamFacts, name: str) -> Generator[bytes]:
    """Give the stored bytes of a stream that nothing here can open: their size and hash are right, no more is known.

    :raises VerificationFailed: as :func:`checked`.
    """
    stored = _Counted(chunks, facts.size_bytes, "stored")
    try:
        yield from stored
        stored.check(facts.sha256)
    except VerificationFailed as failure:
        raise VerificationFailed(f"{name}: {failure.message}", reason=failure.reason) from None
    finally:
        stored.close()


class _Counted:
    """Counts and hashes what passes, and stops what is longer than it should be."""

    def __init__(self, chunks: Iterator[bytes], expected: int, side: str) -> None:
        self._chunks, self._expected, self._side = chunks, expected, side
        self._hash, self._count = Hashing(), 0

    def __iter__(self) -> Generator[bytes]:
        for chunk in self._chunks:
            self._count += len(chunk)
            if self._count > self._expected:
                raise VerificationFailed(
                    f"more {self._side} bytes than the {self._expected} of the metadata",
                    reason="ArtifactDamaged",
                )
            self._hash.update(chunk)
            if chunk:
                yield chunk

    def check(self, sha256: str) -> None:
        if self._count < self._expected:
            raise VerificationFailed(
                f"{self._count} {self._side} bytes, the metadata says {self._expected}",
                reason="ArtifactTruncated",
            )
        if self._hash.hexdigest() != sha256:
            raise VerificationFailed(
                f"the SHA-256 of the {self._side} bytes is not that of the metadata",
                reason="ArtifactDamaged",
            )

    def close(self) -> None:
        self._hash.close()
