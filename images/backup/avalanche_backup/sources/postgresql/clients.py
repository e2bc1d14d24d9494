"""Which PostgreSQL clients are installed, and which of them fits a server.

pg_dump refuses a server newer than itself. It reads older ones, but writes for its own major: a dump of pg_dump 17
sets ``transaction_timeout``, which PostgreSQL 16 does not know. So a dump is made by the server's own major where that
is installed, else by the next newer one. What was dumped is read by a major that is not older than the one that wrote
it. A restore wants psql with ``\\restrict``, without which a dump may run commands of its own (CVE-2025-8714).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from avalanche_backup.errors import RestoreRefused, SourceInvalid

ENV_CLIENTS = "AVALANCHE_POSTGRESQL_CLIENTS"
"""Folders with clients, separated by colons; searched instead of the usual places."""
_USUAL = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/homebrew/opt")
_PATCHED = {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}
"""The first minor release of each major whose psql knows ``\\restrict``."""
_FLOOR = {14: 25, 15: 20, 16: 16, 17: 12, 18: 7}
"""The first minor release of each major that a crafted dump or archive cannot make run code (CVE-2026-18408,
CVE-2026-116314). Preferred, and told of where it is missing; not every distribution has them."""
_TOOLS = ("pg_dump", "pg_restore", "psql")
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

    @property
    def patched(self) -> bool:
        """Say whether hostile dumps and archives are known to be harmless to these tools."""
        return self.minor >= _FLOOR.get(self.major, 0) and self.major >= min(_FLOOR)


def installed_clients() -> tuple[Clients, ...]:
    """Find the clients of this machine, the oldest first.

    :raises SourceInvalid: there are none.
    """
    found = {each.folder.resolve(): each for folder in folders() if (each := _read_version(folder))}
    if not found:
        raise SourceInvalid(
            "no folder here has pg_dump, pg_restore and psql that run: install PostgreSQL's client tools, or name their "
            f"folder in {ENV_CLIENTS}",
            reason="ClientMissing",
        )
    return tuple(sorted(found.values()))


def dumping_clients(clients: Iterable[Clients], server_major: int) -> Clients:
    """Give the clients that dump a server: of its own major, else of the next newer one.

    :raises SourceInvalid: the server is newer than every one of them.
    """
    known = tuple(clients)
    fitting = [each for each in known if each.major >= server_major]
    if not fitting:
        raise SourceInvalid(
            f"the server is PostgreSQL {server_major} and the newest pg_dump here is {max(known).version}: "
            f"use a backup image (or install client tools) of PostgreSQL {server_major} or newer",
            reason="ServerTooNew",
        )
    nearest = min(each.major for each in fitting)
    return max(each for each in fitting if each.major == nearest)


def restoring_clients(clients: Iterable[Clients], written_by: int) -> Clients:
    """Give the clients that restore what pg_dump of major ``written_by`` wrote: patched ones first, then the newest.

    :raises RestoreRefused: none can read it, or run it safely.
    """
    known = tuple(clients)
    readers = [each for each in known if each.major >= written_by]
    if not readers:
        raise RestoreRefused(
            f"the dump was written by pg_dump {written_by} and the newest clients here are {max(known).version}: "
            f"install PostgreSQL {written_by}'s client tools or newer",
            reason="ClientTooOld",
        )
    safe = [each for each in readers if each.restricts]
    if not safe:
        raise RestoreRefused(
            f"psql {max(readers).version} would run commands hidden in a dump (CVE-2025-8714): update PostgreSQL's clients",
            reason="ClientTooOld",
        )
    return max(safe, key=lambda each: (each.patched, each))


def folders() -> Iterable[Path]:
    """Give the folders in which programs of PostgreSQL may lie."""
    if named := os.environ.get(ENV_CLIENTS):
        return [Path(folder) for folder in named.split(os.pathsep) if folder]
    usual = [folder for place in _USUAL for folder in Path(place).glob("*/bin")]
    on_path = shutil.which("pg_dump")
    # Debian's is a script that looks for the others, which were found already, and takes ten times as long.
    real = [found.parent] if on_path and (found := Path(on_path).resolve()).name == "pg_dump" else []
    return [*usual, *real]


@cache
def _read_version(folder: Path) -> Clients | None:
    if not all((folder / tool).exists() for tool in _TOOLS):
        return None
    try:
        said = subprocess.run(
            [folder / "pg_dump", "--version"], capture_output=True, text=True, check=False, timeout=20
        ).stdout
    except OSError:
        return None
    found = _VERSION.search(said)
    return Clients(int(found[1]), int(found[2] or 0), folder) if found else None
