"""One question to an SQLite database that is only read."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from avalanche_backup.errors import DrillFailed

_STEPS = 10_000
"""So many instructions of SQLite's machine lie between two looks at the clock."""
_ATTACHING = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}


def ask(path: Path, sql: str, seconds: int) -> str | None:
    """Give its single value as text; ``None`` is NULL.

    :raises DrillFailed: it is refused, gives more or less than one value, or takes too long.
    """
    deadline = time.monotonic() + seconds
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as database:
        database.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        database.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_DENY if action in _ATTACHING else sqlite3.SQLITE_OK
        )
        try:
            rows = database.execute(sql).fetchmany(2)
        except sqlite3.Error as error:
            late = time.monotonic() > deadline
            why = f"no answer within {seconds} seconds" if late else str(error)
            raise DrillFailed(why, reason="QueryFailed") from None
    if [len(each) for each in rows] != [1]:
        raise DrillFailed("it gives more or less than one value", reason="QueryFailed")
    value = rows[0][0]
    if isinstance(value, bytes):
        return value.hex()
    return None if value is None else str(value)
