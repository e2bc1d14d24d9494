"""``logs/backup_YYYYMMDD.log``: what runs of the command line did, one JSON object a line, a file for each day (UTC).

A log that cannot be written is said once on standard error, and stops nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import structlog

FOLDER = "logs"
_FILE = re.compile(r"^backup_(\d{8})\.log$")


@dataclass(frozen=True)
class Day:
    """One file of the log."""

    date: date
    path: Path


class LogFile:
    """Appends whole lines to the file of the day that it is."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._folder, self._now, self._failed = folder, now, False

    def write(self, text: str) -> None:
        """Append; one call is one line."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"backup_{self._now():%Y%m%d}.log"
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            if not self._failed:
                click.echo(
                    f"warning: the log in {self._folder} cannot be written: {error.strerror}", err=True
                )
            self._failed = True

    def flush(self) -> None:
        """Do nothing: every line is on its way already."""


def begin(root: Path, keep_days: int) -> None:
    """Send everything that is logged from now on to the log of a folder, and remove files that are too old."""
    folder = root / FOLDER
    rotate(folder, keep_days, datetime.now(UTC).date())
    configure(LogFile(folder))


def configure(output: Any) -> None:
    """Write JSON lines to an output."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True, key="time"),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=False,
    )


def rotate(folder: Path, keep_days: int, today: date) -> list[Path]:
    """Remove the files of days that are older than ``keep_days``; gives what went."""
    old = [each.path for each in days(folder) if today - each.date >= timedelta(days=keep_days)]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def days(folder: Path) -> list[Day]:
    """Give the files of the log, the newest first; what is not named like one is not ours."""
    found = []
    for path in folder.glob("backup_*.log"):
        named = _FILE.match(path.name)
        try:
            found += (
                [Day(datetime.strptime(named[1], "%Y%m%d").replace(tzinfo=UTC).date(), path)] if named else []
            )
        except ValueError:
            continue
    return sorted(found, key=lambda each: each.date, reverse=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file of the log; a line that was cut off by a crash is shown as it is."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [_parsed(line) for line in lines if line]


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"time": "", "level": "", "event": line}
