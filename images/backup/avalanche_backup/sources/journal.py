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
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed, RestoreRefused
from avalanche_backup.sources.look import Look, look_at, parse_look
from avalanche_backup.sources.reaching import OWN, ROOT, Tree, remove_tree
from avalanche_backup.sources.tree import MARKER, OURS, is_ours, shown
from avalanche_contract.source import Preserve

FILE = "journal"
_NOBODY = 65534
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
    before: Look
    after: Look | None = None
    """Absent where it only leads to what was chosen."""


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
            each.mkdir(OWN)

    def plan(self, sets_mode: Callable[[str], bool], preserve: Preserve) -> None:
        """Compare what comes with what is there, and write every step down.

        ``sets_mode`` says of a folder of both whether it takes the mode of what comes, and what else is ``preserve``d.

        :raises RestoreFailed: something cannot take its place; nothing was touched.
        """
        part = self.work / f"{FILE}.part"
        with (
            part.open("w", encoding="ascii") as file,
            Tree(self._root, ROOT) as there,
            Tree(self.new) as comes,
        ):
            device = self._root.stat().st_dev
            for step in _steps(there, comes, _Both(device, sets_mode, preserve)):
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
        with Tree(self._root, ROOT) as there, Tree(self.new) as comes, Tree(self._old) as aside:
            self._open_folders(there)
            for step in self._read():
                if isinstance(step, Entry):
                    _put(step, there, comes, aside)
            for step in self._read():
                if isinstance(step, Folder):
                    if step.after is not None:
                        step.after.give(there, step.path)
                    else:
                        there.set(step.path, step.before.mode)

    def back(self) -> None:
        """Take back every step that was taken."""
        with (
            Tree(self._root, ROOT) as there,
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
                    step.before.give(there, step.path)

    @property
    def is_readable(self) -> bool:
        """Say whether every step can be read."""
        with suppress(OSError):
            return all(True for _ in self._read())
        return False

    def _open_folders(self, there: Tree) -> None:
        """Let folders be written to while entries move, from the top down; each gets its mode at the end."""
        for step in reversed([each for each in self._read() if isinstance(each, Folder)]):
            status = there.status(step.path)
            if status is not None and stat.S_ISDIR(status.st_mode) and status.st_mode & OWN != OWN:
                with suppress(PermissionError):
                    there.set(step.path, stat.S_IMODE(status.st_mode) | OWN)

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
        after = parse_look(found["after"]) if found["after"] else None
        return Folder(path, parse_look(found["before"]), after)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise OSError(errno.EBADMSG, "its journal cannot be read") from None


@contextmanager
def working_in(root: Path, target: str) -> Iterator[None]:
    """Keep every other restore and undo out of a root, as long as this process lives; where its file system knows no locks, none.

    :raises RestoreRefused: another one works there.
    """
    import fcntl  # noqa: PLC0415 - files are restored where there are descriptors of folders, which Windows has not

    try:
        descriptor = os.open(root, ROOT)
    except OSError as error:
        raise RestoreRefused(
            f"{target} cannot be read: {error.strerror}", reason="TargetUnreadable"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RestoreRefused(
                f"another restore is working in {target}: wait until it has ended", reason="TargetBusy"
            ) from None
        except OSError:  # NFS locks no folders
            pass
        yield
    finally:
        os.close(descriptor)


def settle(root: Path) -> None:
    """Put right what killed restores and undos left: every entry is led back, what nobody needs is removed.

    What another user left, and we cannot read or did not write, stays; so does the mark, until all is restored anew.

    :raises OSError: something stands in the way; the root stays marked.
    """
    left = _strangers(root)
    for word, work, switch in ours(root):
        if word == "restoring":
            journal = Journal(root, work)
            if journal.begun and not (_is_own(work) or journal.is_readable):
                left.append(work)
                continue
            if journal.begun:
                journal.back()
                platforms.sync_file_system(root)
            remove_tree(work.rename(root / f".avalanche-removing-{switch}"))
        elif word == "removing":
            remove_tree(work)
    if is_marked_by_a_switch(root) and not left:
        (root / MARKER).unlink()


def ours(root: Path) -> list[tuple[str, Path, str]]:
    """Give (word, path, switch) of the folders that restores of ours made in a root, those that changed last first."""
    found = [each for each in _named_so(root) if _is_usable(each[1])]
    return sorted(found, key=lambda one: -one[1].lstat().st_ctime_ns)


def _strangers(root: Path) -> list[Path]:
    """Give the folders in which others may have been changing entries when they were killed."""
    return [path for word, path, _ in _named_so(root) if word == "restoring" and not _is_usable(path)]


def _named_so(root: Path) -> list[tuple[str, Path, str]]:
    return [
        (match[1], each, match[2])
        for each in root.iterdir()
        if (match := OURS.fullmatch(each.name)) and each.is_dir() and not each.is_symlink()
    ]


def _is_own(path: Path) -> bool:
    return path.lstat().st_uid == os.geteuid()


def _is_usable(path: Path) -> bool:
    """Say whether a folder is our own, or as good: some file systems (SMB, NFS) give all that is made there to one user.

    Root may enter everybody's; of those only what NFS makes of root is its own.
    """
    if os.geteuid() == 0:
        return path.lstat().st_uid in (0, _NOBODY)
    return _is_own(path) or os.access(path, os.R_OK | os.W_OK | os.X_OK)


def is_marked_by_a_switch(root: Path) -> bool:
    """Say whether the marker is that of entries that were changing places, and not of a restore in place."""
    marker = root / MARKER
    return (
        marker.is_file()
        and not marker.is_symlink()
        and marker.read_text(encoding="utf-8", errors="replace") == _TOLD
    )


@dataclass(frozen=True)
class _Both:
    """What is asked of folders that are in both trees."""

    device: int
    sets_mode: Callable[[str], bool]
    preserve: Preserve


def _steps(there: Tree, comes: Tree, both: _Both) -> Iterator[Entry | Folder]:
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
            _refuse_other_system(here, old, both.device)
            after = look_at(comes, here, new, both.preserve) if both.sets_mode(here) else None
            comes.set(here, mode | OWN)  # what is in it moves out
            stack.append(
                (here, iter(comes.names(here)), Folder(here, look_at(there, here, old, both.preserve), after))
            )
        elif (
            old is not None and stat.S_ISDIR(old.st_mode) and (old.st_dev != both.device or there.names(here))
        ):
            raise RestoreFailed(
                f"{shown(here)} is no folder in the backup, and one that holds something now: move it away",
                reason="FolderInTheWay",
            )
        else:
            protected = stat.S_ISDIR(new.st_mode) and mode & OWN != OWN
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
        os.chmod(name, step.mode | OWN, dir_fd=source)
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
        os.chmod(name, stat.S_IMODE(status.st_mode) | OWN, dir_fd=source)
    token = secrets.token_hex(8)
    target, _ = gone.at(token)
    os.rename(name, token, src_dir_fd=source, dst_dir_fd=target)
