"""Image archives in the cache, which every checkout of a machine shares: made once, and removed when nobody uses them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

KEPT = 2
GRACE_SECONDS = 30 * 60
"""Who got an archive has it loaded by then; another checkout leaves it that long."""


def ensure_archive(folder: Path, name: str, key: str, build: Callable[[Path], None]) -> Path:
    """Give the archive of an image, building it where it is missing; the time of its file is that of its last use.

    The caller holds a lock.
    """
    archive = folder / f"{name}-{key}.tar"
    if not archive.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        build(unfinished)
        unfinished.rename(archive)
    archive.touch()
    for old in _unused({each: each.stat().st_mtime for each in folder.glob(f"{name}-*.tar")}, time.time()):
        old.unlink()
    return archive


def _unused(last_used: dict[Path, float], now: float) -> list[Path]:
    """Name what may go: the cache does not grow with every change of a tree."""
    others = sorted(last_used, key=lambda path: last_used[path], reverse=True)[KEPT:]
    return [each for each in others if now - last_used[each] > GRACE_SECONDS]
