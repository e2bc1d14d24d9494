"""What an entry gets once its content is there: owner, mode, ACLs and time, by its descriptor, and read back.

A file system may say yes to a change of owner and do nothing: then a restore that was asked for owners has failed.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed
from avalanche_backup.sources import attributes
from avalanche_backup.sources.attributes import Attributes
from avalanche_backup.sources.tree import shown
from avalanche_contract.source import Preserve

Owner = tuple[int, int]
"""Numbers of user and group."""
_ID_MAX = 2**32 - 2
"""The number after it means to a system: leave it as it is."""
_LINK = platforms.O_PATH | platforms.O_NOFOLLOW | platforms.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Finish:
    """How one entry is to be in the end."""

    mode: int
    moment: int
    """When it was changed, in nanoseconds since 1970."""
    owner: Owner | None = None
    """Absent: it belongs to who restores."""
    lists: Attributes | None = None
    """Its ACLs; absent: what it has by where it lies."""


def owner_of(entry: tarfile.TarInfo) -> Owner:
    """Give whom an entry belongs to.

    :raises RestoreFailed: nobody has such a number.
    """
    owner = entry.uid, entry.gid
    if not all(0 <= each <= _ID_MAX for each in owner):
        raise RestoreFailed(
            f"{shown(entry.name)} belongs to {owner[0]}:{owner[1]}, which is nobody", reason="ArchiveInvalid"
        )
    return owner


def finish(descriptor: int, wanted: Finish, path: str) -> None:
    """Make an open file or folder what it is to be.

    :raises RestoreFailed: its file system does not keep owner or ACLs.
    :raises OSError: it does not take mode or time.
    """
    if wanted.owner is not None:  # first: a change of owner takes bits of the mode away
        give(descriptor, wanted.owner, path)
    os.fchmod(descriptor, wanted.mode)
    if wanted.lists is not None:
        attributes.put(descriptor, wanted.lists, path, attributes.is_list)
    os.utime(descriptor, ns=(wanted.moment, wanted.moment))


def give(descriptor: int, owner: Owner, path: str) -> None:
    """Give an open file or folder away, and look whose it is then.

    :raises RestoreFailed: it is not theirs.
    """
    why = ""
    try:
        os.fchown(descriptor, *owner)
    except OSError as error:
        why = os.strerror(error.errno or 0)
    _check(os.fstat(descriptor), owner, path, why)


def give_link(folder: int, name: str, owner: Owner, path: str) -> None:
    """Give a symbolic link away, and not what it leads to, nor what the owner of its folder puts in its place.

    :raises RestoreFailed: it is not theirs, or no link any more.
    """
    link = os.open(name, _LINK, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(link).st_mode):
            raise RestoreFailed(f"{shown(path)} is no link any more when it is given away")
        why = ""
        try:
            os.chown(f"/proc/self/fd/{link}", *owner)
        except OSError as error:
            why = os.strerror(error.errno or 0)
        _check(os.fstat(link), owner, path, why)
    finally:
        os.close(link)


def _check(found: os.stat_result, owner: Owner, path: str, why: str) -> None:
    if (found.st_uid, found.st_gid) != owner:
        raise RestoreFailed(
            f"{shown(path)} should belong to {owner[0]}:{owner[1]} and belongs to {found.st_uid}:{found.st_gid}: its file system "
            f"{f'refuses it ({why})' if why else 'says yes to a change of owner, and does nothing'}; restore to another one, or "
            "without preserve.ownership",
            reason="OwnershipNotKept",
        )


def came_back(preserve: Preserve, withheld: int) -> str:
    """Say whose files that came back are, and what of attributes was set."""
    owners = "with their owners" if preserve.ownership else "owned by the user of the restore"
    if not preserve.extended_attributes:
        return f"{owners}, without ACLs and extended attributes"
    left = (
        f"; capabilities and other attributes of the system, of {withheld} entries, were not set"
        if withheld
        else ""
    )
    return f"{owners}, and with ACLs and extended attributes{left}"
