"""Walking a tree of files by descriptors: sorted, one folder in memory at a time, and never through a link.

Names are bytes turned into text by ``surrogateescape``, so that a name in no encoding at all survives.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from avalanche_backup import platforms
from avalanche_backup.errors import SourceInvalid

MARKER = ".avalanche-restore-incomplete"
"""Lies in a target while a restore writes there; a tree that has it is not whole."""
OURS = re.compile(r"\.avalanche-(restoring|previous|removing)-([0-9a-f]{8})")
"""Folders that restores make in a target: no data of anybody's."""
_FOLDER = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC

Gone = Callable[[str], None]
"""Told the path of an entry that went away while the tree was walked."""


def _ignore(path: str) -> None:
    del path


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


def is_ours(name: str) -> bool:
    """Say whether a name is that of a restore's marker, or of a folder that it works in."""
    return name == MARKER or bool(OURS.fullmatch(name))


def walk(selection: Selection, gone: Gone = _ignore) -> Iterator[Found]:
    """Give every entry, folders before what they hold. ``gone`` is told of what went away under the walk's eyes.

    :raises SourceInvalid: a path is missing or is a link, or something cannot be read.
    """
    try:
        root = os.open(selection.root, os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC)
    except OSError as error:
        raise unreadable(".", error) from None
    try:
        device = os.fstat(root).st_dev
        seen: set[str] = set()
        for path in sorted(minimal(selection.paths)):
            yield from _below(_Walk(selection, device, gone), root, path, seen)
    finally:
        os.close(root)


@dataclass(frozen=True)
class _Walk:
    """What every step of one walk needs."""

    selection: Selection
    device: int
    gone: Gone


def minimal(paths: tuple[str, ...]) -> list[str]:
    """Give paths without those that lie beneath another one."""
    clean = {os.path.normpath(path) for path in paths}
    if "." in clean:
        return ["."]
    return [path for path in clean if not any(path.startswith(f"{other}/") for other in clean)]


def _below(walking: _Walk, root: int, path: str, seen: set[str]) -> Iterator[Found]:
    """Give a chosen path and all beneath it; the folders that lead to it come along, so that modes come back."""
    if path == ".":
        yield from _entries(walking, root, "")
        return
    parts = path.split("/")
    folder = os.dup(root)
    try:
        for number, name in enumerate(parts):
            here = "/".join(parts[: number + 1])
            status = _status(folder, name, here)
            _refuse_detour(folder, name, here, status, last=number == len(parts) - 1)
            if here not in seen:
                seen.add(here)
                yield Found(here, name, status, folder)
            if not stat.S_ISDIR(status.st_mode):
                return
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            except OSError as error:
                raise unreadable(here, error) from None
            os.close(folder)
            folder = inner
        yield from _entries(walking, folder, path)
    finally:
        os.close(folder)


def _refuse_detour(folder: int, name: str, path: str, status: os.stat_result, *, last: bool) -> None:
    """Refuse a chosen path that leads through a link, or is one: its name would be kept, and not what is there."""
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(name, dir_fd=folder)
        raise SourceInvalid(
            f"the path {shown(path)} is a link to {shown(target)}: choose the folder that it leads to",
            reason="SourceIsLink",
        )
    if not last and not stat.S_ISDIR(status.st_mode):
        raise SourceInvalid(f"the path {shown(path)} is a file, and no folder", reason="SourceMissing")


def _entries(walking: _Walk, folder: int, path: str) -> Iterator[Found]:
    """Go through a folder and all beneath it, without recursion: a tree may be deeper than Python's stack."""
    stack = [_Level(os.dup(folder), path)]
    try:
        while stack:
            level = stack[-1]
            name = next(level.names, None)
            if name is None:
                os.close(stack.pop().folder)
                continue
            found = _look(walking, level, name)
            if found is None:
                continue
            yield found
            if stat.S_ISDIR(found.status.st_mode) and not _is_another_system(walking, found):
                with suppress(FileNotFoundError):
                    stack.append(_Level(_open_folder(walking, found), found.path))
    finally:
        for level in stack:
            os.close(level.folder)


class _Level:
    """One open folder of a walk, and the names in it that are still to come."""

    def __init__(self, folder: int, path: str) -> None:
        self.folder, self.path = folder, path
        try:
            self.names = iter(sorted(os.listdir(folder), key=os.fsencode))
        except OSError as error:
            os.close(folder)
            raise unreadable(path or ".", error) from None


def _look(walking: _Walk, level: _Level, name: str) -> Found | None:
    here = f"{level.path}/{name}" if level.path else name
    if is_ours(name) or walking.selection.leaves_out(here):
        return None
    try:
        return Found(here, name, os.stat(name, dir_fd=level.folder, follow_symlinks=False), level.folder)
    except FileNotFoundError:
        walking.gone(here)
        return None
    except OSError as error:
        raise unreadable(here, error) from None


def _is_another_system(walking: _Walk, found: Found) -> bool:
    return walking.selection.one_file_system and found.status.st_dev != walking.device


def _open_folder(walking: _Walk, found: Found) -> int:
    """Open a folder that was just seen.

    :raises FileNotFoundError: it went away, or something else took its place.
    """
    try:
        return os.open(found.name, _FOLDER, dir_fd=found.folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            walking.gone(found.path)
            raise FileNotFoundError(found.path) from None
        raise unreadable(found.path, error) from None


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
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return SourceInvalid(
            f"{shown(path)} cannot be read: {why}. Each level of folders takes one: raise the limit of open files (ulimit -n), or "
            "exclude what is so deep",
            reason="SourceUnreadable",
        )
    return SourceInvalid(
        f"{shown(path)} cannot be read: {why}; run the backup as a user who may (podTemplate.runAsUser), or exclude it",
        reason="SourceUnreadable",
    )


def shown(path: str) -> str:
    """Write a path for a person: no line's end, no broken encoding, not longer than 200 characters."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return repr(text)[:200]
