"""Starting, finding and ending processes by what was recorded: a pid is ours only with the start time that it had."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.cluster.layout import ClusterFailed

LAST_LINES = 15


def run(*command: str | Path, stdin: str | None = None, cwd: Path | None = None, check: bool = True) -> str:
    """Run a command to its end and give its output.

    :raises ClusterFailed: it failed; the text ends with what it said.
    """
    words = [str(word) for word in command]
    ended = subprocess.run(words, input=stdin, capture_output=True, text=True, cwd=cwd, check=False)
    if check and ended.returncode:
        said = "\n".join((ended.stderr or ended.stdout).splitlines()[-LAST_LINES:])
        raise ClusterFailed(f"{' '.join(words)} ended with {ended.returncode}:\n{said}")
    return ended.stdout


def wait_until(ready: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Poll a condition.

    :raises ClusterFailed: it did not come true in time, with the text of ``otherwise``.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise ClusterFailed(otherwise())
        time.sleep(0.1)


def start_time(pid: int) -> str | None:
    """Give when a process started, in ticks since boot; ``None`` for one that is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class Daemon:
    """One long-running process of a cluster: its pid file and its log lie in the cluster's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / "logs" / f"{name}.log"
        self._record = folder / "pids" / name

    def pid(self) -> int | None:
        """Give the pid while the process runs."""
        try:
            pid, started = self._record.read_text().split()
        except (OSError, ValueError):
            return None
        return int(pid) if start_time(int(pid)) == started else None

    def start(self, namespace: str, command: Sequence[str | Path]) -> None:
        """Start it within a network namespace, unless it runs."""
        if self.pid() is not None:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._record.parent.mkdir(parents=True, exist_ok=True)
        # nsenter and not `ip netns exec`: the latter hides /sys/fs/cgroup behind a new /sys.
        words = ["nsenter", f"--net=/run/netns/{namespace}", "--", *(str(word) for word in command)]
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        self._record.write_text(f"{child.pid} {start_time(child.pid)}\n")

    def stop(self, seconds: float = 10) -> None:
        """End it: politely, then surely."""
        pid = self.pid()
        for asked, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
            if pid is None:
                break
            os.kill(pid, asked)
            pid = self._gone_within(patience)
        self._record.unlink(missing_ok=True)

    def last_lines(self) -> str:
        """Give the end of its log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            lines = ["(no log)"]
        return f"{self.name} says (the end of {self.log}):\n" + "\n".join(lines[-LAST_LINES:])

    def _gone_within(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while (pid := self.pid()) is not None and time.monotonic() < deadline:
            _reap(pid)
            time.sleep(0.05)
        return pid


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def unmount_beneath(root: Path) -> None:
    """Unmount everything beneath a folder, the deepest first."""
    mounts = [
        line.split()[1].replace("\\040", " ") for line in Path("/proc/self/mounts").read_text().splitlines()
    ]
    for mount in sorted((each for each in mounts if each.startswith(f"{root}/")), key=len, reverse=True):
        run("umount", "--lazy", mount, check=False)


def program(name: str) -> Path | None:
    """Find a program on the path, the folders of the administrator included."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return Path(found) if found else None
