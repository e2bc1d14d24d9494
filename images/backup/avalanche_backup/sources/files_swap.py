"""Restoring files beside their places and letting them take those entry by entry: all of them, or none.

What the result is does not differ from a restore in place: files of the same name are replaced, others stay. While entries
change places, the marker of an unfinished restore lies in the root, so that no backup captures old and new together;
after a kill the next restore or undo leads every entry back (:mod:`journal`).
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avalanche_backup import platforms
from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, VerificationFailed
from avalanche_backup.sources.base import Incoming, Kept, Proof
from avalanche_backup.sources.extract import Extracted, Stream, chosen, extract
from avalanche_backup.sources.journal import (
    Journal,
    Tree,
    is_marked_by_a_switch,
    ours,
    remove_tree,
    settle,
)
from avalanche_backup.sources.tree import MARKER, minimal, shown
from avalanche_contract.source import FilesSource

_KINDS = {"file": stat.S_ISREG, "hardlink": stat.S_ISREG, "directory": stat.S_ISDIR, "symlink": stat.S_ISLNK}


class FilesSwap:
    """Files beneath one root, and the hidden folders in it."""

    kept_bars = True
    suits = True

    def __init__(self, request: FilesSource, switch: str) -> None:
        self._root = Path(request.root)
        self._paths = request.paths
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
        settle(self._root)
        journal = self._journal(self._folder("restoring"))
        try:
            journal.make()
            done = self._write(journal, incoming)
            self._compare(journal, done, incoming, index)
            self._switch(journal, incoming.paths)
        except (Failure, OSError) as error:
            raise self._untouched(error) from None
        finally:
            if not journal.begun:
                remove_tree(journal.work)
        self._commit(journal, "previous" if keep else "removing", unmark=not incoming.paths)
        kept = f"; what was replaced is kept in {self._folder('previous').name}" if keep else ""
        return (
            f"{done.files} files, {done.directories} folders and {done.links} links are back in {self.target}, all at once, owned "
            f"by the user of the restore; ACLs and extended attributes are not part of a backup{kept}"
        )

    def undo_obstacle(self, kept: Kept) -> str:
        """Say what keeps the old files from their places."""
        del kept
        return "" if os.access(self._root, os.W_OK | os.X_OK) else "its folder cannot be written to"

    def undo(self, kept: Kept) -> str:
        """Lead every entry back."""
        work = self._root / kept.name
        if not kept.unfinished:
            self._journal(work).mark()
            work.rename(self._root / f".avalanche-restoring-{kept.switch}")
            platforms.sync_folder(self._root)
        try:
            settle(self._root)
        except OSError as error:
            raise RestoreFailed(
                f"{self.target} could not be led back wholly: {error.strerror}. It is marked by {MARKER}; mend that, and undo again",
                reason="RestoreIncomplete",
            ) from None
        return f"{self.target} is what it was before the restore"

    def _write(self, journal: Journal, incoming: Incoming) -> Extracted:
        root = os.open(journal.new, os.O_RDONLY | platforms.O_DIRECTORY | platforms.O_CLOEXEC)
        try:
            return extract(Stream(incoming.counted()), root, incoming.paths)
        finally:
            os.close(root)

    def _compare(
        self, journal: Journal, done: Extracted, incoming: Incoming, index: Iterator[bytes] | None
    ) -> None:
        """Compare what came back with the counts of the metadata, and each entry with its line of the index."""
        paths = incoming.paths
        written = done.files + done.links + done.directories
        if paths and not written:
            raise RestoreRefused(f"the backup holds nothing at {', '.join(paths)}", reason="PathsNotFound")
        wanted = (incoming.artifact.get("statistics") or {}).get("files")
        if not paths and wanted is not None and done.files != wanted:
            raise RestoreFailed(f"{done.files} files came back, the metadata counts {wanted}")
        if index is None:
            return
        listed = 0
        with Tree(journal.new) as comes:
            for entry in _entries(index):
                if chosen(entry["path"], paths):
                    _check(entry, comes)
                    listed += 1
        if listed != written:
            raise VerificationFailed(
                f"{written} entries came back, the index lists {listed}", reason="IndexDiffers"
            )

    def _switch(self, journal: Journal, paths: tuple[str, ...]) -> None:
        journal.mark()
        try:
            journal.plan(lambda path: chosen(path, paths))
            journal.forward()
        except BaseException:
            settle(self._root)
            raise

    def _commit(self, journal: Journal, word: str, *, unmark: bool) -> None:
        """Say that it is done: by the one rename after which nothing leads back unasked."""
        platforms.sync_file_system(self._root)
        done = journal.work.rename(self._folder(word))
        platforms.sync_folder(self._root)
        if unmark or is_marked_by_a_switch(
            self._root
        ):  # a part makes nothing whole that was left unfinished before
            (self._root / MARKER).unlink(missing_ok=True)
        if word == "removing":
            remove_tree(done)

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


def _entries(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Read the lines of an index.

    :raises VerificationFailed: it is none.
    """
    rest = b""
    try:
        for chunk in lines:
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                entry = json.loads(line)
                if "path_base64" in entry:
                    entry["path"] = os.fsdecode(b64decode(entry["path_base64"]))
                yield entry
    except (ValueError, KeyError, TypeError):
        raise VerificationFailed("the index of the files cannot be read", reason="IndexDiffers") from None


def _check(entry: Mapping[str, Any], comes: Tree) -> None:
    found = comes.status(entry["path"])
    known = found is not None and _KINDS.get(entry["type"], stat.S_ISREG)(found.st_mode)
    if not known or (found is not None and entry["type"] == "file" and found.st_size != entry["size"]):
        raise VerificationFailed(f"{shown(entry['path'])} is not what the index says", reason="IndexDiffers")
