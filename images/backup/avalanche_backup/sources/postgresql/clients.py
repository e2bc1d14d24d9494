"""Which PostgreSQL clients are installed, and which of them fits a server.

pg_dump refuses a server newer than itself and reads every older one that is still in use, so the newest installed
major serves all. A restore wants psql with ``\\restrict``, without which a dump may run commands of its own
(CVE-2025-8714).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avalanche_backup.errors import SourceInvalid

ENV_CLIENTS = "AVALANCHE_POSTGRESQL_CLIENTS"
"""Folders with clients, separated by colons; searched instead of the usual places."""
_USUAL = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
_PATCHED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
"""The first minor release of each major whose psql knows ``\\restrict``."""
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


@dataclass(frozen=True, order=True)
class Clients:
    """The tools of one installed release."""

    major: int
    minor: int
    folder: Path

    def tool(self, name: str) -> str:
        """Give the path of one tool."""
        return str(self.folder / name)

    @property
    def version(self) -> str:
        """Give the release as people write it."""
        return f"{self.major}.{self.minor}"

    @property
    def restricts(self) -> bool:
        """Say whether psql can refuse the commands inside a dump."""
        return self.minor >= _PATCHED.get(self.major, 0) and self.major >= min(_PATCHED)


def installed_clients() -> tuple[Clients, ...]:
    """Find the clients of this machine, the oldest first.

    :raises SourceInvalid: there are none.
    """
    found = {each.folder.resolve(): each for folder in _folders() if (each := _read_version(folder))}
    if not found:
        raise SourceInvalid(
            f"no pg_dump is installed: install PostgreSQL's client tools, or name their folder in {ENV_CLIENTS}",
            reason="ClientMissing",
        )
    return tuple(sorted(found.values()))


def choose_clients(clients: Iterable[Clients], server_major: int) -> Clients:
    """Give the newest clients, which must not be older than the server.

    :raises SourceInvalid: the server is newer than every one of them.
    """
    newest = max(clients)
    if newest.major < server_major:
        raise SourceInvalid(
            f"the server is PostgreSQL {server_major} and the newest pg_dump here is {newest.version}: "
            f"use a backup image (or install client tools) of PostgreSQL {server_major} or newer",
            reason="ServerTooNew",
        )
    return newest


def _folders() -> Iterable[Path]:
    if named := os.environ.get(ENV_CLIENTS):
        return [Path(folder) for folder in named.split(os.pathsep) if folder]
    usual = [folder for place in _USUAL for folder in Path(place).glob("*/bin")]
    on_path = shutil.which("pg_dump")
    return [*usual, *([Path(on_path).parent] if on_path else [])]


def _read_version(folder: Path) -> Clients | None:
    try:
        said = subprocess.run(
            [folder / "pg_dump", "--version"], capture_output=True, text=True, check=False, timeout=20
        ).stdout
    except OSError:
        return None
    found = _VERSION.search(said)
    return Clients(int(found[1]), int(found[2] or 0), folder) if found else None
