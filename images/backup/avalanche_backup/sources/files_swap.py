"""Restoring files beside their places and letting them take those entry by entry: all of them, or none.

What the result is does not differ from a restore in place: files of the same name are replaced, others stay. While entries
change places, the marker of an unfinished restore lies in the root, so that no backup captures old and new together;
after a kill the next restore or undo leads every entry back (:mod:`journal`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from tarfile import TarInfo
from typing import Any

from avalanche_backup import platforms
from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, VerificationFailed
from avalanche_backup.sources import attributes
from avalanche_backup.sources.base import Incoming, Kept, Proof
from avalanche_backup.sources.entries import Stream
from avalanche_backup.sources.extract import Extracted, chosen, extract
from avalanche_backup.sources.files import FileTree, settle_before
from avalanche_backup.sources.index import IndexInvalid, Listed, entries
from avalanche_backup.sources.journal import Journal, is_marked_by_a_switch, ours, settle, working_in
from avalanche_backup.sources.owning import came_back
from avalanche_backup.sources.reaching import remove_tree
from avalanche_backup.sources.tree import MARKER, minimal, shown
from avalanche_contract.source import FilesSource, Preserve


class FilesSwap:
    """Files beneath one root, and the hidden folders in it."""

    kept_bars = True
    suits = True
    suits_empty = True  # the copy lies where it would go anyway, and is read once

    def __init__(self, request: FilesSource, switch: str) -> None:
        self._request = request
        self._root = Path(request.root)
        self._paths = request.paths
        self._preserve = request.preserve or Preserve()
        self._switch_id = switch
        self.target = request.described or request.root

    def obstacle(self, artifact: Mapping[str, Any], paths: tuple[str, ...]) -> str:
        """Say what a second copy in the same file system wants: room, and that it is one file system."""
        if not os.access(self._root, os.W_OK | os.X_OK):
            return "its folder cannot be written to, and the copy lies in it"
        device = self._root.stat().st_dev
        for path in minimal(self._paths):
            place = self._root / path
            if place.exists() and place.stat().st_dev != device:
                return f"{shown(path)} lies on another file system than the folder"
        free, needed = shutil.disk_usage(self._root).free, int(artifact.get("source_bytes") or 0)
        if not paths and free < needed:
            return f"its disk has {free:,} bytes free, and a second copy takes {needed:,}"
        return ""

    def action(self, artifact: Mapping[str, Any], *, keep: bool) -> str:
        """Say what will be done."""
        del artifact
        kept = f"; what was replaced stays in {self._folder('previous').name}, for one undo" if keep else ""
        return (
            "the files are written beside their places, compared with the index, and then take their places, all of them or "
            f"none; files of the same name are replaced, other files stay{kept}"
        )

    def kept(self) -> tuple[Kept, ...]:
        """Give the folders in which earlier restores kept what they replaced; one whose undo was killed as well."""
        return tuple(Kept(each.name, switch, unfinished=word == "restoring") for word, each, switch in ours(self._root)
                     if word == "previous" or (word == "restoring" and self._journal(each).begun))  # fmt: skip

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """Nothing takes its place before all of it lies beside."""
        del artifact
        return "None"

    def restore(self, incoming: Incoming, *, keep: bool, index: Iterator[bytes] | None = None) -> str:
        """Write beside, compare, and switch."""
        with working_in(self._root, self.target):
            settle_before(self._root, self.target)
            journal = self._journal(self._folder("restoring"))
            try:
                journal.make()
                done = self._write(journal, incoming, index)
                self._switch(journal, incoming.paths, "previous" if keep else "removing")
            except (Failure, OSError) as error:
                raise self._untouched(error) from None
            finally:
                if not journal.begun:
                    remove_tree(journal.work)
            told = self._tidied(unmark=not incoming.paths)
        kept = f"; what was replaced is kept in {self._folder('previous').name}" if keep else ""
        return (
            f"{done.files} files, {done.directories} folders and {done.links} links are back in {self.target}, all at once, "
            f"{came_back(self._preserve, done.withheld)}{kept}{told}"
        )

    def undo_obstacle(self, kept: Kept) -> str:
        """Say what keeps the old files from their places."""
        del kept
        return "" if os.access(self._root, os.W_OK | os.X_OK) else "its folder cannot be written to"

    def standing(self) -> str:
        """Say what an undo would take away, by the names at the top."""
        return " ".join(FileTree(self._request).inspect_target({}).facts)

    def sizes(self, kept: Kept) -> tuple[int, int]:
        """Every file would have to be looked at."""
        del kept
        return 0, 0

    def undo(self, kept: Kept) -> str:
        """Lead every entry back."""
        with working_in(self._root, self.target):
            work = self._root / kept.name
            try:
                if not kept.unfinished:
                    self._journal(work).mark()
                    work.rename(self._root / f".avalanche-restoring-{kept.switch}")
                    platforms.sync_folder(self._root)
                settle(self._root)
            except OSError as error:
                raise RestoreFailed(
                    f"{self.target} could not be led back wholly: {error.strerror}. It is marked by {MARKER}; mend that, and undo again",
                    reason="RestoreIncomplete",
                ) from None
        return f"{self.target} is what it was before the restore"

    def _write(self, journal: Journal, incoming: Incoming, index: Iterator[bytes] | None) -> Extracted:
        """Write beside, and compare what comes back with the counts of the metadata, and each entry with its line of the index."""
        listed = _Listed(index, incoming.paths) if index is not None else None
        root = os.open(journal.new, os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC)
        try:
            done = extract(
                Stream(incoming.counted()),
                root,
                incoming.paths,
                listed.compare if listed is not None else None,
                preserve=self._preserve,
            )
        finally:
            os.close(root)
        paths = incoming.paths
        if paths and not done.files + done.links + done.directories:
            raise RestoreRefused(f"the backup holds nothing at {', '.join(paths)}", reason="PathsNotFound")
        wanted = (incoming.artifact.get("statistics") or {}).get("files")
        if not paths and wanted is not None and done.files != wanted:
            raise RestoreFailed(f"{done.files} files came back, the metadata counts {wanted}")
        if listed is not None:
            listed.end()
        return done

    def _switch(self, journal: Journal, paths: tuple[str, ...], word: str) -> None:
        """Let every entry take its place; where that fails, each is led back."""
        journal.mark()
        try:
            journal.plan(lambda path: chosen(path, paths), self._preserve)
            journal.forward()
            self._commit(journal, word)
        except BaseException:
            settle(self._root)
            raise

    def _commit(self, journal: Journal, word: str) -> None:
        """Say that it is done: by the one rename after which nothing leads back unasked."""
        platforms.sync_file_system(self._root)
        journal.work.rename(self._folder(word))

    def _tidied(self, *, unmark: bool) -> str:
        """Take the mark away and remove what nobody needs; say what stands in the way of that."""
        try:
            platforms.sync_folder(self._root)
            # A part makes nothing whole that was left unfinished before.
            if unmark or is_marked_by_a_switch(self._root):
                (self._root / MARKER).unlink(missing_ok=True)
        except OSError as error:
            return f"; {MARKER} could not be removed ({error.strerror}): remove it, or no backup is made"
        remove_tree(self._folder("removing"))
        return ""

    def _untouched(self, error: Exception) -> Failure:
        said = (
            error.message if isinstance(error, Failure) else (getattr(error, "strerror", None) or str(error))
        )
        if isinstance(error, RestoreRefused):
            return error
        reason = error.reason if isinstance(error, Failure) else "RestoreRolledBack"
        state = (
            f"is marked by {MARKER}: restore again" if is_marked_by_a_switch(self._root) else "is as it was"
        )
        return RestoreFailed(f"{said}; {self.target} {state}", reason=reason)

    def _folder(self, word: str) -> Path:
        return self._root / f".avalanche-{word}-{self._switch_id}"

    def _journal(self, work: Path) -> Journal:
        return Journal(self._root, work)


class _Listed:
    """The lines of an index, beside the entries of the archive, which come in the same order."""

    def __init__(self, index: Iterator[bytes], paths: tuple[str, ...]) -> None:
        self._lines = (each for each in entries(index) if chosen(each.path, paths))

    def compare(self, entry: TarInfo, sha256: str | None) -> None:
        """Compare what was written with the next line."""
        listed = self._next()
        if listed is None or (listed.path, listed.kind) != (entry.name, _kind(entry)):
            raise VerificationFailed(f"{shown(entry.name)} is not what the index says", reason="IndexDiffers")
        if listed.kind == "file" and (listed.size != entry.size or listed.sha256 not in (None, sha256)):
            raise VerificationFailed(
                f"{shown(entry.name)} is not what the index says: its size or its SHA-256 is another",
                reason="IndexDiffers",
            )
        if listed.attributes_sha256 != attributes.digest(attributes.of_entry(entry)):
            raise VerificationFailed(
                f"{shown(entry.name)} is not what the index says: its attributes are others",
                reason="IndexDiffers",
            )

    def end(self) -> None:
        """Check that nothing is missing."""
        if (missing := self._next()) is not None:
            raise VerificationFailed(
                f"{shown(missing.path)} of the index did not come back", reason="IndexDiffers"
            )

    def _next(self) -> Listed | None:
        try:
            return next(self._lines, None)
        except IndexInvalid as error:
            raise VerificationFailed(str(error), reason="IndexDiffers") from None


def _kind(entry: TarInfo) -> str:
    if entry.isdir():
        return "directory"
    return "symlink" if entry.issym() else "hardlink" if entry.islnk() else "file"
