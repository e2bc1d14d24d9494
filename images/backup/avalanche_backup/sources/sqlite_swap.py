"""Restoring a SQLite database as a file beside it, which then takes its name: the old one or the new one, at every moment.

A file must not be taken from under SQLite: its log would be read into another database. So the old one is emptied into
one file first, which SQLite refuses where somebody has it open in WAL mode, and is locked while the names change. Who has it open otherwise
is told with his next write that the database was moved (``SQLITE_READONLY_DBMOVED``), and opens it anew.
See https://www.sqlite.org/howtocorrupt.html, "unlinking or renaming a database file while in use".
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from avalanche_backup.errors import RestoreFailed
from avalanche_backup.platforms import give_to, sync_folder
from avalanche_backup.sources.base import Incoming, Kept, Proof
from avalanche_backup.sources.sqlite import (
    SIDE_FILES,
    SqliteDatabase,
    journal_mode,
    write_file,
)
from avalanche_backup.sources.sqlite_checks import Explained, check_copy
from avalanche_contract.source import SqliteSource

LOCK_SECONDS = 30
_SWITCH = "[0-9a-f]{8}"


class SqliteSwap:
    """One database file, and the names beside it."""

    kept_bars = False
    suits = suits_empty = False
    """In place it is all or nothing as well, and whoever has it open goes on with it."""

    def __init__(self, request: SqliteSource, switch: str) -> None:
        self._database = SqliteDatabase(request)
        self._place = Path(request.path).resolve()  # a link to the file stays a link
        self._switch_id = switch
        self._new = self._place.with_name(f".{self._place.name}.avalanche-restoring-{switch}")
        self._aside = self._place.with_name(f".{self._place.name}.avalanche-before-{switch}")
        self.target = self._database.target

    def obstacle(self, artifact: Mapping[str, Any], paths: tuple[str, ...]) -> str:
        """Say what a file beside wants: a folder that may be written to, and room."""
        del paths
        needed = int(artifact.get("source_bytes") or 0)
        if problem := self._cannot_write():
            return problem
        free = shutil.disk_usage(self._place.parent).free
        if free < needed:
            return f"its disk has {free:,} bytes free, and a second file takes {needed:,}"
        return ""

    def action(self, artifact: Mapping[str, Any], *, keep: bool) -> str:
        """Say what will be done."""
        del artifact
        kept = f"; the old one stays as {self._aside.name}, for one undo" if keep else ""
        return f"a new file is made beside the database, checked, and takes its name: who has it open must open it anew{kept}"

    def kept(self) -> tuple[Kept, ...]:
        """Give the files that earlier restores kept."""
        pattern = re.compile(rf"\.{re.escape(self._place.name)}\.avalanche-before-({_SWITCH})")
        found = [(each, pattern.fullmatch(each.name)) for each in self._place.parent.iterdir()]
        own = [(each, match[1]) for each, match in found if match and not self._is_the_place(each)]
        return tuple(
            Kept(each.name, switch) for each, switch in sorted(own, key=lambda one: one[0].stat().st_ctime_ns)
        )

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """It is written beside, and opened there."""
        del artifact
        return "None"

    def restore(self, incoming: Incoming, *, keep: bool, index: Iterator[bytes] | None = None) -> str:
        """Write the file beside, check it, and switch."""
        del index
        incoming.refuse_part()
        self._settle()
        try:
            tables = self._make(incoming)
            self._switch(self._new, self._aside if keep else None)
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise RestoreFailed(
                f"no file can be put beside {self.target}: {why}. It is as it was", reason="RestoreRolledBack"
            ) from None
        finally:
            _remove(self._new)
        told = f"; what was there is kept as {self._aside.name}" if keep and self._aside.exists() else ""
        return f"{len(tables)} tables with {sum(tables.values())} rows are back in {self.target}, as a new file{told}"

    def undo_obstacle(self, kept: Kept) -> str:
        """Say what keeps the old file from its name."""
        del kept
        return self._cannot_write()

    def standing(self) -> str:
        """Say what an undo would take away: which file it is, and its tables."""
        status = self._place.stat() if self._place.exists() else None
        names = self._database.inspect_target({}).facts
        return f"{status.st_dev}:{status.st_ino} {names}" if status is not None else "no file"

    def sizes(self, kept: Kept) -> tuple[int, int]:
        """Give the sizes of the two files."""
        now, back = (
            each.stat().st_size if each.exists() else 0
            for each in (self._place, self._place.with_name(kept.name))
        )
        return now, back

    def undo(self, kept: Kept) -> str:
        """Give the name back to the file that was kept."""
        self._settle()
        aside = self._place.with_name(kept.name)
        try:
            self._switch(aside, None)
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise RestoreFailed(
                f"{kept.name} cannot take the name of {self.target}: {why}. It is as it was",
                reason="RestoreRolledBack",
            ) from None
        return f"{self.target} is the file that it was before the restore"

    def _settle(self) -> None:
        """Remove what killed restores left: files beside, and second names of the file that is still in its place."""
        pattern = re.compile(
            rf"\.{re.escape(self._place.name)}\.avalanche-(restoring|before)-{_SWITCH}(-wal|-shm|-journal)?"
        )
        for each in list(self._place.parent.iterdir()):
            match = pattern.fullmatch(each.name)
            if match and (match[1] == "restoring" or self._is_the_place(each)):
                each.unlink(missing_ok=True)

    def _is_the_place(self, path: Path) -> bool:
        return self._place.exists() and path.exists() and self._place.samefile(path)

    def _make(self, incoming: Incoming) -> Mapping[str, int]:
        """Write the new file, check it, and let it be what the old one is: its owner, its mode, its journal."""
        write_file(self._new, incoming.counted())
        with closing(sqlite3.connect(self._new)) as database, Explained("the backup"):
            tables, _ = check_copy(database, "the backup")
        wanted = (incoming.artifact.get("statistics") or {}).get("tables")
        if wanted is not None and dict(wanted) != dict(tables):
            raise RestoreFailed(
                f"the rows are not those that the metadata counts; {self.target} is as it was",
                reason="RestoreRolledBack",
            )
        before = self._place.stat() if self._place.exists() else None
        if before is not None:
            give_to(self._new, before)
        self._new.chmod(before.st_mode & 0o777 if before is not None else 0o660)
        return tables

    def _switch(self, new: Path, aside: Path | None) -> None:
        """Let a file take the name; the one that had it gets another name before, or none."""
        with self._closed() as mode:
            if mode == "wal":
                _set_mode(new, mode)
            _sync(new)
            if aside is not None and self._place.exists():
                _second_name(self._place, aside)
            if mode is None:
                self._clear_logs()
            new.replace(self._place)
            sync_folder(self._place.parent)
        if aside is not None and mode == "wal":
            with suppress(sqlite3.Error):  # of the one that is kept: it may be opened where it lies
                _set_mode(aside, mode)

    @contextmanager
    def _closed(self) -> Iterator[str | None]:
        """Have the database for ourselves, all of it in its one file; give its journal mode, or ``None`` where it is none.

        :raises RestoreRefused: somebody has it open, or works in it.
        """
        if not self._database.is_healthy():
            yield None
            return
        with closing(self._database.open()) as live, journal_mode(live) as mode:
            try:
                if mode == "wal" and live.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete":
                    raise sqlite3.OperationalError("another process has it open")
                live.execute("BEGIN EXCLUSIVE")
            except sqlite3.Error as error:
                raise self._database.busy(str(error)) from None
            try:
                yield mode
            finally:
                live.execute("ROLLBACK")

    def _clear_logs(self) -> None:
        """Take the logs of a damaged file away before another takes its name: they would be read into that one."""
        for ending in SIDE_FILES:
            self._place.with_name(self._place.name + ending).unlink(missing_ok=True)

    def _cannot_write(self) -> str:
        if not os.access(self._place.parent, os.W_OK | os.X_OK):
            return "its folder cannot be written to, and a new file lies beside the old one"
        return ""


def _set_mode(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA journal_mode = {mode}")


def _second_name(path: Path, name: Path) -> None:
    """Give a file a second name, or a copy of it where the file system knows no links."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:
        part = name.with_name(f"{name.name}.part")
        try:
            shutil.copy2(path, part)
            _sync(part)
            part.replace(name)
        finally:
            part.unlink(missing_ok=True)


def _remove(path: Path) -> None:
    for ending in ("", *SIDE_FILES):
        with suppress(OSError):
            path.with_name(path.name + ending).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
