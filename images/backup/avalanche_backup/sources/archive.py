"""Writing a tree as a PAX tar, with an index that has the SHA-256 of every file.

Every file is read to the length that it had when it was opened: one that got shorter is an error, one that grows is
taken as it was. What GNU tar cannot read does not leave this module.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from avalanche_backup import platforms
from avalanche_backup.errors import SourceInvalid
from avalanche_backup.sources import attributes
from avalanche_backup.sources.attributes import Attributes
from avalanche_backup.sources.base import ProgressHook, Sink
from avalanche_backup.sources.entries import PATH_MAX_BYTES
from avalanche_backup.sources.tree import Found, shown, unreadable

CHUNK = 1024 * 1024
BLOCK = tarfile.BLOCKSIZE
RECORD = tarfile.RECORDSIZE
WARNINGS_MAX = 20
_NONE: Attributes = {}
GONE_MIN, GONE_PERCENT = 10, 10
"""So many entries, and such a share of all, may go away under a backup: temporary files do, a tree does not."""


@dataclass
class Written:
    """What an archive holds so far."""

    entries: int = 0
    files: int = 0
    directories: int = 0
    links: int = 0
    bytes: int = 0
    skipped: int = 0
    gone: int = 0
    changed: int = 0
    attributed: int = 0
    warnings: list[str] = field(default_factory=list)
    _last_gone: str | None = None

    def warn(self, text: str) -> None:
        """Remember a warning; beyond twenty they are only counted."""
        if len(self.warnings) < WARNINGS_MAX:
            self.warnings.append(text)

    def went_away(self, path: str) -> None:
        """Count an entry that was there, and was not any more when it came to it; once, though a folder is looked for twice."""
        if path == self._last_gone:
            return
        self._last_gone = path
        self.gone += 1
        self.warn(f"{shown(path)} went away while the backup ran")

    def has_attributes(self, path: str) -> None:
        """Count an entry of which the archive does not hold everything; the first one is named."""
        self.attributed += 1
        if self.attributed == 1:
            self.warn(
                f"{shown(path)} has an ACL, capabilities or other extended attributes: they are not part of this backup, neither "
                "its own nor those of any other file; preserve.extendedAttributes of the source takes them in"
            )

    def statistics(self) -> dict[str, int]:
        """Give the counts for the metadata."""
        return {
            "entries": self.entries, "files": self.files, "directories": self.directories, "links": self.links,
            "bytes": self.bytes, "skipped": self.skipped, "gone": self.gone, "changed": self.changed,
        }  # fmt: skip


class Archive:
    """One archive under way."""

    def __init__(
        self, sink: Sink, index: Sink | None, progress: ProgressHook, *, holds_attributes: bool = False
    ) -> None:
        self.written = Written()
        self._holds_attributes = holds_attributes
        self._sink, self._index, self._progress = sink, index, progress
        self._offset = 0
        self._linked: dict[tuple[int, int], str] = {}

    def add(self, found: Found) -> None:
        """Add one entry.

        :raises SourceInvalid: it cannot be read, or got shorter meanwhile.
        """
        if len(os.fsencode(found.path)) > PATH_MAX_BYTES:
            raise SourceInvalid(
                f"{shown(found.path)} has a path of over {PATH_MAX_BYTES} bytes: exclude it, or move it up",
                reason="PathTooLong",
            )
        mode = found.status.st_mode
        if stat.S_ISREG(mode):
            self._add_file(found)
        elif stat.S_ISDIR(mode):
            self._add_folder(found)
        elif stat.S_ISLNK(mode):
            self._add_link(found)
        else:
            self.written.skipped += 1
            self.written.warn(f"{shown(found.path)} is neither file, folder nor link: left out")

    def finish(self) -> Written:
        """Write the end of the archive.

        :raises SourceInvalid: much of the tree went away meanwhile.
        """
        written = self.written
        if written.gone > GONE_MIN and written.gone * 100 > GONE_PERCENT * (written.entries + written.gone):
            raise SourceInvalid(
                f"{written.gone} of {written.entries + written.gone} entries went away while the backup ran, "
                f"{written.warnings[0]}: back up when nothing clears the tree",
                reason="SourceChanged",
            )
        padding = -(self._offset + 2 * BLOCK) % RECORD
        self._write(bytes(2 * BLOCK + padding))
        return self.written

    def _add_folder(self, found: Found) -> None:
        try:
            given = self._attributes(f"/proc/self/fd/{found.folder}/{found.name}", found.path)
        except (FileNotFoundError, NotADirectoryError):
            self.written.went_away(found.path)
            return
        self._add_plain(found, tarfile.DIRTYPE, "directory", given=given)
        self.written.directories += 1

    def _add_file(self, found: Found) -> None:
        first = self._linked.get((found.status.st_dev, found.status.st_ino))
        if first is not None:
            self._add_plain(found, tarfile.LNKTYPE, "hardlink", link=first)
            self.written.links += 1
            return
        try:
            descriptor = os.open(
                found.name,
                os.O_RDONLY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC | platforms.O_NONBLOCK,
                dir_fd=found.folder,
            )
        except FileNotFoundError:
            self.written.went_away(found.path)
            return
        except OSError as error:
            raise unreadable(found.path, error) from None
        try:
            self._add_open(found, descriptor)
        finally:
            os.close(descriptor)
        if found.status.st_nlink > 1:
            self._linked[found.status.st_dev, found.status.st_ino] = found.path

    def _add_open(self, found: Found, descriptor: int) -> None:
        status = os.fstat(descriptor)
        information = _information(found.path, status)
        information.size = status.st_size
        given = self._attributes(descriptor, found.path)
        self._header(information, given)
        digest = hashlib.sha256()
        for chunk in _exactly(descriptor, status.st_size, found.path):
            digest.update(chunk)
            self._write(chunk)
        self._write(bytes(-status.st_size % BLOCK))
        self.written.files += 1
        self.written.bytes += status.st_size
        self._see_change(found.path, status, os.fstat(descriptor))
        self._note(found.path, "file", status, given, sha256=digest.hexdigest())

    def _attributes(self, place: int | str, path: str) -> Attributes:
        """Give what is held of the attributes of an entry; tell of it where that is not all.

        :raises FileNotFoundError, NotADirectoryError: a folder went away.
        """
        if self._holds_attributes:
            return attributes.held(place, path)
        if platforms.has_attributes(place):
            self.written.has_attributes(path)
        return {}

    def _see_change(self, path: str, before: os.stat_result, after: os.stat_result) -> None:
        """Say of a file that was written to while it was read that it may hold old and new, as tar and borg do."""
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            self.written.changed += 1
            self.written.warn(f"{shown(path)} was written to while it was read: it may hold old and new")

    def _add_link(self, found: Found) -> None:
        try:
            target = os.readlink(found.name, dir_fd=found.folder)
        except FileNotFoundError:
            self.written.went_away(found.path)
            return
        except OSError as error:
            raise unreadable(found.path, error) from None
        self._add_plain(found, tarfile.SYMTYPE, "symlink", link=target)
        self.written.links += 1

    def _add_plain(
        self, found: Found, kind: bytes, named: str, link: str = "", given: Attributes = _NONE
    ) -> None:
        information = _information(found.path, found.status)
        information.type = kind
        information.linkname = link
        self._header(information, given)
        self._note(found.path, named, found.status, given, **({"target": link} if link else {}))

    def _header(self, information: tarfile.TarInfo, given: Attributes) -> None:
        header = information.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        self._write(attributes.with_attributes(header, given))

    def _note(
        self, path: str, kind: str, status: os.stat_result, given: Attributes = _NONE, **more: str
    ) -> None:
        self.written.entries += 1
        if self._index is None:
            return
        entry: dict[str, Any] = {
            **_named("path", path), "type": kind, "size": status.st_size if kind == "file" else 0,
            "mode": f"{stat.S_IMODE(status.st_mode):04o}", "uid": status.st_uid, "gid": status.st_gid, "mtime_ns": status.st_mtime_ns,
        }  # fmt: skip
        if given:
            entry["attributes_sha256"] = attributes.digest(given)
        for name, value in more.items():
            entry |= _named(name, value)
        self._index.write((json.dumps(entry, ensure_ascii=False, separators=(",", ":")) + "\n").encode())

    def _write(self, data: bytes) -> None:
        if data:
            self._sink.write(data)
            self._offset += len(data)
            self._progress(self._offset)


def _information(path: str, status: os.stat_result) -> tarfile.TarInfo:
    information = tarfile.TarInfo(path)
    information.mode = stat.S_IMODE(status.st_mode)
    information.uid, information.gid = status.st_uid, status.st_gid
    information.mtime = status.st_mtime_ns // 1_000_000_000
    if status.st_mtime_ns % 1_000_000_000:
        whole, part = divmod(abs(status.st_mtime_ns), 1_000_000_000)
        sign = "-" if status.st_mtime_ns < 0 else ""  # a decimal number, as POSIX has it: not rounded down
        information.pax_headers = {"mtime": f"{sign}{whole}.{part:09d}"}
    return information


def _exactly(descriptor: int, size: int, path: str) -> Iterator[bytes]:
    done = 0
    while done < size:
        try:
            chunk = os.read(descriptor, min(CHUNK, size - done))
        except OSError as error:
            raise unreadable(path, error) from None
        if not chunk:
            raise SourceInvalid(
                f"{shown(path)} was truncated while it was read: {done} of {size} bytes; back up when nothing shortens files",
                reason="SourceChanged",
            )
        done += len(chunk)
        yield chunk


def _named(field_name: str, text: str) -> dict[str, str]:
    """Write a name into JSON; one that is no UTF-8 comes along in base64."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(text)
        return {field_name: raw.decode("utf-8", "replace"), f"{field_name}_base64": b64encode(raw).decode()}
    return {field_name: text}
