"""Extended attributes of files and folders: read, written into a tar as GNU tar and star do, and set again.

An ACL is an attribute too. What makes programs run with rights of their own (``security.capability``) is held for who
restores by hand, and is never set here; what systems give to every file by themselves is not held either.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed, SourceInvalid
from avalanche_backup.sources.tree import shown, unreadable

Attributes = Mapping[str, bytes]
"""Names, as :func:`os.listxattr` gives them, and values."""
PREFIX = "SCHILY.xattr."
MAX_BYTES = 96 * 1024
"""Of the attributes of one entry: a header has room for them beside a path of any length that is taken."""
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_PLAIN_ACL_BYTES = 28
"""Of an ACL that says no more than a mode: systems keep the mode alone."""
_BLOCK = tarfile.BLOCKSIZE


def held(place: int | str, path: str) -> dict[str, bytes]:
    """Read the attributes of a file, by its descriptor, or of a folder, by its path, that a backup holds.

    :raises SourceInvalid: they cannot be read, or are more than a header takes.
    """
    found: dict[str, bytes] = {}
    try:
        for name in sorted(platforms.attribute_names(place)):
            with suppress(FileNotFoundError):
                found[name] = _read(place, name)
    except OSError as error:
        raise unreadable(path, error) from None
    if (size := len(records(found))) > MAX_BYTES:
        raise SourceInvalid(
            f"{shown(path)} has {size:,} bytes of extended attributes, and a backup holds {MAX_BYTES:,} of an entry: exclude "
            "it, or leave preserve.extendedAttributes out",
            reason="AttributesTooLarge",
        )
    return found


def _read(place: int | str, name: str) -> bytes:
    try:
        return (
            os.getxattr(place, name)
            if isinstance(place, int)
            else os.getxattr(place, name, follow_symlinks=False)
        )
    except OSError as error:
        if error.errno == errno.ENODATA:
            raise FileNotFoundError(name) from None  # somebody took it away meanwhile
        raise


def records(attributes: Attributes) -> bytes:
    """Write attributes as records of a PAX header, sorted: bytes as they are, as no other tar asks for their encoding."""
    return b"".join(_record(os.fsencode(name), attributes[name]) for name in sorted(attributes))


def _record(name: bytes, value: bytes) -> bytes:
    rest = b" %s%s=%s\n" % (PREFIX.encode(), name.replace(b"%", b"%25").replace(b"=", b"%3D"), value)
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d%s" % (length, rest)


def digest(attributes: Attributes) -> str | None:
    """Give the SHA-256 of these records, for the index; ``None`` where there are none."""
    return hashlib.sha256(records(attributes)).hexdigest() if attributes else None


def with_attributes(header: bytes, attributes: Attributes) -> bytes:
    """Give the header of an entry with its attributes."""
    if not attributes:
        return header
    told = header[_BLOCK:-_BLOCK].rstrip(b"\0") + records(attributes)
    extended = tarfile.TarInfo("././@PaxHeader")
    extended.type, extended.size = tarfile.XHDTYPE, len(told)
    return extended.tobuf(tarfile.USTAR_FORMAT) + told + bytes(-len(told) % _BLOCK) + header[-_BLOCK:]


def of_entry(entry: tarfile.TarInfo) -> dict[str, bytes]:
    """Give the attributes that an entry of an archive has; those of any archive."""
    return {
        name.removeprefix(PREFIX).replace("%3D", "=").replace("%25", "%"): value.encode(
            "utf-8", "surrogateescape"
        )
        for name, value in entry.pax_headers.items()
        if name.startswith(PREFIX)
    }


def plain(attributes: Attributes) -> dict[str, bytes]:
    """Give those that say something to people and programs, and nothing to the system."""
    return {name: value for name, value in attributes.items() if name.startswith("user.")}


def lists(attributes: Attributes) -> dict[str, bytes]:
    """Give the ACLs."""
    return {name: value for name, value in attributes.items() if name in (ACCESS, DEFAULT)}


def refused(attributes: Attributes) -> bool:
    """Say whether there are some that are never set."""
    return len(plain(attributes)) + len(lists(attributes)) < len(attributes)


def put(descriptor: int, attributes: Attributes, path: str) -> None:
    """Set attributes of an open file or folder, and look whether they are there.

    :raises RestoreFailed: its file system takes none, or says yes and does nothing.
    """
    for name, value in attributes.items():
        try:
            os.setxattr(descriptor, name, value)
            kept = os.getxattr(descriptor, name) == value
        except OSError as error:
            kept = error.errno == errno.ENODATA and name == ACCESS and len(value) <= _PLAIN_ACL_BYTES
            if not kept:
                why = os.strerror(error.errno or errno.EIO)
                raise _not_kept(path, name, f"its file system does not take it ({why})") from None
        except ValueError:
            raise _not_kept(path, name, "that is no name of an attribute") from None
        if not kept:
            raise _not_kept(path, name, "its file system says yes, and does nothing")


def put_lists(descriptor: int, attributes: Attributes, path: str) -> None:
    """Set the ACLs of an open file or folder, and take those away that it has from the folder that it was made in.

    :raises RestoreFailed: as of :func:`put`.
    """
    for name in (ACCESS, DEFAULT):
        if name not in attributes:
            with suppress(OSError):  # there is none
                os.removexattr(descriptor, name)
    put(descriptor, lists(attributes), path)


def _not_kept(path: str, name: str, why: str) -> RestoreFailed:
    return RestoreFailed(
        f"{shown(path)} should have the attribute {shown(name)}, and {why}: restore to another file system, or without "
        "preserve.extendedAttributes",
        reason="AttributesNotKept",
    )
