"""Extended attributes of files and folders: read, written into a tar as GNU tar and star do, and set again.

An ACL is an attribute too. What makes programs run with rights of their own (``security.capability``) is held for who
restores by hand, and is never set here; what systems give to every file by themselves is not held either.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
from collections.abc import Callable, Mapping

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
_ANY_BYTES = b"21 hdrcharset=BINARY\n"
_BLOCK = tarfile.BLOCKSIZE


def held(place: int | str, path: str) -> dict[str, bytes]:
    """Read the attributes of a file, by its descriptor, or of a folder, by its path, that a backup holds.

    :raises FileNotFoundError, NotADirectoryError: the folder went away.
    :raises SourceInvalid: they cannot be read, or are more than a header takes.
    """
    try:
        found = read(place)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise unreadable(path, error) from None
    if (size := len(records(found))) > MAX_BYTES:
        raise SourceInvalid(
            f"{shown(path)} has {size:,} bytes of extended attributes, and a backup holds {MAX_BYTES:,} of an entry: exclude "
            "it, or leave preserve.extendedAttributes out",
            reason="AttributesTooLarge",
        )
    return found


def read(place: int | str) -> dict[str, bytes]:
    """Read the attributes that somebody gave a file, by its descriptor, or a folder, by its path.

    :raises OSError: they cannot be read.
    """
    found: dict[str, bytes] = {}
    for name in sorted(platforms.attribute_names(place)):
        try:
            found[name] = (
                os.getxattr(place, name)
                if isinstance(place, int)
                else os.getxattr(place, name, follow_symlinks=False)
            )
        except OSError as error:
            if error.errno != errno.ENODATA:  # somebody took it away meanwhile
                raise
    return found


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
    if b" hdrcharset=" in told and not told.startswith(
        _ANY_BYTES
    ):  # a reader that looks for it would find it in a value
        told = _ANY_BYTES + told
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


def is_plain(name: str) -> bool:
    """Say whether an attribute speaks to people and programs alone."""
    return name.startswith("user.")


def is_list(name: str) -> bool:
    """Say whether an attribute is an ACL."""
    return name in (ACCESS, DEFAULT)


def settable(attributes: Attributes) -> dict[str, bytes]:
    """Give those that a restore sets: never what makes programs run with rights, or is the system's own."""
    return {name: value for name, value in attributes.items() if is_plain(name) or is_list(name)}


def put(descriptor: int, attributes: Attributes, path: str, which: Callable[[str], bool]) -> None:
    """Give an open file or folder just these attributes of a kind, and look whether they are there.

    :raises RestoreFailed: its file system takes none, or says yes and does nothing.
    """
    for name in _names(descriptor):
        if which(name) and name not in attributes:  # an ACL of the folder that it was made in, for one
            os.removexattr(descriptor, name)
    for name, value in attributes.items():
        if which(name) and (why := _set(descriptor, name, value)):
            raise RestoreFailed(
                f"{shown(path)} should have the attribute {shown(name)}, and {why}: restore to another file system, or without "
                "preserve.extendedAttributes",
                reason="AttributesNotKept",
            )


def _set(descriptor: int, name: str, value: bytes) -> str:
    """Set one attribute; say why it is not there."""
    try:
        os.setxattr(descriptor, name, value)
        if os.getxattr(descriptor, name) == value:
            return ""
    except OSError as error:
        if error.errno != errno.ENODATA:
            return f"its file system does not take it ({os.strerror(error.errno or errno.EIO)})"
        if name == ACCESS and len(value) <= _PLAIN_ACL_BYTES:
            return ""
    except ValueError:
        return "that is no name of an attribute"
    return "its file system says yes, and does nothing"


def _names(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError:  # it knows none
        return []
