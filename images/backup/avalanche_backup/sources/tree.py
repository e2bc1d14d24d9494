"""Walking a tree of files by descriptors: sorted, one folder in memory at a time, and never through a link.

Names are bytes turned into text by ``surrogateescape``, so that a name in no encoding at all survives.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from avalanche_backup.errors import SourceInvalid

MARKER = ".avalanche-restore-incomplete"
"""Lies in a target while a restore writes there; a tree that has it is not whole."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Found:
    """One entry: its path relative to the root, its status, and the open folder that it lies in."""

    path: str
    name: str
    status: os.stat_result
    folder: int


@dataclass(frozen=True)
class Selection:
    """What of a tree is meant."""

    root: str
    paths: tuple[str, ...]
    exclude: tuple[str, ...]
    one_file_system: bool

    def leaves_out(self, path: str) -> bool:
        """Say whether a pattern names this path, or its last name where the pattern holds no ``/``."""
        name = path.rpartition("/")[2]
        return any(fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in self.exclude)


def walk(selection: Selection) -> Iterator[Found]:
    """Give every entry, folders before what they hold.

    :raises SourceInvalid: a path is missing, or something cannot be read.
    """
    root = os.open(selection.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(root).st_dev
        seen: set[str] = set()
        for path in sorted(minimal(selection.paths)):
            yield from _below(selection, root, path, device, seen)
    finally:
        os.close(root)


def minimal(paths: tuple[str, ...]) -> list[str]:
    """Give paths without those that lie beneath another one."""
    clean = {os.path.normpath(path) for path in paths}
    if "." in clean:
        return ["."]
    return [path for path in clean if not any(path.startswith(f"{other}/") for other in clean)]


def _below(selection: Selection, root: int, path: str, device: int, seen: set[str]) -> Iterator[Found]:
    """Give a chosen path and all beneath it; the folders that lead to it come along, so that modes come back."""
    if path == ".":
        yield from _entries(selection, root, "", device)
        return
    parts = path.split("/")
    folder = os.dup(root)
    try:
        for number, name in enumerate(parts):
            here = "/".join(parts[: number + 1])
            status = _status(folder, name, here)
            if here not in seen:
                seen.add(here)
                yield Found(here, name, status, folder)
            if not stat.S_ISDIR(status.st_mode):
                return
            inner = _open_folder(folder, name, here)
            os.close(folder)
            folder = inner
        yield from _entries(selection, folder, path, device)
    finally:
        os.close(folder)


def _entries(selection: Selection, folder: int, path: str, device: int) -> Iterator[Found]:
    try:
        names = sorted(os.listdir(folder), key=os.fsencode)
    except OSError as error:
        raise unreadable(path or ".", error) from None
    for name in names:
        here = f"{path}/{name}" if path else name
        if name == MARKER or selection.leaves_out(here):
            continue
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue  # it went away between listing and looking: it was not there at the end
        except OSError as error:
            raise unreadable(here, error) from None
        yield Found(here, name, status, folder)
        if stat.S_ISDIR(status.st_mode) and not (selection.one_file_system and status.st_dev != device):
            with _folder(folder, name, here) as inner:
                yield from _entries(selection, inner, here, device)


@contextmanager
def _folder(folder: int, name: str, path: str) -> Iterator[int]:
    inner = _open_folder(folder, name, path)
    try:
        yield inner
    finally:
        os.close(inner)


def _open_folder(folder: int, name: str, path: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise unreadable(path, error) from None


def _status(folder: int, name: str, path: str) -> os.stat_result:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        raise SourceInvalid(f"the path {shown(path)} does not exist", reason="SourceMissing") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: str, error: OSError) -> SourceInvalid:
    """Give the failure of an entry that cannot be read: it is never left out in silence."""
    why = os.strerror(error.errno or errno.EIO)
    return SourceInvalid(
        f"{shown(path)} cannot be read: {why}; run the backup as a user who may (podTemplate.runAsUser), or exclude it",
        reason="SourceUnreadable",
    )


def shown(path: str) -> str:
    """Write a path for a person: no line's end, no broken encoding, not longer than 200 characters."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(text)[:200]
