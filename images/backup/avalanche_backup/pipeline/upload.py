"""From plain bytes to a stored object: hash, compress, encrypt, hash again, upload, read back.

All of that is done once, however many destinations the encoded bytes go to (:mod:`~avalanche_backup.pipeline.fanout`). Nothing exists for readers before :meth:`Upload.commit`, which the caller reaches only after its producer said that
everything was right.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from avalanche_backup.errors import Failure, StorageUnavailable
from avalanche_backup.pipeline.compression import SUFFIX, Algorithm, compressor
from avalanche_backup.pipeline.download import StreamFacts, checked, checked_as_stored
from avalanche_backup.pipeline.encryption import SUFFIX as ENCRYPTED_SUFFIX
from avalanche_backup.pipeline.encryption import Recipient, encryptor
from avalanche_backup.pipeline.fanout import Destination, Fanout, living
from avalanche_backup.pipeline.stages import Gathered, Hashing
from avalanche_backup.platforms import release_memory

MAX_NAMES = 100


@dataclass(frozen=True)
class Encoding:
    """How plain bytes become stored ones: compressed, then encrypted where there is anybody to encrypt them for."""

    algorithm: Algorithm
    level: int | None = None
    recipients: tuple[Recipient, ...] = ()

    @property
    def suffix(self) -> str:
        """Give what the name of an object ends with: ``.gz.age``."""
        return SUFFIX[self.algorithm] + (ENCRYPTED_SUFFIX if self.recipients else "")


class _Tally:
    """Counts and hashes what passes, the latter in a thread of its own."""

    def __init__(self, output: Callable[[bytes | memoryview], None]) -> None:
        self._output, self._hash, self.count = output, Hashing(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.count += len(data)
        self._output(data)

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        self._hash.close()


@dataclass(frozen=True)
class Stored:
    """What an upload left in every destination: sizes in bytes, SHA-256 in hex, of the stored and the plain bytes."""

    name: str
    """Beneath the folder of each destination."""
    facts: StreamFacts
    recipients: tuple[str, ...]
    """Whose identities open it: those that were asked for; the key of the read-back is gone."""


class Upload:
    """One artifact under way; a context that aborts unless it was committed."""

    def __init__(
        self, destinations: Sequence[Destination], names: Callable[[int], str], encoding: Encoding
    ) -> None:
        """Begin. ``names`` gives the name of each try: 0 is the plain one, then the free suffixes; the same everywhere.

        :raises Failure: no destination is left.
        """
        self._destinations, self._encoding = destinations, encoding
        self._name = self._first_free(names)
        self._fanout = Fanout(destinations, self._name)
        self._stored = _Tally(self._fanout.write)
        self._encryptor = encryptor(encoding.recipients, self._stored)
        self._compressor = compressor(encoding.algorithm, encoding.level, self._encryptor)
        self._plain = _Tally(self._compressor.write)
        self._gathered = Gathered(self._plain.write)

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fanout.off()  # first: whoever waits for a store goes on
        self._compressor.abandon()
        self._encryptor.abandon()
        self._fanout.abandon()
        self._plain.close()
        self._stored.close()
        release_memory()  # another source may follow, and its buffers come from other threads

    def write(self, data: bytes | memoryview) -> None:
        """Take the next plain bytes."""
        self._gathered.write(data)

    def commit(self) -> Stored:
        """Finish the object, and read it back: every stored byte of each copy hashed, decoded to the end and hashed again.

        What is encrypted is opened by the key that this stream alone has (:mod:`~avalanche_backup.pipeline.encryption`).

        :raises VerificationFailed: what lies there is not what was written; it is removed.
        :raises Failure: no destination is left.
        """
        self._gathered.flush()
        self._compressor.finish()
        self._encryptor.finish()
        facts = StreamFacts(
            algorithm=self._encoding.algorithm,
            size_bytes=self._stored.count,
            sha256=self._stored.sha256(),
            source_bytes=self._plain.count,
            source_sha256=self._plain.sha256(),
            encrypted=bool(self._encoding.recipients),
        )

        def check(chunks: Iterator[bytes], decode: bool) -> Generator[bytes]:
            if decode:
                return checked(chunks, facts, self._name, self._encryptor.identities)
            return checked_as_stored(chunks, facts, self._name)

        self._fanout.commit(check)
        return Stored(self._name, facts, tuple(each.text for each in self._encoding.recipients))

    def _first_free(self, names: Callable[[int], str]) -> str:
        """Find a name that is free in every destination that answers."""
        for attempt in range(MAX_NAMES + 1):
            if not any(self._taken(each, names(attempt)) for each in living(self._destinations)):
                return names(attempt)
        raise StorageUnavailable(f"{names(0)} and {MAX_NAMES} names after it are taken")

    def _taken(self, destination: Destination, name: str) -> bool:
        try:
            return destination.store.head(destination.key(name)) is not None
        except Failure as failure:
            destination.failure = failure
            living(self._destinations)
            return False
