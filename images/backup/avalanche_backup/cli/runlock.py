"""One run at a time: a lock of the operating system on a file, let go of with the process, however it ends.

POSIX and Windows lock differently; neither module is loaded where it does not exist. The file stays and says who holds
or held the lock; a lock whose process is dead stops nothing, whatever the file says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from avalanche_backup.errors import RunUnderWay, UsageInvalid
from avalanche_contract.base import format_time

NAME = "run.lock"
_FAR = 1 << 30
"""Windows locks bytes against reading as well: one far behind the text leaves that readable."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder.

    :raises RunUnderWay: another process holds it; the message names its ID and when it started.
    :raises UsageInvalid: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / NAME).open("a+")
    except OSError as error:
        raise UsageInvalid(
            f"{folder / NAME} cannot be written: {error.strerror}; backup.root_dir names a folder of this user's"
        ) from None
    with file:
        if not _locked(file):
            raise RunUnderWay(f"another run is under way here: {_holder(file)}. Nothing was done")
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"pid": os.getpid(), "start_time": format_time(datetime.now(UTC))}))
        file.flush()
        try:
            yield
        finally:
            _unlock(file)


def _holder(file: IO[str]) -> str:
    with suppress(OSError, ValueError):
        file.seek(0)
        found = json.loads(file.read(4096))
        return f"process {found['pid']}, since {found['start_time']}"
    return "it has just begun"


if os.name == "nt":  # pragma: no cover - loaded on Windows alone
    import msvcrt

    def _locked(file: IO[str]) -> bool:
        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        file.seek(_FAR)
        with suppress(OSError):
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]

else:

    def _locked(file: IO[str]) -> bool:
        import fcntl  # noqa: PLC0415 - POSIX only

        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _unlock(file: IO[str]) -> None:
        del file  # closing it lets go
