"""Whose is what root makes in a folder of backups: of those who go on with it, or their next backup could not write beside it.

All by descriptors, and the owner is that of the folder that something was made in: who owns a folder of backups may put a link
in it, and is given nothing by that. What a file system refuses stays root's.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from avalanche_backup import platforms

_ABOVE = platforms.O_PATH | platforms.O_DIRECTORY | platforms.O_CLOEXEC
_FOLDER = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | platforms.O_CLOEXEC | platforms.O_BINARY
_MODE = 0o640
_FOLDER_MODE = 0o3777
"""Of the folder above, what a new one has too: set-group-id keeps the group, sticky what others made."""


def make_folders(folder: Path) -> None:
    """Make a folder and those that lead to it; what root makes has owner, group and mode of the folder that it lies in.

    :raises OSError: it cannot be made.
    """
    if _is_root():
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            _make_folder(each)
    folder.mkdir(parents=True, exist_ok=True)


def create(path: Path, *, is_document: bool) -> int:
    """Make a file and give its descriptor; one that root makes belongs to whose folder it is.

    Where everybody may write into that folder, everybody may read a document: the lock of a restore, for one. Nobody but its
    group may read data.

    :raises OSError: it cannot be made.
    """
    if not _is_root():
        return os.open(path, _NEW, _MODE)
    above = os.open(path.parent, _ABOVE)
    try:
        descriptor = os.open(path.name, _NEW, _MODE, dir_fd=above)
        around = os.fstat(above)
    finally:
        os.close(above)
    _give(descriptor, around)
    if readers := _readers(around.st_mode) & (0o044 if is_document else 0o040):
        with suppress(OSError):
            os.fchmod(descriptor, _MODE | readers)
    return descriptor


def _make_folder(folder: Path) -> None:
    above = os.open(folder.parent, _ABOVE)
    try:
        try:
            os.mkdir(folder.name, dir_fd=above)
        except FileExistsError:  # of somebody who was quicker, and knows whose it is
            return
        with suppress(OSError):
            made = os.open(folder.name, _FOLDER, dir_fd=above)
            try:
                _give(made, around := os.fstat(above))
                with suppress(OSError):
                    os.fchmod(made, _mode_in(around.st_mode))
            finally:
                os.close(made)
    finally:
        os.close(above)


def _mode_in(above: int) -> int:
    """Give the mode of a new folder; where everybody keeps to his own, as in ``/tmp``, nobody else writes into it."""
    mode = stat.S_IMODE(above) & _FOLDER_MODE
    return mode & ~0o002 if above & stat.S_ISVTX else mode


def _readers(above: int) -> int:
    """Say who of group and others reads what lies in a folder: those who write into it."""
    writers = _mode_in(above) & 0o022
    return writers << 1


def _give(descriptor: int, around: os.stat_result) -> None:
    """Change owner and group; a user namespace and many a network file system refuse that, each by an error of its own."""
    with suppress(OSError):
        os.fchown(descriptor, around.st_uid, around.st_gid)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
