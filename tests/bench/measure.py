"""Running one command, or several in a pipe, and saying what they took: time, processor time, memory of the whole tree."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.02
PAGE = os.sysconf("SC_PAGE_SIZE")
Command = Sequence[str | Path]


@dataclass(frozen=True)
class Taken:
    """What a run took: seconds, seconds of processor time, the most bytes of memory that all its processes had at once."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


class RunFailed(Exception):
    """A command that is measured failed: its figures would mean nothing."""


@dataclass(frozen=True)
class Pipe:
    """Commands, each of which reads what the one before it writes; a single one is a pipe as well."""

    commands: tuple[Command, ...]
    stdin: Path | None = None
    stdout: Path | None = None
    environment: Mapping[str, str] | None = None
    folder: Path | None = None
    succeeds_with: tuple[int, ...] = (0,)

    def run(self) -> Taken:
        """Run it.

        :raises RunFailed: one of the commands failed; its last words are in the text.
        """
        with tempfile.TemporaryFile() as errors:
            processes: list[subprocess.Popen[bytes]] = []
            try:
                began = time.monotonic()
                self._start(errors.fileno(), processes)
                watch = _Watch(each.pid for each in processes)
                try:
                    ended = [_waited(each) for each in processes]
                    wall = time.monotonic() - began
                finally:
                    watch.stop()
            except BaseException:  # interrupted: nothing goes on without whoever measures it
                for each in processes:
                    _kill(each)
                raise
            if any(each.returncode not in (*self.succeeds_with, -signal.SIGPIPE) for each in processes):
                errors.seek(0)
                raise RunFailed(f"{_shown(self.commands)}: {errors.read().decode(errors='replace')[-2000:]}")
        return Taken(wall, sum(each.ru_utime + each.ru_stime for each in ended), watch.peak_bytes)

    def _start(self, errors: int, processes: list[subprocess.Popen[bytes]]) -> None:
        reading = self._opened(self.stdin, os.O_RDONLY)
        for number, command in enumerate(self.commands):
            last = number == len(self.commands) - 1
            following, writing = (
                (-1, self._opened(self.stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)) if last else os.pipe()
            )
            processes.append(
                subprocess.Popen(
                    [str(word) for word in command], stdin=reading, stdout=writing, stderr=errors,
                    env={**os.environ, **(self.environment or {})}, cwd=self.folder, process_group=0,
                )
            )  # fmt: skip
            os.close(reading)
            os.close(writing)
            reading = following

    def _opened(self, path: Path | None, flags: int) -> int:
        return os.open(path or os.devnull, (flags | os.O_CLOEXEC) if path else os.O_RDWR, 0o600)


def _waited(process: subprocess.Popen[bytes]) -> resource.struct_rusage:
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command that may still run, with all that it started: each has a process group of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shown(commands: Sequence[Command]) -> str:
    return " | ".join(Path(command[0]).name for command in commands)


class _Watch(threading.Thread):
    """Adds up, again and again, the resident memory of processes and of all that they started.

    Memory that two of them share counts twice: the sum is never less than what they had.
    """

    def __init__(self, roots: object) -> None:
        super().__init__(name="watch", daemon=True)
        self._roots: list[int] = list(roots)  # type: ignore[call-overload]
        self._stopped = threading.Event()
        self.peak_bytes = 0
        self.start()

    def run(self) -> None:
        """Look until told to stop."""
        while not self._stopped.wait(LOOK_SECONDS):
            self.peak_bytes = max(self.peak_bytes, sum(map(_resident, _tree(self._roots))))

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()
        self.join()


def _tree(roots: list[int]) -> list[int]:
    found, open_ = [], list(roots)
    while open_:
        pid = open_.pop()
        found.append(pid)
        try:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                open_ += map(int, (thread / "children").read_text().split())
        except OSError:
            continue
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def first_read(pipe: Pipe, root: Path) -> float:
    """Run a command until it opens a file beneath ``root``, and give the seconds until then; the command is ended.

    :raises RunFailed: it ended before.
    """
    [command] = pipe.commands
    began = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **(pipe.environment or {})}, process_group=0,
    )  # fmt: skip
    try:
        while process.poll() is None:
            if _has_open(process.pid, root):
                return time.monotonic() - began
            time.sleep(0.001)
    finally:
        _kill(process)
    raise RunFailed(f"nothing beneath {root} was opened")


def _has_open(pid: int, root: Path) -> bool:
    with suppress(OSError):
        for each in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                path = each.readlink()
                if path.is_relative_to(root) and path.is_file():
                    return True
    return False
