"""Letting the entries of one folder take their places in another, one by one, by a journal that leads back from anywhere.

The work folder lies in the root itself, so that every step is a rename within one file system. ``new`` holds what comes, ``old``
what had to go, ``gone`` what a way back took out again, and ``journal`` every step, written down before the first is taken.
A step back looks at what is there and not at how far anybody came: it may be broken off and begun anew at any point.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed
from avalanche_backup.sources.tree import MARKER, OURS, is_ours, shown

FILE = "journal"
_FOLDER = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
_ROOT = os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC
"""The root itself may be a link; what lies in it may be anybody's, and is not followed."""
_OWN = 0o700
_TOLD = "A restore into this folder did not end: entries were changing places. Restore again, or undo it.\n"


@dataclass(frozen=True)
class Entry:
    """A file, link or whole folder that takes its place; ``was`` says that something is there, which goes aside."""

    path: str
    was: bool
    mode: int | None = None
    """Of a folder: given back once it has moved, which wants it writable."""


@dataclass(frozen=True)
class Folder:
    """A folder of both trees: what was put into it is in place; its mode and time are set last, and back."""

    path: str
    before: tuple[int, int]
    """Mode, and time of change in nanoseconds."""
    after: tuple[int, int] | None = None
    """Absent where it only leads to what was chosen."""


class Tree:
    """Entries beneath an open folder, reached without following a link; the folder of the last one stays open."""

    def __init__(self, path: Path, flags: int = _FOLDER) -> None:
        self._root = os.open(path, flags)
        self._last: tuple[str, int] = ("", os.dup(self._root))

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._last[1])
        os.close(self._root)

    def at(self, path: str, *, create: bool = False) -> tuple[int, str]:
        """Give the open folder of a path, and its last name.

        :raises OSError: there is no such folder.
        """
        parent, _, name = path.rpartition("/")
        if parent != self._last[0]:
            opened = self._open(parent, create=create)
            os.close(self._last[1])
            self._last = parent, opened
        return self._last[1], name

    def status(self, path: str) -> os.stat_result | None:
        """Look at an entry; ``None`` where there is none."""
        try:
            folder, name = self.at(path)
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, path: str) -> list[str]:
        """List a folder."""
        folder = self._open(path, create=False)
        try:
            return sorted(os.listdir(folder), key=os.fsencode)  # noqa: PTH208 - of an open folder
        finally:
            os.close(folder)

    def set(self, path: str, mode: int, moment: int | None = None) -> None:
        """Give a folder a mode, and a time of change."""
        folder, name = self.at(path)
        os.chmod(name, mode, dir_fd=folder)
        if moment is not None:
            os.utime(name, ns=(moment, moment), dir_fd=folder, follow_symlinks=False)

    def _open(self, path: str, *, create: bool) -> int:
        folder = os.dup(self._root)
        try:
            for part in path.split("/") if path else ():
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, _OWN, dir_fd=folder)
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
        except BaseException:
            os.close(folder)
            raise
        return folder


class Journal:
    """One work folder beneath a root."""

    def __init__(self, root: Path, work: Path) -> None:
        self._root, self.work = root, work
        self.new, self._old, self._gone = (work / each for each in ("new", "old", "gone"))

    @property
    def begun(self) -> bool:
        """Say whether a first step may have been taken."""
        return (self.work / FILE).exists()

    def make(self) -> None:
        """Make the work folder, for what comes."""
        for each in (self.work, self.new, self._old, self._gone):
            each.mkdir(_OWN)

    def plan(self, sets_mode: Callable[[str], bool]) -> None:
        """Compare what comes with what is there, and write every step down.

        ``sets_mode`` says of a folder of both whether it takes the mode of what comes.

        :raises RestoreFailed: something cannot take its place; nothing was touched.
        """
        part = self.work / f"{FILE}.part"
        with (
            part.open("w", encoding="ascii") as file,
            Tree(self._root, _ROOT) as there,
            Tree(self.new) as comes,
        ):
            device = self._root.stat().st_dev
            for step in _steps(there, comes, device, sets_mode):
                file.write(json.dumps({"step": type(step).__name__, **asdict(step)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.rename(self.work / FILE)
        platforms.sync_folder(self.work)

    def mark(self) -> None:
        """Mark the root, where it is not marked already: entries are going to change places."""
        if (self._root / MARKER).exists():
            return
        part = self.work / "marker"
        with part.open("w", encoding="ascii") as file:
            file.write(_TOLD)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._root / MARKER)
        platforms.sync_folder(self._root)

    def forward(self) -> None:
        """Take every step."""
        with Tree(self._root, _ROOT) as there, Tree(self.new) as comes, Tree(self._old) as aside:
            self._open_folders(there)
            for step in self._read():
                if isinstance(step, Entry):
                    _put(step, there, comes, aside)
            for step in self._read():
                if isinstance(step, Folder):
                    there.set(step.path, *(step.after or step.before[:1]))

    def back(self) -> None:
        """Take back every step that was taken."""
        with (
            Tree(self._root, _ROOT) as there,
            Tree(self.new) as comes,
            Tree(self._old) as aside,
            Tree(self._gone) as gone,
        ):
            self._open_folders(there)
            for step in self._read():
                if isinstance(step, Entry):
                    _take_back(step, there, comes, aside, gone)
            for step in self._read():
                if isinstance(step, Folder) and _is_folder(there.status(step.path)):
                    there.set(step.path, *step.before)

    def _open_folders(self, there: Tree) -> None:
        """Let folders be written to while entries move, from the top down; each gets its mode at the end."""
        for step in reversed([each for each in self._read() if isinstance(each, Folder)]):
            status = there.status(step.path)
            if status is not None and stat.S_ISDIR(status.st_mode) and status.st_mode & _OWN != _OWN:
                with suppress(PermissionError):
                    there.set(step.path, stat.S_IMODE(status.st_mode) | _OWN)

    def _read(self) -> Iterator[Entry | Folder]:
        with (self.work / FILE).open(encoding="ascii") as file:
            for line in file:
                yield _step(line)


def _step(line: str) -> Entry | Folder:
    """Read a step; the journal lies where others may write.

    :raises OSError: it is none, or would leave the root.
    """
    try:
        found = json.loads(line)
        path = str(found["path"])
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise ValueError(path)
        if found["step"] == "Entry":
            return Entry(path, bool(found["was"]), found["mode"])
        before, after = (
            found[each] and (int(found[each][0]), int(found[each][1])) for each in ("before", "after")
        )
        return Folder(path, before, after)
    except (ValueError, KeyError, TypeError, IndexError):
        raise OSError(errno.EBADMSG, "its journal cannot be read") from None


def settle(root: Path) -> None:
    """Put right what killed restores and undos left: every entry is led back, what nobody needs is removed.

    :raises OSError: something stands in the way; the root stays marked.
    """
    for word, work, switch in ours(root):
        if word == "restoring":
            journal = Journal(root, work)
            if journal.begun:
                journal.back()
                platforms.sync_file_system(root)
            remove_tree(work.rename(root / f".avalanche-removing-{switch}"))
        elif word == "removing":
            remove_tree(work)
    if is_marked_by_a_switch(root):
        (root / MARKER).unlink()


def ours(root: Path) -> list[tuple[str, Path, str]]:
    """Give (word, path, switch) of the folders that restores made in a root, those that changed last first."""
    found = [
        (match[1], each, match[2])
        for each in root.iterdir()
        if (match := OURS.fullmatch(each.name)) and each.is_dir() and not each.is_symlink()
    ]
    return sorted(found, key=lambda one: -one[1].stat().st_ctime_ns)


def is_marked_by_a_switch(root: Path) -> bool:
    """Say whether the marker is that of entries that were changing places, and not of a restore in place."""
    marker = root / MARKER
    return (
        marker.is_file()
        and not marker.is_symlink()
        and marker.read_text(encoding="utf-8", errors="replace") == _TOLD
    )


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it, also folders in it that their mode protects; nothing where there is none."""

    def open_up(function: Callable[..., object], name: str, _: object) -> None:
        inner = Path(name)
        with suppress(OSError):
            for each in (inner.parent, inner):
                if each.is_relative_to(path) and each.is_dir() and not each.is_symlink():
                    each.chmod(_OWN)
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=open_up)


def _steps(
    there: Tree, comes: Tree, device: int, sets_mode: Callable[[str], bool]
) -> Iterator[Entry | Folder]:
    """Give the steps, without recursion: a tree may be deeper than Python's stack. Folders come after what they hold."""
    stack: list[tuple[str, Iterator[str], Folder | None]] = [("", iter(comes.names("")), None)]
    while stack:
        path, names, folder = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            if folder is not None:
                yield folder
            continue
        here = f"{path}/{name}" if path else name
        if not path and is_ours(name):
            continue
        new, old = comes.status(here), there.status(here)
        if new is None:
            continue
        mode = stat.S_IMODE(new.st_mode)
        if old is not None and stat.S_ISDIR(new.st_mode) and stat.S_ISDIR(old.st_mode):
            _refuse_other_system(here, old, device)
            comes.set(here, mode | _OWN)  # what is in it moves out
            after = (mode, new.st_mtime_ns) if sets_mode(here) else None
            both = Folder(here, (stat.S_IMODE(old.st_mode), old.st_mtime_ns), after)
            stack.append((here, iter(comes.names(here)), both))
        elif old is not None and stat.S_ISDIR(old.st_mode) and (old.st_dev != device or there.names(here)):
            raise RestoreFailed(
                f"{shown(here)} is no folder in the backup, and one that holds something now: move it away",
                reason="FolderInTheWay",
            )
        else:
            protected = stat.S_ISDIR(new.st_mode) and mode & _OWN != _OWN
            yield Entry(here, old is not None, mode if protected else None)


def _is_folder(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISDIR(status.st_mode)


def _refuse_other_system(path: str, old: os.stat_result, device: int) -> None:
    if old.st_dev != device:
        raise RestoreFailed(
            f"{shown(path)} lies on another file system, and nothing can be renamed into it: restore with strategy InPlace",
            reason="AnotherFileSystem",
        )


def _put(step: Entry, there: Tree, comes: Tree, aside: Tree) -> None:
    """Let an entry take its place; a reader of a file sees the old one or the new one."""
    source, name = comes.at(step.path)
    if step.mode is not None:
        os.chmod(name, step.mode | _OWN, dir_fd=source)
    target, _ = there.at(step.path)
    if step.was:
        folder_comes = stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode)
        _set_aside(step.path, there, aside, linked=not folder_comes)
    elif there.status(step.path) is not None:
        raise RestoreFailed(f"{shown(step.path)} was made meanwhile by somebody else", reason="TargetChanged")
    source, name = comes.at(step.path)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    if step.mode is not None:
        os.chmod(name, step.mode, dir_fd=target)


def _set_aside(path: str, there: Tree, aside: Tree, *, linked: bool) -> None:
    """Give what is there a second name, so that it stays until it is replaced; a folder, or what one replaces, moves."""
    status = there.status(path)
    if status is None:
        return  # somebody removed it meanwhile
    source, name = there.at(path)
    target, _ = aside.at(path, create=True)
    if linked and not stat.S_ISDIR(status.st_mode):
        with suppress(OSError):  # no links in this file system, or not to what belongs to others
            os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
            return
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)


def _take_back(step: Entry, there: Tree, comes: Tree, aside: Tree, gone: Tree) -> None:
    if not step.was:
        if comes.status(step.path) is None:
            _discard(step.path, there, gone)
        return
    kept = aside.status(step.path)
    if kept is None:
        return
    now = there.status(step.path)
    if now is not None and (stat.S_ISDIR(now.st_mode) or stat.S_ISDIR(kept.st_mode)):
        _discard(step.path, there, gone)
    source, name = aside.at(step.path)
    target, _ = there.at(step.path, create=True)
    os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
    with suppress(FileNotFoundError):  # renaming one name of a file over another one of it leaves both
        os.unlink(name, dir_fd=source)


def _discard(path: str, there: Tree, gone: Tree) -> None:
    status = there.status(path)
    if status is None:
        return
    source, name = there.at(path)
    if stat.S_ISDIR(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode) | _OWN, dir_fd=source)
    token = secrets.token_hex(8)
    target, _ = gone.at(token)
    os.rename(name, token, src_dir_fd=source, dst_dir_fd=target)
