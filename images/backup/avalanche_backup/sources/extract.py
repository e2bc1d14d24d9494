"""Putting an archive back beneath a root, by descriptors: nothing leaves the root, and no link is followed.

An archive is hostile input. Each file is written beside its place and renamed over it, so that a reader sees the old
one or the new one.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed
from avalanche_backup.sources import attributes
from avalanche_backup.sources.attributes import Attributes
from avalanche_backup.sources.entries import ArchiveInvalid, Stream, content, entries, nanoseconds, opened
from avalanche_backup.sources.owning import Finish, finish, give_link, owner_of
from avalanche_backup.sources.reaching import Tree
from avalanche_backup.sources.tree import is_ours, shown
from avalanche_contract.source import Preserve

Seen = Callable[[tarfile.TarInfo, str | None], None]
"""Told of each entry that came back, in the order of the archive, and of a file's SHA-256."""
_FOLDER = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
_MODE = 0o777
"""Of files: set-id bits do not come back, a restore makes no program run as another user."""
_FOLDER_MODE = 0o3777
"""Of folders: setgid and sticky say who may share them, and run nothing."""
_NOTHING = Preserve()
LISTS_MAX_BYTES = 32 * 1024 * 1024
"""Of the different ACLs of folders, which wait for the end."""


@dataclass
class Extracted:
    """What came back."""

    files: int = 0
    links: int = 0
    directories: int = 0
    linkable: set[str] | None = None
    """Of a part: the files that other names may be hard links to; ``None`` where everything is restored."""
    folders: dict[str, Finish] = field(default_factory=dict)
    """What folders get last: writing into a folder changes its time, and may need its mode."""
    withheld: int = 0
    """Entries with attributes that are never set."""
    _lists: dict[bytes, Attributes] = field(default_factory=dict)
    _lists_bytes: int = 0

    def remember(self, lists: Attributes) -> Attributes:
        """Give ACLs of a folder that wait for the end, the same for the same: most are alike.

        :raises RestoreFailed: so many different ones are no tree's.
        """
        key = attributes.records(lists)
        if key not in self._lists:
            self._lists_bytes += len(key)
            if self._lists_bytes > LISTS_MAX_BYTES:
                raise RestoreFailed(
                    "the ACLs of its folders are too many to remember", reason="ArchiveInvalid"
                )
        return self._lists.setdefault(key, lists)


def extract(
    stream: Stream,
    root: int,
    paths: tuple[str, ...],
    seen: Seen | None = None,
    *,
    preserve: Preserve = _NOTHING,
) -> Extracted:
    """Extract what lies at or beneath ``paths`` (empty is all) into the folder that ``root`` is open on.

    Files are hashed where somebody looks at what is ``seen``. ``preserve`` says whether owners and attributes are set.

    :raises RestoreFailed: an entry would leave the root, or cannot be written, or is not kept as was asked.
    """
    done = Extracted(linkable=set() if paths else None)
    with Tree(root, make=_make_folder) as tree, Tree(root) as linked:
        try:
            with opened(stream) as archive:
                writing = _Writing(stream, tree, linked, done, seen, preserve)
                for entry in entries(archive):
                    if chosen(entry.name, paths):
                        _put(writing, entry)
                    elif entry.isdir() and leads(entry.name, paths):
                        _lead(writing, entry)
        except ArchiveInvalid as error:
            raise RestoreFailed(f"the archive cannot be read: {error}", reason="ArchiveInvalid") from None
        stream.drain()
        for path in sorted(done.folders, reverse=True):  # what lies in a folder before the folder itself
            _finish_folder(tree, path, done.folders[path])
    platforms.sync_file_system(root)
    return done


@dataclass(frozen=True)
class _Writing:
    """One archive that is being written out."""

    stream: Stream
    tree: Tree
    linked: Tree
    """The same one: what a hard link leads to may lie far from it."""
    done: Extracted
    seen: Seen | None
    preserve: Preserve

    def finish(self, entry: tarfile.TarInfo, mode: int) -> Finish:
        """Say how an entry is to be in the end."""
        return Finish(
            mode=entry.mode & mode,
            moment=nanoseconds(entry),
            owner=owner_of(entry) if self.preserve.ownership else None,
            lists=attributes.of_entry(entry) if self.preserve.extended_attributes else None,
        )


def _finish_folder(tree: Tree, path: str, wanted: Finish) -> None:
    """Finish a folder through its descriptor: a link that took its place leads anywhere."""
    try:
        folder, name = tree.at(path)
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
        try:
            finish(descriptor, wanted, path)
        finally:
            os.close(descriptor)
    except (OSError, OverflowError):
        raise RestoreFailed(f"{shown(path)} is no folder any more when its mode is set") from None


def chosen(path: str, paths: tuple[str, ...]) -> bool:
    """Say whether a path is one of some, or lies beneath one."""
    if not paths or any(os.path.normpath(each) == "." for each in paths):
        return True
    wanted = [os.path.normpath(each) for each in paths]
    return any(path == each or path.startswith(f"{each}/") for each in wanted)


def leads(path: str, paths: tuple[str, ...]) -> bool:
    """Say whether a folder leads to one of some paths."""
    return any(os.path.normpath(each).startswith(f"{path}/") for each in paths)


def _lead(writing: _Writing, entry: tarfile.TarInfo) -> None:
    """Make a folder on the way to what was chosen, as the backup has it; one that is there stays as it is."""
    path = _checked(entry.name)
    folder, name = writing.tree.at(path, create=True)
    if _make_folder(folder, name):
        _begin_folder(writing, entry, folder, name)


def _begin_folder(writing: _Writing, entry: tarfile.TarInfo, folder: int, name: str) -> None:
    """Give a folder what may lie in it from the first; the rest comes last, an ACL that what is made in it would have as well."""
    wanted, done = writing.finish(entry, _FOLDER_MODE), writing.done
    if wanted.lists is not None:
        given = wanted.lists
        descriptor = os.open(name, _FOLDER, dir_fd=folder)
        try:
            attributes.put(descriptor, given, entry.name, attributes.is_plain)
        finally:
            os.close(descriptor)
        lists = {each: value for each, value in given.items() if attributes.is_list(each)}
        wanted = replace(wanted, lists=done.remember(lists))
    done.folders[entry.name] = wanted


def _put(writing: _Writing, entry: tarfile.TarInfo) -> None:
    path, done, sha256 = _checked(entry.name), writing.done, None
    try:
        folder, name = writing.tree.at(path, create=True)
        if entry.isdir():
            _make_folder(folder, name)
            _begin_folder(writing, entry, folder, name)
            done.directories += 1
        elif entry.isreg() and not entry.issparse():
            sha256 = _write_file(writing, entry, folder, name)
            done.files += 1
            if done.linkable is not None:
                done.linkable.add(path)
        elif entry.issym():
            _replace(folder, name, lambda beside: _make_link(writing, entry, folder, beside))
            done.links += 1
        elif entry.islnk():
            _check_link(entry, done.linkable)
            _link(entry, writing.linked, folder, name)
            done.links += 1
        else:
            raise RestoreFailed(f"{shown(path)} is a device, a pipe or sparse: none is made")
        if writing.preserve.extended_attributes:
            given = attributes.of_entry(entry)
            done.withheld += len(attributes.settable(given)) < len(given)
        if writing.seen is not None:
            writing.seen(entry, sha256)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise RestoreFailed(f"{shown(path)} cannot be written: {why}") from None
    except (ValueError, OverflowError) as error:
        if isinstance(error, ArchiveInvalid):
            raise
        raise RestoreFailed(f"{shown(path)} cannot be written: it holds what no file system takes") from None


def _checked(name: str) -> str:
    parts = name.split("/")
    if name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts):
        raise RestoreFailed(f"the archive holds {shown(name)}, which would leave the target")
    if own := next(filter(is_ours, parts), None):  # a journal in it would be obeyed by the next restore
        raise RestoreFailed(f"the archive holds {own}, which no backup does")
    return name


def _make_folder(folder: int, name: str) -> bool:
    """Make a folder and say so, or keep the one that is there; what is there and no folder gives way."""
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=folder)
        os.mkdir(name, 0o700, dir_fd=folder)
    return True


def _write_file(writing: _Writing, entry: tarfile.TarInfo, folder: int, name: str) -> str | None:
    """Write a file, and give its SHA-256 where somebody looks at it."""
    beside, digest = _beside(), hashlib.sha256() if writing.seen is not None else None
    descriptor = os.open(
        beside,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | platforms.O_NOFOLLOW | platforms.O_CLOEXEC,
        0o600,
        dir_fd=folder,
    )
    try:
        try:
            write_out = platforms.WriteOut(descriptor)
            for chunk in content(writing.stream, entry):
                _write_all(descriptor, chunk)
                write_out.wrote(len(chunk))
                if digest is not None:
                    digest.update(chunk)
            wanted = writing.finish(entry, _MODE)
            if wanted.lists is not None:
                attributes.put(descriptor, wanted.lists, entry.name, attributes.is_plain)
            finish(descriptor, wanted, entry.name)
        finally:
            os.close(descriptor)
        _give_way(folder, name)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=folder)
        raise
    return digest.hexdigest() if digest is not None else None


def _make_link(writing: _Writing, entry: tarfile.TarInfo, folder: int, beside: str) -> None:
    os.symlink(entry.linkname, beside, dir_fd=folder)
    if writing.preserve.ownership:
        give_link(folder, beside, owner_of(entry), entry.name)


def _check_link(entry: tarfile.TarInfo, linkable: set[str] | None) -> None:
    """Refuse a link to what was not restored: whatever lies under that name now is another file."""
    if linkable is not None and entry.linkname not in linkable:
        raise RestoreFailed(
            f"{shown(entry.name)} is a hard link to {shown(entry.linkname)}, which was not restored: choose that as well",
            reason="LinkOutsidePaths",
        )


def _link(entry: tarfile.TarInfo, tree: Tree, folder: int, name: str) -> None:
    other, linked = tree.at(_checked(entry.linkname))
    _replace(
        folder,
        name,
        lambda beside: os.link(linked, beside, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False),
    )


def _replace(folder: int, name: str, make: Callable[[str], None]) -> None:
    beside = _beside()
    try:
        make(beside)
        _give_way(folder, name)
        os.rename(beside, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:  # renaming one hard link over another of the same file leaves both
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)


def _give_way(folder: int, name: str) -> None:
    """Remove an empty folder that stands where a file comes; one that holds something stays, and that is an error."""
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.rmdir(name, dir_fd=folder)


def _beside() -> str:
    return f".avalanche-{secrets.token_hex(6)}"


def _write_all(descriptor: int, rest: memoryview) -> None:
    while rest:
        rest = rest[os.write(descriptor, rest) :]
