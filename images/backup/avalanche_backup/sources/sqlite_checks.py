"""Whether a SQLite database is whole, how many rows it has, and what its errors mean."""

from __future__ import annotations

import re
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from avalanche_backup.errors import SourceInvalid, SourceUnavailable

BUSY_SECONDS = 30.0
_LOOK_SECONDS = 0.1
_OF_THE_APPLICATION = re.compile(r"no such (collation sequence|function): (\w+)")
_UNREADABLE = re.compile("no such (module|tokenizer|collation sequence|function)|unknown tokenizer")
"""What SQLite says where only the application's own code can read a part of its database."""
STAND_INS_MAX = 32
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"


class Explained:
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


def check_copy(database: sqlite3.Connection, what: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """Check a copy, count the rows of its tables, and say what only the application itself could check."""
    rows, warnings = integrity(database)
    if rows != ["ok"]:
        raise SourceInvalid(f"{what} is corrupt: {'; '.join(rows)[:300]}", reason="SourceCorrupt")
    counted = {name: _count(database, name) for name in table_names(database)}
    return {name: count for name, count in counted.items() if count is not None}, warnings


def integrity(
    database: sqlite3.Connection, pragma: str = "integrity_check"
) -> tuple[list[str], tuple[str, ...]]:
    """Run integrity_check; where that needs code that only the application has, quick_check with stand-ins for it."""
    warnings: list[str] = []
    for _ in range(STAND_INS_MAX):
        try:
            return [str(row[0]) for row in database.execute(f"PRAGMA {pragma}(3)")], tuple(warnings)
        except sqlite3.OperationalError as error:
            found = _OF_THE_APPLICATION.search(str(error))
            if found is None:
                raise
            _stand_in(database, *found.groups())
            pragma = "quick_check"
            warnings.append(f"indexes were not checked: {error}, which only the application has")
    raise SourceInvalid("too much of the database is code of the application", reason="SourceInvalid")


def _stand_in(database: sqlite3.Connection, kind: str, name: str) -> None:
    """Let SQLite go on without an order or a function of the application: quick_check does not compare by them."""
    if kind == "collation sequence":
        database.create_collation(name, lambda one, two: (one > two) - (one < two))
    else:
        database.create_function(name, -1, lambda *_: None, deterministic=True)


def _count(database: sqlite3.Connection, table: str) -> int | None:
    """Count rows; ``None`` of a virtual table that only the application can read."""
    quoted = table.replace('"', '""')
    try:
        return int(database.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])  # noqa: S608 - quoted, of our own reading
    except sqlite3.OperationalError as error:
        if not _UNREADABLE.search(str(error)):
            raise
        return None


def table_names(database: sqlite3.Connection) -> list[str]:
    """Give the names of the tables, sorted."""
    return [str(row[0]) for row in database.execute(_TABLES)]


class CheckedMeanwhile:
    """A copy that is checked in a thread of its own while somebody reads its file; a context that leaves no thread behind."""

    def __init__(self, copy: Path, what: str) -> None:
        self._copy, self._what = copy, what
        self._found: tuple[dict[str, int], tuple[str, ...]] | None = None
        self._error: BaseException | None = None
        self._database: sqlite3.Connection | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="check", daemon=True)

    def __enter__(self) -> CheckedMeanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        while self._thread.is_alive():
            if (database := self._database) is not None:
                with suppress(sqlite3.ProgrammingError):  # it was closed just now
                    database.interrupt()
            self._thread.join(_LOOK_SECONDS)

    def result(self) -> tuple[dict[str, int], tuple[str, ...]]:
        """Wait for what :func:`check_copy` found.

        :raises SourceInvalid: the copy is corrupt.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None  # noqa: S101 - there was no error
        return self._found

    def _run(self) -> None:
        try:
            # The thread that leaves the context interrupts it, and touches nothing else of it.
            with (
                closing(sqlite3.connect(self._copy, check_same_thread=False)) as database,
                Explained(self._what),
            ):
                self._database = database
                if not self._ended:
                    self._found = check_copy(database, self._what)
                self._database = None
        except BaseException as error:
            self._error = error
