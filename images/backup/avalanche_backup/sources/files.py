"""Folders and files as a source: a PAX tar with an index of every entry, and back beneath a root."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avalanche_backup import platforms
from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid, VerificationFailed
from avalanche_backup.sources.archive import Archive
from avalanche_backup.sources.base import (
    Beside,
    Dump,
    Incoming,
    Inspection,
    ProgressHook,
    Proof,
    Sink,
    TargetState,
)
from avalanche_backup.sources.entries import Stream
from avalanche_backup.sources.extract import extract
from avalanche_backup.sources.journal import settle, working_in
from avalanche_backup.sources.owning import came_back, give
from avalanche_backup.sources.reaching import ROOT, Tree
from avalanche_backup.sources.tree import MARKER, Selection, is_ours, minimal, shown, unreadable, walk
from avalanche_contract.source import FilesSource, Preserve

NAMES_MAX = 100
LOST_AND_FOUND = "lost+found"
"""What a new file system of Linux holds: no data."""
_SOMEBODY = (1, 1)
"""Whoever that is: somebody else than root."""


class FileTree:
    """Folders and files beneath one root."""

    kind = "files"
    extension = ".tar"
    format = ""
    beside: Beside | None = Beside("index", "_index.ndjson")

    def __init__(self, request: FilesSource) -> None:
        self.name = request.name
        self._root = Path(request.root)
        self._selection = Selection(request.root, request.paths, request.exclude, request.one_file_system)
        self._preserve = request.preserve or Preserve()
        self.target = request.described or request.root
        self.selection: Mapping[str, Any] = {
            "paths": sorted(minimal(request.paths)),
            "exclude": sorted(request.exclude),
            "oneFileSystem": request.one_file_system,
        }

    def inspect(self, *, estimate: bool = True) -> Inspection:
        """Check that everything that was asked for is there, and whether it holds a file; an estimate walks the whole tree."""
        self._check_root()
        files, size = self._measure() if estimate else (int(self._holds_a_file()), None)
        return Inspection("files", size, empty="" if files else self._nothing())

    def _nothing(self) -> str:
        paths = ", ".join(self._selection.paths)
        return (
            f"{self.target} holds no file in {paths}: nothing is not backed up; is the right volume mounted?"
        )

    def _measure(self) -> tuple[int, int]:
        """Count what is not a folder, and its bytes in an archive."""
        files, size = 0, 0
        for found in walk(self._selection):
            if not stat.S_ISDIR(found.status.st_mode):
                files += 1
                size += found.status.st_size + 1024
        return files, size

    def _holds_a_file(self) -> bool:
        """Go into each path as far as its first file: a hundred million of them are not walked every hour."""
        holds = False
        for path in minimal(self._selection.paths):
            for found in walk(replace(self._selection, paths=(path,))):
                holds = holds or not stat.S_ISDIR(found.status.st_mode)
                if holds and (path in (".", found.path) or found.path.startswith(f"{path}/")):
                    break
        return holds

    def dump(self, sink: Sink, *, beside: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Write the archive and its index."""
        del scratch
        self._check_root()
        moment = datetime.now(UTC)
        archive = Archive(sink, beside, progress, holds_attributes=self._preserve.extended_attributes)
        top: dict[str, None] = {}
        for found in walk(self._selection, archive.written.went_away):
            archive.add(found)
            if len(top) < NAMES_MAX and found.path.count("/") <= 0:
                top[shown(found.path).strip("'\"")] = None
        written = archive.finish()
        return Dump(
            moment, written.statistics(), recreate={"paths": list(self._selection.paths), **_preserving(self._preserve)},
            warnings=tuple(written.warnings), files_included=tuple(top),
            empty="" if written.files + written.links else self._nothing(),
        )  # fmt: skip

    def inspect_target(self, artifact: Mapping[str, Any]) -> TargetState:
        """See what lies where files would go."""
        del artifact
        if not self._root.is_dir():
            raise RestoreRefused(f"there is no folder at {self.target}", reason="TargetMissing")
        count, fact = 0, 0
        try:
            for name in self._top_names():  # counted and hashed in any order: there may be millions
                count += 1
                fact ^= int.from_bytes(hashlib.sha256(os.fsencode(name)).digest())
        except OSError as error:
            raise RestoreRefused(
                f"{self.target} cannot be read: {error.strerror}", reason="TargetUnreadable"
            ) from None
        if not count:
            return TargetState("Empty", "an empty folder")
        return TargetState(
            "HoldsData", f"{count} files and folders at the top", (f"{count} names {fact:064x}",)
        )

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """Each file takes its place as it comes."""
        del artifact
        return "Decoded"

    def restore(self, incoming: Incoming) -> str:
        """Put files back; a marker lies in the root from the first write to the last."""
        with working_in(self._root, self.target):
            return self._restore(incoming)

    def _restore(self, incoming: Incoming) -> str:
        settle_before(self._root, self.target)
        marker, paths = self._root / MARKER, incoming.paths
        was_marked = marker.exists()
        stream = Stream(incoming.counted())
        try:
            _mark(marker)
        except OSError as error:
            raise RestoreRefused(
                f"{self.target} cannot be written: {error.strerror}", reason="TargetReadOnly"
            ) from None
        if self._preserve.ownership:
            _rehearse(marker, was_marked=was_marked)
        root = os.open(self._root, os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC)
        try:
            done = extract(stream, root, paths, preserve=self._preserve)
            self._compare(done.files, incoming)
        except Failure as failure:
            reason = "RestoreFailed" if isinstance(failure, VerificationFailed) else failure.reason
            raise RestoreFailed(
                f"{failure.message}; {self.target} is marked by {MARKER}", reason=reason
            ) from None
        finally:
            os.close(root)
        if not (paths and was_marked):  # a part does not make whole what an earlier restore left unfinished
            marker.unlink()
        if paths and not done.files + done.links + done.directories:
            _remove_empty(self._root, done.folders)
            raise RestoreRefused(f"the backup holds nothing at {', '.join(paths)}", reason="PathsNotFound")
        return (
            f"{done.files} files, {done.directories} folders and {done.links} links are back in {self.target}, "
            f"{came_back(self._preserve, done.withheld)}"
        )

    def _compare(self, files: int, incoming: Incoming) -> None:
        wanted = (incoming.artifact.get("statistics") or {}).get("files")
        if not incoming.paths and wanted is not None and files != wanted:
            raise RestoreFailed(f"{files} files came back, the metadata counts {wanted}")

    def _check_root(self) -> None:
        if not self._root.is_dir():
            raise SourceInvalid(
                f"there is no folder at {self.target}; is the volume mounted?", reason="SourceMissing"
            )
        try:
            marked = (self._root / MARKER).exists()
        except OSError as error:
            raise unreadable(".", error) from None
        if marked:
            raise SourceInvalid(
                f"{self.target} holds {MARKER}: a restore into it did not end; restore again, or remove that file",
                reason="RestoreIncomplete",
            )

    def _top_names(self) -> Iterator[str]:
        """Give the names at the top of each path that a restore would write to."""
        for path in minimal(self._selection.paths):
            folder = self._root / path
            with suppress(FileNotFoundError, NotADirectoryError):
                for each in folder.iterdir():
                    if not (is_ours(each.name) or (path == "." and each.name == LOST_AND_FOUND)):
                        yield each.name if path == "." else f"{path}/{each.name}"


def _remove_empty(root: Path, folders: Iterable[str]) -> None:
    """Remove folders that were made on the way to what is not in the backup; one that somebody uses stays."""
    with Tree(root, ROOT) as tree:
        for path in sorted(folders, reverse=True):
            with suppress(OSError):
                folder, name = tree.at(path)
                os.rmdir(name, dir_fd=folder)


def _preserving(preserve: Preserve) -> dict[str, dict[str, bool]]:
    """Say in the metadata what matters besides contents, modes and times, and is held."""
    return {"preserve": preserve.model_dump(by_alias=True)} if preserve != Preserve() else {}


def settle_before(root: Path, target: str) -> None:
    """Put right what killed restores left in a target, before another one.

    :raises RestoreRefused: something stands in the way.
    """
    try:
        settle(root)
    except OSError as error:
        raise RestoreRefused(
            f"{target}: what a killed restore left cannot be put right: {error.strerror}",
            reason="TargetReadOnly",
        ) from None


def _mark(marker: Path) -> None:
    """Leave a marker; a link that the target's owner put in its place is not followed."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | platforms.O_NOFOLLOW | platforms.O_CLOEXEC
    with os.fdopen(os.open(marker, flags, 0o644), "w") as file:
        file.write("A restore into this folder did not end. Restore again, or remove this file.\n")


def _rehearse(marker: Path, *, was_marked: bool) -> None:
    """Find out by the marker whether files can be given away here, before anything else is touched.

    :raises RestoreRefused: they cannot.
    """
    descriptor = os.open(marker, os.O_WRONLY | platforms.O_NOFOLLOW | platforms.O_CLOEXEC)
    try:
        own = os.fstat(descriptor)
        give(descriptor, _SOMEBODY, marker.name)
        give(descriptor, (own.st_uid, own.st_gid), marker.name)
    except RestoreFailed as failure:
        if not was_marked:
            marker.unlink()
        raise RestoreRefused(f"{failure.message}. The target is untouched", reason=failure.reason) from None
    finally:
        os.close(descriptor)
