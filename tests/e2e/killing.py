"""Ends pods' processes as the kernel does: nothing in them gets to say goodbye. Those of other clusters live on."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from tests.e2e.kubectl import Object


def kill(*pods: Object, running: str = "") -> int:
    """Kill the processes of the containers of pods, those alone that run something, and say how many there were."""
    uids = [each["metadata"]["uid"] for each in pods]
    found = [path for path in Path("/proc").glob("[0-9]*") if _is_of(path, uids, running)]
    for each in found:
        with suppress(ProcessLookupError):
            os.kill(int(each.name), signal.SIGKILL)
    return len(found)


def _is_of(process: Path, uids: list[str], running: str) -> bool:
    groups = _read(process / "cgroup")
    if not any(uid in groups for uid in uids):
        return False
    command = _read(process / "cmdline").replace("\0", " ")
    return running in command and "/pause" not in command


def _read(path: Path) -> str:
    """Read a file of a process; nothing, where the process has just ended."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
