"""One SQLite database as a source, by the online backup API: never a copy of the file, which could be torn.

The copy is checked before it is believed. A restore writes through the same API into a live database, so that
whoever has it open sees the old content or the new one; only where there is no database to write into is a file put in place.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid, SourceUnavailable
from avalanche_backup.platforms import O_BINARY, O_CLOEXEC, O_NOFOLLOW, WriteOut, give_to, sync_folder
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
from avalanche_backup.sources.sqlite_checks import (
    BUSY_SECONDS,
    CheckedMeanwhile,
    Explained,
    check_copy,
    integrity,
    table_names,
)
from avalanche_contract.source import SqliteSource

CHUNK = 1024 * 1024
STEP_PAGES = 2048
STEPS_BEFORE_ONE = 4
"""A database that is written to starts a stepwise backup over; after so many times it is copied in one step."""
SIDE_FILES = ("-wal", "-shm", "-journal")
_WAITS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class SqliteDatabase:
    """One database file."""

    kind = "sqlite"
    extension = ".sqlite"
    format = ""
    beside: Beside | None = None

    def __init__(self, request: SqliteSource) -> None:
        self.name = request.name
        self._path = Path(request.path)
        self.target = request.described or request.path
        self.selection: Mapping[str, Any] = {}

    def inspect(self, *, estimate: bool = True) -> Inspection:
        """Open the database, and see whether it has a table."""
        del estimate
        if not self._path.is_file():
            raise SourceInvalid(f"there is no SQLite database at {self.target}", reason="SourceMissing")
        with closing(self.open()) as database, Explained(self.target):
            tables = table_names(database)
        return Inspection(
            f"SQLite {sqlite3.sqlite_version}",
            self._path.stat().st_size,
            empty="" if tables else self._nothing(),
        )

    def _nothing(self) -> str:
        return f"{self.target} has no table: an empty database is not backed up"

    def dump(self, sink: Sink, *, beside: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Copy the database as it is at one moment, and check the copy while it is written out."""
        del beside
        copy = scratch / "copy.sqlite"
        moment = datetime.now(UTC)
        with closing(self.open()) as database, Explained(self.target):
            _copy(database, copy, self.target)
        with closing(sqlite3.connect(copy)) as target, Explained(self.target):
            used, names = _used_bytes(target), table_names(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        with CheckedMeanwhile(copy, self.target) as check, copy.open("rb") as file:
            done = 0
            while chunk := file.read(CHUNK):
                sink.write(chunk)
                done += len(chunk)
                progress(done)
            tables, warnings = check.result()
        copy.unlink()
        return Dump(
            moment, {"tables": tables, "bytes": used}, {"sqlite": sqlite3.sqlite_version}, warnings=warnings,
            files_included=(self._path.name,), empty="" if names else self._nothing(),
        )  # fmt: skip

    def inspect_target(self, artifact: Mapping[str, Any]) -> TargetState:
        """See whether there is a database, and what is in it."""
        del artifact
        if not self._path.parent.is_dir():
            raise RestoreRefused(f"there is no folder for {self.target}", reason="TargetMissing")
        if not self._path.exists():
            return TargetState("Absent", "no file")
        if self._path.stat().st_size == 0:
            return TargetState("Empty", "an empty file")
        try:
            with closing(self.open()) as database, Explained(self.target):
                tables = table_names(database)
        except SourceInvalid:
            return TargetState("HoldsData", "a file that is no healthy SQLite database", facts=("damaged",))
        if not tables:
            return TargetState("Empty", "a database without tables")
        return TargetState(
            "HoldsData", f"a database with {len(tables)} tables", tuple(f"table:{each}" for each in tables)
        )

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """It is copied into scratch, and opened there."""
        del artifact
        return "None"

    def restore(self, incoming: Incoming) -> str:
        """Bring a backup back: into the live database, or as a new file where there is none."""
        incoming.refuse_part()
        place = self._path.resolve()  # a link to the file stays a link
        beside = place.with_name(f".{place.name}.avalanche-restore")
        # A database that is there is read whole once, when it has to be: here it is enough that there is something.
        there = place.exists() and place.stat().st_size > 0
        copy = incoming.scratch / "restored.sqlite" if there else beside
        try:
            self._write(copy, incoming, durable=copy is beside)
            with closing(sqlite3.connect(copy)) as database, Explained(self.target):
                tables, _ = check_copy(database, "the backup")
            wanted = (incoming.artifact.get("statistics") or {}).get("tables")
            if wanted is not None and dict(wanted) != tables:
                raise RestoreFailed(
                    f"the rows are not those that the metadata counts; {self.target} is as it was"
                )
            self._put(copy, beside)
        finally:
            for each in (copy, beside):
                each.unlink(missing_ok=True)
        return f"{len(tables)} tables with {sum(tables.values())} rows are back in {self.target}"

    def _write(self, copy: Path, incoming: Incoming, *, durable: bool) -> None:
        try:
            write_file(copy, incoming.counted(), durable=durable)
        except OSError as error:
            raise RestoreFailed(f"{self.target} cannot be written: {error.strerror}") from None

    def _put(self, copy: Path, beside: Path) -> None:
        """Let a copy that was found right take the place of what is there by now."""
        if not self.is_healthy():
            self._replace(copy, beside)
            return
        self._copy_into(copy)
        with closing(self.open()) as database, Explained(self.target):
            rows, _ = integrity(database, "quick_check")
        if rows != ["ok"]:
            raise RestoreFailed(f"{self.target} is not healthy after the restore")

    def is_healthy(self) -> bool:
        """Say whether there is a database that can be written into.

        :raises RestoreRefused: somebody keeps it locked.
        """
        if not self._path.is_file() or self._path.stat().st_size == 0:
            return False
        try:
            with closing(self.open()) as database, Explained(self.target):
                rows, _ = integrity(database, "quick_check")
        except SourceInvalid:
            return False
        except (
            SourceUnavailable
        ) as busy:  # healthy or not: somebody works with it, and it is not ours to take away
            raise self.busy(busy.message) from None
        return rows == ["ok"]

    def _copy_into(self, copy: Path) -> None:
        """Write over the content in one transaction; a journal mode that others rely on stays."""
        with closing(sqlite3.connect(copy)) as source, closing(self.open()) as live:
            try:
                with journal_mode(live) as mode:
                    self._take_page_size(source, live, mode)
                    source.backup(live, progress=_patience(self.target))
                    live.execute(
                        f"PRAGMA journal_mode = {mode}"
                        if mode in ("wal", "delete")
                        else "PRAGMA journal_mode"
                    )
            except (sqlite3.Error, SourceUnavailable) as error:
                raise self.busy(str(error)) from None

    def _take_page_size(self, source: sqlite3.Connection, live: sqlite3.Connection, mode: str) -> None:
        """Let a database in WAL mode leave it where its pages have another size: only then can they change it."""
        sizes = {int(each.execute("PRAGMA page_size").fetchone()[0]) for each in (source, live)}
        if mode == "wal" and len(sizes) > 1:
            left = live.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
            if left != "delete":
                raise sqlite3.OperationalError("its pages have another size, which needs it for itself")

    def busy(self, why: str) -> RestoreRefused:
        """Give the refusal to touch a database that somebody works with."""
        return RestoreRefused(
            f"{self.target} is in use: {why}. It is as it was; stop what writes to it, and ask again",
            reason="TargetBusy",
        )

    def _replace(self, copy: Path, beside: Path) -> None:
        """Put a file in place where no database can be written into; logs of the old one would spoil the new."""
        place = self._path.resolve()
        try:
            before = place.stat() if place.exists() else None
            if copy != beside:
                with copy.open("rb") as source:
                    write_file(beside, iter(lambda: source.read(CHUNK), b""))
            if before is not None:
                give_to(beside, before)
            beside.chmod(before.st_mode & 0o777 if before is not None else 0o660)
            for ending in SIDE_FILES:
                place.with_name(place.name + ending).unlink(missing_ok=True)
            beside.replace(place)
            sync_folder(place.parent)
        except OSError as error:
            raise RestoreFailed(f"{self.target} cannot be written: {error.strerror}") from None

    def open(self) -> sqlite3.Connection:
        """Open the file as it is; reading a database in WAL mode writes its shared memory beside it."""
        address = f"file:{quote(str(self._path.absolute()))}?mode=rw"
        try:
            return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        except sqlite3.Error as error:
            raise SourceInvalid(
                f"{self.target} cannot be opened ({error}): its user must be able to write to it and its folder",
                reason="SourceUnreadable",
            ) from None


def _patience(target: str) -> Callable[[int, int, int], None]:
    """Give a progress hook that ends a copy which cannot go on: the library itself would try for ever.

    :raises SourceUnavailable: from within the copy.
    """
    since: float | None = None

    def watch(code: int, _: int, __: int) -> None:
        nonlocal since
        now = time.monotonic()
        since = (since or now) if code in _WAITS else None
        if since is not None and now - since > BUSY_SECONDS:
            raise SourceUnavailable(f"{target} was locked for {BUSY_SECONDS:.0f} seconds")

    return watch


def _copy(source: sqlite3.Connection, copy: Path, name: str) -> None:
    """Copy in steps, which lets writers in between; each of their writes starts it over, so in one step at last."""
    starts, last, patience = 0, -1, _patience(name)

    def watch(code: int, remaining: int, total: int) -> None:
        nonlocal starts, last
        patience(code, remaining, total)
        if last != -1 and remaining > last:
            starts += 1
            if starts >= STEPS_BEFORE_ONE:
                raise _Restarted
        last = remaining

    try:
        with _scratch(copy) as target:
            source.backup(target, pages=STEP_PAGES, progress=watch, sleep=0.01)
    except _Restarted:
        with _scratch(copy) as target:
            source.backup(target, pages=-1, progress=_patience(name))


@contextmanager
def _scratch(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a new database that need not outlive a power failure."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA synchronous = OFF")
        yield database


class _Restarted(Exception):
    """The backup was started over too often."""


@contextmanager
def journal_mode(live: sqlite3.Connection) -> Iterator[str]:
    """Give a database's journal mode; where it left WAL and something then fails, it is in WAL again."""
    mode = str(live.execute("PRAGMA journal_mode").fetchone()[0])
    try:
        yield mode
    except BaseException:
        if mode == "wal":
            with suppress(sqlite3.Error):
                live.execute("PRAGMA journal_mode = WAL")
        raise


def _used_bytes(database: sqlite3.Connection) -> int:
    """Give the size of the pages in use: what VACUUM gives back was no data."""
    pages, free, size = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def write_file(path: Path, chunks: Iterator[bytes], *, durable: bool = True) -> None:
    """Write a new file that only its owner reads, and down to the disk unless it need not outlive a power failure."""
    # Its name is known beforehand: what somebody put there is not written through.
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_BINARY
    with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        write_out = WriteOut(file.fileno())
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
            if durable:
                write_out.wrote(len(chunk))
        if durable:
            os.fsync(file.fileno())
