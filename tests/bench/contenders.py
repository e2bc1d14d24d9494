"""One way to make a backup and to bring it back, as commands that can be measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measure import Pipe

ZSTD = ("zstd", "-q", "-3", "-T2")
GZIP = ("gzip", "-6")
PIGZ = ("pigz", "-1", "-p", "2")


@dataclass(frozen=True)
class Contender:
    """One way. ``backup`` and ``restore`` give what runs one after the other; both are asked just before."""

    name: str
    place: Place
    backup: Callable[[], Sequence[Pipe]]
    restore: Callable[[], Sequence[Pipe]] | None = None
    prepare: Callable[[], object] = field(default=lambda: None)
    """What comes before a backup and is not measured: a repository is made."""
    compare: bool = True
    """Whether ``restore`` leaves something in the target: a drill does not, and compares by itself."""


@dataclass(frozen=True)
class Place:
    """Where a contender stores: a folder, or a prefix of a bucket. Its own, and empty before each backup."""

    folder: Path
    client: Any = None
    bucket: str = ""

    @property
    def prefix(self) -> str:
        """Give the prefix within the bucket."""
        return f"{self.folder.name}/"

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for key, _ in self._objects():
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def stored_bytes(self) -> int:
        """Add up what is stored."""
        files = sum(each.stat().st_size for each in self.folder.rglob("*") if each.is_file())
        return files + sum(size for _, size in self._objects())

    def _objects(self) -> list[tuple[str, int]]:
        if self.client is None:
            return []
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        return [(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", ())]


def stream(place: Place, writes: Pipe, packs: tuple[str, ...], restores: Callable[[], Pipe]) -> Contender:
    """Give the classic pipe: something that writes a stream, something that packs it, a file."""
    file = place.folder / "stream"

    def backup() -> list[Pipe]:
        return [Pipe((*writes.commands, packs), stdout=file, environment=writes.environment)]

    def restore() -> list[Pipe]:
        into = restores()
        return [Pipe(((packs[0], "-dc"), *into.commands), stdin=file, environment=into.environment)]

    name = " | ".join(
        (Path(writes.commands[0][0]).name, " ".join(each for each in packs if each not in ("-q", "-p", "2")))
    )
    return Contender(name, place, backup, restore)
