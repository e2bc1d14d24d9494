"""The programs that are measured: Debian's where they are packaged, the rest from virtual environments of their own.

What is shipped is measured, so ours runs in an environment with the locked packages of the image alone. kopia is taken where
it is installed: no package registry has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.layout import PROJECT
from tests.cluster.packages import ensure_packages
from tests.cluster.processes import program, run

PACKAGES = {
    "restic": "restic",
    "borg": "borgbackup",
    "pgbackrest": "pgbackrest",
    "pigz": "pigz",
    "zstd": "zstd",
    "sqlite3": "sqlite3",
    "/usr/bin/pg_lsclusters": "postgresql",
}
ENVIRONMENTS = PROJECT / "build" / "bench"
OURS = ENVIRONMENTS / "backup" / "bin" / "python"
PEERS = ENVIRONMENTS / "bench" / "bin"


@dataclass(frozen=True)
class Tools:
    """What was found, and in which version."""

    aws: Path
    kopia: Path | None
    versions: dict[str, str]


def install(say: Callable[[str], None]) -> Tools:
    """Find every program, or install it; the two environments are made by ``make bench``."""
    ensure_packages(PACKAGES, say)
    kopia = program("kopia")
    if kopia is None:
        say("kopia is not installed and in no package registry: it is left out")
    return Tools(PEERS / "aws", kopia, _versions(kopia))


def environment() -> dict[str, str]:
    """Give what ours runs with: the code of this checkout, beside the packages of the image."""
    sources = os.pathsep.join(str(PROJECT / each) for each in ("operator", "images/backup"))
    return {"PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": ""}


def _versions(kopia: Path | None) -> dict[str, str]:
    asked = {
        "zstd": ("zstd", "-V"), "pigz": ("pigz", "--version"), "tar": ("tar", "--version"), "restic": ("restic", "version"),
        "borg": ("borg", "--version"), "pgBackRest": ("pgbackrest", "version"), "pg_dump": ("pg_dump", "--version"),
        "aws": (str(PEERS / "aws"), "--version"), "Python": (str(OURS), "--version"),
    }  # fmt: skip
    if kopia is not None:
        asked["kopia"] = (str(kopia), "--version")
    return {name: run(*command, check=False).strip().splitlines()[0][:60] for name, command in asked.items()}
