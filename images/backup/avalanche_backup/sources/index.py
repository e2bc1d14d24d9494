"""Comparing a tree with the index of the archive that it came from: every entry, and the SHA-256 of every file."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avalanche_backup import platforms
from avalanche_backup.errors import DrillFailed
from avalanche_backup.sources.tree import shown

CHUNK = 1024 * 1024
LINE_MAX = 1024 * 1024
"""Far above any path; below what would hurt a small pod."""
_KINDS = {"directory": stat.S_ISDIR, "symlink": stat.S_ISLNK}


def compare(root: Path, index: Iterator[bytes]) -> int:
    """Give how many entries are as the index says.

    :raises DrillFailed: the first one that is not (``FilesDiffer``), or an index that cannot be read.
    """
    count = 0
    for line in _lines(index):
        try:
            entry = json.loads(line)
            path = _path(entry)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DrillFailed("the index of the files cannot be read", reason="IndexInvalid") from None
        wrong = _wrong(root / path, entry)
        if wrong:
            raise DrillFailed(f"{shown(path)} {wrong}", reason="FilesDiffer")
        count += 1
    return count


def _wrong(path: Path, entry: dict[str, Any]) -> str:
    """Say what is wrong with one entry; empty where nothing is."""
    try:
        found = path.lstat()
    except OSError:
        return "did not come back"
    kind = entry.get("type")
    if stat.S_ISDIR(found.st_mode):
        path.chmod(stat.S_IMODE(found.st_mode) | 0o700)  # it is ours, and what is in it must be seen
    if kind in _KINDS:
        return "" if _KINDS[kind](found.st_mode) else f"is no {kind}"
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if kind == "file" and found.st_size != entry.get("size"):
        return f"has {found.st_size} bytes, and the index says {entry.get('size')}"
    return (
        "" if kind != "file" or _sha256(path) == entry.get("sha256") else "has another SHA-256 than the index"
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with os.fdopen(_open(path), "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open(path: Path) -> int:
    flags = os.O_RDONLY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        path.chmod(0o600)  # its mode is part of the backup, and this copy is ours
        return os.open(path, flags)


def _path(entry: dict[str, Any]) -> str:
    raw = entry.get("path_base64")
    path = os.fsdecode(b64decode(raw)) if raw else str(entry["path"])
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError(path)
    return path


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole
        if len(rest) > LINE_MAX:
            raise DrillFailed("the index of the files cannot be read", reason="IndexInvalid")
    if rest:
        yield rest
