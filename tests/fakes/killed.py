"""A real child process that is killed by SIGKILL before the n-th thing it does to the world around it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

EVENTS = frozenset({
    "open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.utime", "os.listdir",
    "sqlite3.connect", "subprocess.Popen",
})  # fmt: skip
"""What Python audits (PEP 578) of what a restore does: files, databases and processes."""
_SECONDS = 60
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["avalanche_backup.verbs.dispatch", "tests.integration.runs"])


def run_killed(work: Callable[[], Any], before: int | None) -> int:
    """Do some work in a child that dies before its n-th event, never for ``None``; give how many events there were.

    ``work`` can be pickled. What the child started lives on, as after any kill.
    """
    reading, writing = _PROCESSES.Pipe(duplex=False)
    child = _PROCESSES.Process(target=_work_and_die, args=(work, before, writing))
    child.start()
    writing.close()
    child.join(_SECONDS)
    assert child.exitcode is not None, "the child does not end"
    said: object = None
    with suppress(EOFError):  # it was killed before it said anything
        said = reading.recv()
    assert child.exitcode in (0, -signal.SIGKILL), f"the child ended with {child.exitcode}: {said}"
    return said if isinstance(said, int) else before or 0


def _work_and_die(work: Callable[[], Any], before: int | None, writing: Connection) -> None:
    count = 0

    def watch(event: str, _: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS:
            count += 1
            if count == before:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    try:
        work()
    except BaseException as error:
        writing.send(repr(error))
        raise
    writing.send(count)
