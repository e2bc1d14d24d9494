"""Reaching what lies beneath an open folder, without following a link; and removing all of it, however deep it lies."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from avalanche_backup import platforms

OWN = 0o700
FOLDER = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
ROOT = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC
"""A root itself may be a link; what lies in it may be anybody's, and is not followed."""
OPEN_MAX = 100
"""So many folders that lead to the last entry stay open; a process has a thousand descriptors, and a path more names."""


def make_folder(folder: int, name: str) -> None:
    """Make a folder, or keep what is there."""
    with suppress(FileExistsError):
        os.mkdir(name, OWN, dir_fd=folder)


class Tree:
    """Entries beneath an open folder; the folders that lead to the last one stay open, because the next is mostly near."""

    def __init__(
        self, root: Path | int, flags: int = FOLDER, make: Callable[[int, str], object] = make_folder
    ) -> None:
        self._open = {0: os.dup(root) if isinstance(root, int) else os.open(root, flags)}
        self._names: list[str] = []
        self._make = make

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._open.values():
            os.close(each)

    def at(self, path: str, *, create: bool = False) -> tuple[int, str]:
        """Give the open folder of a path, and its last name. The folder stays open until another path is asked for.

        :raises OSError: there is no such folder.
        """
        *parents, name = path.split("/")
        return self._folder(parents, create=create), name

    def status(self, path: str) -> os.stat_result | None:
        """Look at an entry; ``None`` where there is none, or a link leads to it."""
        try:
            folder, name = self.at(path)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise

    def names(self, path: str) -> list[str]:
        """List a folder."""
        folder = self._folder(path.split("/") if path else [], create=False)
        return sorted(os.listdir(folder), key=os.fsencode)  # noqa: PTH208 - of an open folder

    def set(self, path: str, mode: int, moment: int | None = None) -> None:
        """Give a folder a mode, and a time of change."""
        folder, name = self.at(path)
        os.chmod(name, mode, dir_fd=folder)
        if moment is not None:
            os.utime(name, ns=(moment, moment), dir_fd=folder, follow_symlinks=False)

    def _folder(self, names: list[str], *, create: bool) -> int:
        alike = next(
            (depth for depth, both in enumerate(zip(names, self._names, strict=False)) if both[0] != both[1]),
            min(len(names), len(self._names)),
        )
        for depth in [each for each in self._open if each > alike]:
            os.close(self._open.pop(depth))
        reached = max(self._open)
        del self._names[reached:]
        for name in names[reached:]:
            folder = self._open[len(self._names)]
            if create:
                self._make(folder, name)
            inner = os.open(name, FOLDER, dir_fd=folder)
            self._names.append(name)
            self._open[len(self._names)] = inner
            if len(self._names) > OPEN_MAX:
                os.close(self._open.pop(len(self._names) - OPEN_MAX))
        return self._open[len(names)]


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, also folders in it that their mode protects; nothing where there is none.

    Each folder moves up into the first one before it is emptied: whatever the depth, no path has more than two names, and
    two folders are open. What cannot be removed stays.
    """
    if not platforms.walks_by_descriptor():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        root = _opened(path)
        try:
            waiting = _emptied(root, root)
            while waiting:
                name = waiting.pop()
                with suppress(OSError):
                    waiting += _emptied_within(root, name)
                    os.rmdir(name, dir_fd=root)
        finally:
            os.close(root)
        path.rmdir()


def _emptied_within(root: int, name: str) -> list[str]:
    folder = _opened(name, root)
    try:
        return _emptied(folder, root)
    finally:
        os.close(folder)


def _emptied(folder: int, root: int) -> list[str]:
    """Remove what is no folder, move the folders into the root, and give the names that they have there."""
    with os.scandir(folder) as listed:
        found = [(each.name, each.is_dir(follow_symlinks=False)) for each in listed]
    moved = []
    for name, is_folder in found:
        with suppress(OSError):
            if not is_folder:
                os.unlink(name, dir_fd=folder)
                continue
            there = name if folder == root else secrets.token_hex(8)
            if folder != root:
                os.close(_opened(name, folder))  # a folder that moves has to be writable as well
                os.rename(name, there, src_dir_fd=folder, dst_dir_fd=root)
            moved.append(there)
    return moved


def _opened(path: Path | str, folder: int | None = None) -> int:
    """Open a folder, and let its owner write to it."""
    if (
        os.geteuid() != 0
    ):  # who may do everything needs no mode, and follows no link that was put there meanwhile
        os.chmod(path, OWN, dir_fd=folder)
    return os.open(path, FOLDER, dir_fd=folder)
