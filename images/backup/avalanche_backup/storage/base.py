"""The one interface that every store implements, and that one contract suite tests.

A store knows keys and bytes and nothing of backups. Keys are relative to the storage's root, use ``/`` and
never begin with it. Every method raises from the tree of :mod:`avalanche_backup.errors`:
:class:`~avalanche_backup.errors.StorageUnavailable` where another try may do,
:class:`~avalanche_backup.errors.StorageInvalid` where it will not.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

CHUNK = 1024 * 1024
"""How many bytes a read gives at a time."""
PAGE = 1000
"""How many objects one page of a list holds."""
WRITER = "writer"
"""The metadata of an object that says which writer made it: so an object is known as ours when a reply was lost."""


def new_token() -> str:
    """Give the mark of one write."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of one object: ``size`` in bytes, ``modified`` in UTC by the store's clock."""

    key: str
    size: int
    modified: datetime


class ObjectWriter(Protocol):
    """One object under way. It does not exist for readers before :meth:`commit`, nor after :meth:`abort`."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; may block while they are sent. Memory stays bounded at any length."""

    def commit(self) -> None:
        """Make the object exist, whole, create-only and durable.

        :raises ObjectExists: the name is taken; the object there is untouched.
        """

    def abort(self) -> None:
        """Give everything up, and leave nothing behind. Never raises; harmless after a commit."""


class Store(Protocol):
    """A place for objects."""

    @property
    def name(self) -> str:
        """The storage's name, for messages."""

    @property
    def trusted_keys(self) -> tuple[str, ...]:
        """Of whom metadata must be signed to be believed; empty where it need not be."""

    @property
    def conditional(self) -> bool:
        """Whether create-only is the store's own promise; else it is looked up first, and one writer may write."""

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object in one request; create-only unless ``overwrite``.

        :raises ObjectExists: the name is taken.
        """

    def read(self, key: str) -> AbstractContextManager[Iterator[bytes]]:
        """Open an object and give its bytes in chunks; a short or broken stream raises, never ends early.

        :raises ObjectMissing: there is none.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is there, or ``None``."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object whose key begins with ``prefix``; the order is the store's own."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def remove_abandoned(self, prefix: str, before: datetime) -> int:
        """Remove what uploads beneath ``prefix`` left that began before a moment and never ended; say how many.

        Uploads of other processes are among them: ask for an age that no running backup has. Where the store
        expires them by itself (Azure, Google: after a week) there is nothing to do, and the answer is 0.
        """

    def locate(self, key: str) -> str:
        """Name the object for a person: ``s3://bucket/prefix/key`` or a path."""
