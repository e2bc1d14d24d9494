"""What POSIX has and Windows has not: flags of open, folders by descriptor. Asked here, so that importing never fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

O_CLOEXEC = getattr(os, "O_CLOEXEC", getattr(os, "O_NOINHERIT", 0))
O_BINARY = getattr(os, "O_BINARY", 0)
O_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
O_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
O_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
O_PATH = getattr(os, "O_PATH", 0)
WRITE_OUT = 8 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE = 2


def walks_by_descriptor() -> bool:
    """Say whether a tree can be walked without ever following a link: what backups of files rely on."""
    return os.open in os.supports_dir_fd and bool(O_NOFOLLOW)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can; Windows journals them itself."""
    if not O_DIRECTORY:
        return
    descriptor = os.open(folder, os.O_RDONLY | O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: Path | int) -> None:
    """Bring everything of the file system of a folder to the disk, before anybody says that it is there (vmware-tanzu/velero#9460)."""
    syncfs = _of_libc("syncfs", "int")
    descriptor = folder if isinstance(folder, int) else os.open(folder, os.O_RDONLY | O_DIRECTORY)
    try:
        if (syncfs is None or syncfs(descriptor) != 0) and hasattr(os, "sync"):
            os.sync()
    finally:
        if not isinstance(folder, int):
            os.close(descriptor)


def release_memory() -> None:
    """Give what is free back to the system: glibc keeps buffers of megabytes for each thread that there was."""
    trim = _of_libc("malloc_trim", "size_t")
    if trim is not None:
        trim(0)


class WriteOut:
    """Lets the system bring what is written to a file to the disk meanwhile, so that the sync at the end has little left to wait for.

    Linux alone would leave a gigabyte or two in memory until then. Where a system cannot, nothing is lost but time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._begun, self._written = descriptor, 0, 0

    def wrote(self, size: int) -> None:
        """Hear of so many bytes more, written one after the other from the begin of the file."""
        self._written += size
        if self._written - self._begun >= WRITE_OUT:
            begin = _of_libc("sync_file_range", "int int64 int64 uint")
            if begin is not None:
                begin(self._descriptor, self._begun, self._written - self._begun, _SYNC_FILE_RANGE_WRITE)
            self._begun = self._written


@cache
def _of_libc(name: str, arguments: str) -> Callable[..., int] | None:
    """Find what the C library has and Python does not pass on; ``arguments`` are their types, as ctypes names them."""
    import ctypes  # noqa: PLC0415 - few runs come here, and loading it takes its time

    found = getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
    if found is not None:
        found.argtypes = [getattr(ctypes, f"c_{each}") for each in arguments.split()]
    return found


def give_to(path: Path, owner: os.stat_result) -> None:
    """Give a file to the owner and group of another; where we may not (only root gives files away), leave it ours."""
    if hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(path, owner.st_uid, owner.st_gid)


def has_attributes(place: int | str) -> bool:
    """Say whether somebody gave a file, by its descriptor, or a folder, by its path, an ACL, capabilities or other extended attributes."""
    try:
        return bool(attribute_names(place))
    except OSError:  # who may not see them is not told of them
        return False


def attribute_names(place: int | str) -> list[str]:
    """Name the extended attributes that somebody gave a file, by its descriptor, or a folder, by its path.

    :raises OSError: they cannot be read; a file system without any has none.
    """
    if not hasattr(os, "listxattr"):
        return []
    try:
        names = os.listxattr(place) if isinstance(place, int) else os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENOSYS):
            return []
        raise
    return [name for name in names if not name.startswith(_GIVEN_TO_ALL)]


_GIVEN_TO_ALL = ("security.selinux", "security.ima", "security.evm", "trusted.", "system.nfs4_acl", "btrfs.")
"""What systems give to every file by themselves."""
