"""A process that ends before a change of its store, and the same work with one change more of life each time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from avalanche_backup.storage.base import Store


class Dies(Exception):
    """The process ends here."""


class Mortal:
    """A store whose process ends before its n-th change."""

    def __init__(self, store: Store, changes: int) -> None:
        self._store, self.changes = store, changes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write, where there is life left."""
        self._live()
        self._store.put(key, data, overwrite=overwrite)

    def delete(self, key: str) -> None:
        """Delete, where there is life left."""
        self._live()
        self._store.delete(key)

    def _live(self) -> None:
        if not self.changes:
            raise Dies
        self.changes -= 1


def lives(work: Callable[[Mortal], Any], store: Store, folders: Iterable[Path]) -> Iterator[bool]:
    """Do some work on the same files, with one change more of life each time; say each time whether it died.

    The last time it did not.
    """
    whole = {path: path.read_bytes() for each in folders for path in each.rglob("*") if path.is_file()}
    for changes in itertools.count():
        for path, data in whole.items():
            path.write_bytes(data)
        try:
            work(Mortal(store, changes))
        except Dies:
            yield True
        else:
            yield False
            return
