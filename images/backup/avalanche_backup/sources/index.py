"""The index of a files backup: its lines, and how a tree differs from them."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from avalanche_backup import platforms
from avalanche_backup.errors import DrillFailed
from avalanche_backup.sources.reaching import OWN, Tree
from avalanche_backup.sources.tree import shown

CHUNK = 1024 * 1024
LINE_MAX = 1024 * 1024
"""Far above any path; below what would hurt a small pod."""
_KINDS = {"file": stat.S_ISREG, "hardlink": stat.S_ISREG, "directory": stat.S_ISDIR, "symlink": stat.S_ISLNK}


class IndexInvalid(ValueError):
    """It is no index that we write."""


@dataclass(frozen=True)
class Listed:
    """One line: an entry, in the order of the archive."""

    path: str
    kind: str
    """``file``, ``hardlink``, ``directory``, ``symlink``."""
    size: int = 0
    sha256: str | None = None
    """Of a file."""
    attributes_sha256: str | None = None
    """Of its attributes, as the archive has them."""


def entries(chunks: Iterator[bytes]) -> Iterator[Listed]:
    """Read an index.

    :raises IndexInvalid: it is none.
    """
    try:
        for line in _lines(chunks):
            found = json.loads(line)
            raw = found.get("path_base64")
            path = os.fsdecode(b64decode(raw)) if raw else str(found["path"])
            if found["type"] not in _KINDS or path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise ValueError(path)
            size = int(found.get("size") or 0)
            yield Listed(path, found["type"], size, found.get("sha256"), found.get("attributes_sha256"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IndexInvalid("the index of the files cannot be read") from None


def difference(entry: Listed, found: os.stat_result | None, sha256: str | None = None) -> str:
    """Say what is wrong with an entry that came back; empty where nothing is. Without its SHA-256, that is not compared."""
    if found is None:
        return "did not come back"
    if not _KINDS[entry.kind](found.st_mode):
        return f"is no {entry.kind}"
    if entry.kind == "file" and found.st_size != entry.size:
        return f"has {found.st_size} bytes, and the index says {entry.size}"
    different = entry.kind == "file" and sha256 is not None and sha256 != entry.sha256
    return "has another SHA-256 than the index" if different else ""


def compare(root: Path, index: Iterator[bytes]) -> int:
    """Give how many entries of a tree that is ours are as the index says; it is read whole.

    :raises DrillFailed: the first one that is not (``FilesDiffer``), or an index that cannot be read.
    """
    count = 0
    try:
        with Tree(root) as tree:
            for entry in entries(index):
                if wrong := _wrong(tree, entry):
                    raise DrillFailed(f"{shown(entry.path)} {wrong}", reason="FilesDiffer")
                count += 1
    except IndexInvalid as error:
        raise DrillFailed(str(error), reason="IndexInvalid") from None
    return count


def _wrong(tree: Tree, entry: Listed) -> str:
    found = tree.status(entry.path)
    if wrong := difference(entry, found):
        return wrong
    if entry.kind == "directory" and found is not None and found.st_mode & OWN != OWN:
        tree.set(entry.path, stat.S_IMODE(found.st_mode) | OWN)  # it is ours, and what is in it must be seen
    return difference(entry, found, _sha256(tree, entry.path)) if entry.kind == "file" else ""


def _sha256(tree: Tree, path: str) -> str:
    digest = hashlib.sha256()
    with os.fdopen(_open(*tree.at(path)), "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open(folder: int, name: str) -> int:
    flags = os.O_RDONLY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
    with suppress(PermissionError):
        return os.open(name, flags, dir_fd=folder)
    os.chmod(name, 0o600, dir_fd=folder)  # its mode is part of the backup, and this copy is ours
    return os.open(name, flags, dir_fd=folder)


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LINE_MAX:
            raise ValueError("a line without end")
    if rest:
        yield rest
