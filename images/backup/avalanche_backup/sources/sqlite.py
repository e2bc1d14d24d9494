"""One SQLite database as a source, by the online backup API: never a copy of the file, which could be torn.

The copy is checked before it is believed. A restore writes through the same API into a live database, so that
whoever has it open sees the old content or the new one; only where there is no database to write into is a file put in place.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.base import Dump, Inspection, ProgressHook, Sink, TargetState
from avalanche_contract.request import SqliteSource

CHUNK = 1024 * 1024
BUSY_SECONDS = 30.0
STEP_PAGES = 2048
STEPS_BEFORE_ONE = 4
"""A database that is written to starts a stepwise backup over; after so many times it is copied in one step."""
_SIDE_FILES = ("-wal", "-shm", "-journal")
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"


class SqliteDatabase:
    """One database file."""

    kind = "sqlite"
    extension = ".sqlite"

    def __init__(self, request: SqliteSource) -> None:
        self.name = request.name
        self._path = Path(request.path)
        self.target = request.path

    def inspect(self) -> Inspection:
        """Open the database, and see that it has a table."""
        if not self._path.is_file():
            raise SourceInvalid(f"there is no SQLite database {self.target}", reason="SourceMissing")
        with closing(self._open()) as database, _Explained(self.target):
            if not _tables(database):
                raise SourceInvalid(
                    f"{self.target} has no table: an empty database is not backed up", reason="SourceEmpty"
                )
        return Inspection(f"SQLite {sqlite3.sqlite_version}", self._path.stat().st_size)

    def dump(self, sink: Sink, *, index: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Copy the database as it is at one moment, check the copy, and write it out."""
        del index
        copy = scratch / "copy.sqlite"
        copy.unlink(missing_ok=True)
        moment = datetime.now(UTC)
        with (
            closing(self._open()) as database,
            closing(sqlite3.connect(copy)) as target,
            _Explained(self.target),
        ):
            _copy(database, target)
            statistics = {"tables": _check(target, self.target)}
            target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        with copy.open("rb") as file:
            done = 0
            while chunk := file.read(CHUNK):
                sink.write(chunk)
                done += len(chunk)
                progress(done)
        copy.unlink()
        return Dump(moment, statistics, {"sqlite": sqlite3.sqlite_version}, files_included=(self._path.name,))

    def inspect_target(self) -> TargetState:
        """See whether there is a database, and what is in it."""
        if not self._path.parent.is_dir():
            raise RestoreRefused(f"the folder of {self.target} does not exist", reason="TargetMissing")
        if not self._path.exists():
            return TargetState("Absent", "no file")
        if self._path.stat().st_size == 0:
            return TargetState("Empty", "an empty file")
        try:
            with closing(self._open()) as database, _Explained(self.target):
                tables = _tables(database)
        except SourceInvalid:
            return TargetState("HoldsData", "a file that is no healthy SQLite database", facts=("damaged",))
        if not tables:
            return TargetState("Empty", "a database without tables")
        return TargetState(
            "HoldsData",
            f"a database with {len(tables)} tables",
            tuple(f"table:{each}" for each in tables[:500]),
        )

    def restore(
        self,
        chunks: Iterator[bytes],
        *,
        artifact: Mapping[str, Any],
        paths: tuple[str, ...],
        scratch: Path,
        progress: ProgressHook,
    ) -> str:
        """Bring a backup back: into the live database, or as a new file where there is none."""
        if paths:
            raise RestoreRefused(
                "paths choose a part of files; a database comes back whole", reason="PathsNotFound"
            )
        copy = scratch / "restored.sqlite"
        try:
            _write(copy, chunks, progress)
            with closing(sqlite3.connect(copy)) as database, _Explained(self.target):
                tables = _check(database, "the backup")
            self._put(copy)
        finally:
            copy.unlink(missing_ok=True)
        return self._compare(tables, artifact.get("statistics") or {})

    def _put(self, copy: Path) -> None:
        if self._is_healthy():
            self._copy_into(copy)
        else:
            self._replace(copy)

    def _is_healthy(self) -> bool:
        if not self._path.is_file() or self._path.stat().st_size == 0:
            return False
        try:
            with closing(self._open()) as database, _Explained(self.target):
                rows = database.execute("PRAGMA quick_check(1)").fetchall()
        except (SourceInvalid, SourceUnavailable):
            return False
        return rows == [("ok",)]

    def _copy_into(self, copy: Path) -> None:
        """Write over the content in one transaction; a journal mode that others rely on stays."""
        with closing(sqlite3.connect(copy)) as source, closing(self._open()) as live:
            mode = live.execute("PRAGMA journal_mode").fetchone()[0]
            try:
                source.backup(live)
                live.execute(
                    f"PRAGMA journal_mode = {mode}" if mode in ("wal", "delete") else "PRAGMA journal_mode"
                )
            except sqlite3.Error as error:
                raise RestoreFailed(
                    f"{self.target} is busy: {error}. It is as it was; stop what writes to it, and ask again",
                    reason="TargetBusy",
                ) from None

    def _replace(self, copy: Path) -> None:
        """Put a file in place where no database can be written into; logs of the old one would spoil the new."""
        beside = self._path.with_name(f".{self._path.name}.avalanche-restore")
        try:
            mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o660
            with copy.open("rb") as source:
                _write(beside, iter(lambda: source.read(CHUNK), b""), lambda _: None)
            beside.chmod(mode)
            for ending in _SIDE_FILES:
                self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
            beside.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise RestoreFailed(f"{self.target} cannot be written: {error.strerror}") from None
        finally:
            beside.unlink(missing_ok=True)

    def _compare(self, tables: Mapping[str, int], statistics: Mapping[str, Any]) -> str:
        wanted = statistics.get("tables")
        if wanted is not None and dict(wanted) != dict(tables):
            raise RestoreFailed(f"{self.target}: the rows are not those that the metadata counts")
        with closing(self._open()) as database, _Explained(self.target):
            rows = database.execute("PRAGMA quick_check(1)").fetchall()
        if rows != [("ok",)]:
            raise RestoreFailed(f"{self.target} is not healthy after the restore")
        return f"{len(tables)} tables with {sum(tables.values())} rows are back in {self.target}"

    def _open(self) -> sqlite3.Connection:
        """Open the file as it is; reading a database in WAL mode writes its shared memory beside it."""
        address = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        try:
            return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise SourceInvalid(
                f"{self.target} cannot be opened ({error}): its user must be able to write to it and its folder",
                reason="SourceUnreadable",
            ) from None


class _Explained:
    """Turn SQLite's errors into ours."""

    def __init__(self, target: str) -> None:
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        code = getattr(error, "sqlite_errorname", "")
        if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise SourceInvalid(f"{self._target} is corrupt: {error}", reason="SourceCorrupt") from None
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise SourceUnavailable(f"{self._target} was locked for {BUSY_SECONDS:.0f} seconds") from None
        if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            raise SourceInvalid(
                f"{self._target} cannot be opened: {error}; its user must be able to write to it and its folder",
                reason="SourceUnreadable",
            ) from None
        raise SourceUnavailable(f"{self._target}: {error}") from None


def _copy(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Copy in steps, which lets writers in between; each of their writes starts it over, so in one step at last."""
    starts, last = 0, -1

    def watch(_: int, remaining: int, __: int) -> None:
        nonlocal starts, last
        if last != -1 and remaining > last:
            starts += 1
            if starts >= STEPS_BEFORE_ONE:
                raise _Restarted
        last = remaining

    try:
        source.backup(target, pages=STEP_PAGES, progress=watch, sleep=0.01)
    except _Restarted:
        source.backup(target, pages=-1)


class _Restarted(Exception):
    """The backup was started over too often."""


def _check(database: sqlite3.Connection, what: str) -> dict[str, int]:
    """Check a copy, and count the rows of its tables."""
    rows = [str(row[0]) for row in database.execute("PRAGMA integrity_check(3)")]
    if rows != ["ok"]:
        raise SourceInvalid(f"{what} is corrupt: {'; '.join(rows)[:300]}", reason="SourceCorrupt")
    return {name: _count(database, name) for name in _tables(database)}


def _count(database: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted, of our own reading


def _tables(database: sqlite3.Connection) -> list[str]:
    return [str(row[0]) for row in database.execute(_TABLES)]


def _write(path: Path, chunks: Iterator[bytes], progress: ProgressHook) -> None:
    done = 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            done += len(chunk)
            progress(done)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
