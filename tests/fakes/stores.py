"""A real store with trouble: it dies, stands still or loses bytes at a chosen moment, and is itself otherwise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from avalanche_backup.errors import StorageUnavailable
from avalanche_backup.storage.base import ObjectWriter, Store

Trouble = Callable[[str, str], None]
"""Called before each operation with its name and key; raises, or waits."""


class Troubled:
    """A store before which a trouble stands."""

    def __init__(self, store: Store, trouble: Trouble) -> None:
        self._store, self._trouble = store, trouble

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def head(self, key: str) -> Any:
        """Look, after the trouble."""
        self._trouble("head", key)
        return self._store.head(key)

    def list(self, prefix: str) -> Any:
        """List, after the trouble."""
        self._trouble("list", prefix)
        return self._store.list(prefix)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a document, after the trouble."""
        self._trouble("put", key)
        self._store.put(key, data, overwrite=overwrite)

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Read, after the trouble."""
        self._trouble("read", key)
        with self._store.read(key) as chunks:
            yield chunks

    def create(self, key: str) -> ObjectWriter:
        """Begin an object whose writes and commit meet the trouble."""
        self._trouble("create", key)
        return _Writer(self._store.create(key), key, self._trouble)


class _Writer:
    def __init__(self, writer: ObjectWriter, key: str, trouble: Trouble) -> None:
        self._writer, self._key, self._trouble = writer, key, trouble

    def write(self, data: bytes | memoryview) -> None:
        self._trouble("write", self._key)
        self._writer.write(data)

    def commit(self) -> None:
        self._trouble("commit", self._key)
        self._writer.commit()

    def abort(self) -> None:
        self._writer.abort()


def dies_at(*operations: str, ending: str = "") -> Trouble:
    """Give the trouble of a store that breaks off at some operations, on keys that end so."""

    def trouble(operation: str, key: str) -> None:
        if operation in operations and key.endswith(ending):
            raise StorageUnavailable(f"broke off at {operation}")

    return trouble


class StandsStill:
    """The trouble of a store that never answers an operation, until it is let go."""

    def __init__(self, operation: str) -> None:
        self._operation, self.released = operation, threading.Event()

    def __call__(self, operation: str, key: str) -> None:
        """Wait."""
        del key
        if operation == self._operation:
            self.released.wait(60)
