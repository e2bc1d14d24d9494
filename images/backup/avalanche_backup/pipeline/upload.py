"""From plain bytes to a stored object: hash, compress, encrypt, hash again, upload, read back.

Nothing exists for readers before :meth:`Upload.commit`, which the caller reaches only after its producer said that
everything was right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from avalanche_backup.errors import Failure, StorageUnavailable
from avalanche_backup.pipeline.compression import SUFFIX, Algorithm, compressor
from avalanche_backup.pipeline.download import StreamFacts, checked
from avalanche_backup.pipeline.encryption import SUFFIX as ENCRYPTED_SUFFIX
from avalanche_backup.pipeline.encryption import Recipient, encryptor
from avalanche_backup.storage.base import ObjectWriter, Store

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
    """Counts and hashes what passes."""

    def __init__(self, output: Callable[[bytes | memoryview], None]) -> None:
        self._output, self._hash, self.count = output, hashlib.sha256(), 0

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.count += len(data)
        self._output(data)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


@dataclass(frozen=True)
class Stored:
    """What an upload left in the store: sizes in bytes, SHA-256 in hex, of the stored and the plain bytes."""

    key: str
    facts: StreamFacts
    recipients: tuple[str, ...]
    """Whose identities open it: those that were asked for; the key of the read-back is gone."""


class Upload:
    """One artifact under way; a context that aborts unless it was committed."""

    def __init__(self, store: Store, names: Callable[[int], str], encoding: Encoding) -> None:
        """Begin. ``names`` gives the key of each try: 0 is the plain name, then the free suffixes."""
        self._store, self._names, self._encoding = store, names, encoding
        self._attempt = self._first_free(0)
        self._writer: ObjectWriter = store.create(names(self._attempt))
        self._stored = _Tally(self._writer.write)
        self._encryptor = encryptor(encoding.recipients, self._stored)
        self._compressor = compressor(encoding.algorithm, encoding.level, self._encryptor)
        self._plain = _Tally(self._compressor.write)

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compressor.abandon()
        self._encryptor.abandon()
        self._writer.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next plain bytes."""
        self._plain.write(data)

    @property
    def source_bytes(self) -> int:
        """How many plain bytes came so far."""
        return self._plain.count

    def commit(self) -> Stored:
        """Finish the object, and read it back: every stored byte hashed, decoded to the end and hashed again.

        What is encrypted is opened by the key that this stream alone has (:mod:`~avalanche_backup.pipeline.encryption`).

        :raises VerificationFailed: what lies there is not what was written; it is removed.
        """
        self._compressor.finish()
        self._encryptor.finish()
        self._writer.commit()
        key = self._names(self._attempt)
        facts = StreamFacts(
            algorithm=self._encoding.algorithm,
            size_bytes=self._stored.count,
            sha256=self._stored.sha256,
            source_bytes=self._plain.count,
            source_sha256=self._plain.sha256,
            encrypted=bool(self._encoding.recipients),
        )
        try:
            with self._store.read(key) as chunks:
                for _ in checked(chunks, facts, key, self._encryptor.identities):
                    pass
        except BaseException:
            with suppress(Failure):  # a writer's key may not delete: cleanup removes what nothing names
                self._store.delete(key)
            raise
        return Stored(key, facts, tuple(each.text for each in self._encoding.recipients))

    def _first_free(self, attempt: int) -> int:
        while self._store.head(self._names(attempt)) is not None:
            attempt += 1
            if attempt > MAX_NAMES:
                raise StorageUnavailable(f"{self._names(0)} and {MAX_NAMES} names after it are taken")
        return attempt
