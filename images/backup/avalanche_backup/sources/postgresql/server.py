"""The process of a throwaway PostgreSQL server: which one, where it lives and as whom, its start and its end.

Nothing of it is worth keeping, so nothing is made durable (``fsync`` off). It listens on no port; its socket lies in a
folder that only its user and root can enter.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avalanche_backup.errors import DrillFailed
from avalanche_backup.sources.postgresql.clients import folders, installed_clients
from avalanche_backup.sources.postgresql.connection import error_line, tail

START_SECONDS = 60
STOP_SECONDS = 15
USERS = ("postgres", "nobody")
"""As whom a server runs that root starts: PostgreSQL refuses root."""
_SESSIONS = 20
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": str(_SESSIONS),
    "shared_buffers": "64MB",
    "maintenance_work_mem": "64MB",
    "dynamic_shared_memory_type": "mmap",  # a container has 64 MB of the other kind
    "jit": "off",
    "logging_collector": "off",
}
_PR_SET_PDEATHSIG = 1
_WRAPPERS = ("/usr/lib/*/libnss_wrapper.so", "/usr/lib/libnss_wrapper.so", "/usr/lib64/libnss_wrapper.so")


@dataclass(frozen=True)
class Programs:
    """Where the programs of one major are."""

    major: int
    folder: Path


@dataclass(frozen=True)
class Place:
    """Where a server lives, and as whom: ``home`` has a short name, because that of a socket has 107 bytes at most."""

    home: Path
    data: Path
    user: Mapping[str, Any]

    @property
    def superuser(self) -> str:
        """Name the first superuser: no role of a dump is called so."""
        return self.home.name

    @property
    def environment(self) -> dict[str, str]:
        """Give the environment of its processes: nothing of ours, which may hold secrets."""
        found = {"PATH": "/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8"}
        return found | _named_user(self.home)

    def remove(self) -> None:
        """Leave nothing."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)


def choose(artifact: Mapping[str, Any]) -> Programs:
    """Give the server of the backup's own major, else of the next newer one."""
    version = str((artifact.get("recreate") or {}).get("server_version") or "")
    wanted = int(version.partition(".")[0]) if version.partition(".")[0].isdecimal() else 0
    found = [
        Programs(each.major, each.folder)
        for each in installed_clients()
        if all((each.folder / name).exists() for name in ("initdb", "postgres"))
    ]
    fitting = [each for each in found if each.major >= wanted]
    if not fitting:
        there = f"there is {', '.join(str(each.major) for each in found)}" if found else "there is none"
        raise DrillFailed(
            f"a drill of this backup needs a PostgreSQL server {wanted or ''} or newer, and {there} here: install "
            f"the package postgresql-{wanted or '<major>'} (looked in {_looked_in()})",
            reason="ServerMissing",
        )
    return min(fitting, key=lambda each: each.major)


def _looked_in() -> str:
    return ", ".join(str(each) for each in folders()) or "the usual places"


def place_for(scratch: Path, name: str) -> Place:
    """Make the home of a server, whose data goes beneath ``scratch``.

    :raises DrillFailed: nobody is here as whom it could run.
    """
    home = Path(tempfile.mkdtemp(prefix="avalanche-drill-"))
    if os.geteuid() != 0:
        return Place(home, scratch / f"postgresql-{name}", {})
    import pwd  # noqa: PLC0415 - there is none on Windows, where this module is imported all the same

    known = {each.pw_name: each for each in pwd.getpwall()}
    user = next((known[each] for each in USERS if each in known), None)
    if user is None:
        home.rmdir()
        raise DrillFailed(
            "PostgreSQL does not run as root, and there is no user postgres or nobody here: run the drill as another user",
            reason="ServerMissing",
        )
    os.chown(home, user.pw_uid, user.pw_gid)
    # Beneath its home: the folders of root's scratch may be closed to it.
    return Place(home, home / "data", {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []})


def _named_user(home: Path) -> dict[str, str]:
    """Give a name to a user that has none, as in a container: initdb asks for it."""
    if os.geteuid() == 0:
        return {}
    import pwd  # noqa: PLC0415 - as above

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        found = [each for pattern in _WRAPPERS for each in Path("/").glob(pattern[1:])]
        if not found:
            return {}
        passwd, group = home / "passwd", home / "group"
        passwd.write_text(f"postgres:x:{os.geteuid()}:{os.getegid()}::{home}:/bin/false\n")
        group.write_text(f"postgres:x:{os.getegid()}:\n")
        return {
            "LD_PRELOAD": str(found[0]),
            "NSS_WRAPPER_PASSWD": str(passwd),
            "NSS_WRAPPER_GROUP": str(group),
        }
    return {}


def run_initdb(programs: Programs, place: Place) -> None:
    """Make the server\'s files.

    :raises DrillFailed: it cannot.
    """
    command = [str(programs.folder / "initdb"), f"--pgdata={place.data}", f"--username={place.superuser}", "--auth-local=trust",
               "--auth-host=reject", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]  # fmt: skip
    ended = subprocess.run(
        command,
        env=place.environment,
        cwd=place.home,
        capture_output=True,
        text=True,
        check=False,
        **place.user,
    )
    if ended.returncode:
        raise _unusable(error_line(ended.stderr))


@contextmanager
def serving(
    programs: Programs, place: Place, artifact: Mapping[str, Any], *, keep: bool
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server, and end it at the end; with ``keep``, only where something failed.

    :raises DrillFailed: it does not start.
    """
    locks = int((artifact.get("statistics") or {}).get("locks") or 0)
    settings = {
        **_SETTINGS,
        "unix_socket_directories": str(place.home),
        "max_locks_per_transaction": str(64 + 2 * locks // _SESSIONS),
    }
    command = [str(programs.folder / "postgres"), "-D", str(place.data)]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log = place.home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=place.environment, cwd=place.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, preexec_fn=None if keep else _dies_with_us(),  # noqa: PLW1509 - it is one call into libc
            **place.user,
        )  # fmt: skip
    ended = True
    try:
        _wait_until_it_listens(programs, place, process, log)
        yield process
        ended = False
    finally:
        if ended or not keep:
            _stop(process)


def _dies_with_us() -> Callable[[], None] | None:
    """Give what lets the kernel end the server when we are killed, where it can."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT)) and None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it at once: nothing that it holds is needed."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_it_listens(
    programs: Programs, place: Place, process: subprocess.Popen[bytes], log: Path
) -> None:
    command = [str(programs.folder / "pg_isready"), "--quiet", f"--host={place.home}", "--dbname=postgres"]
    deadline = time.monotonic() + START_SECONDS
    while subprocess.run(command, env=place.environment, check=False).returncode:
        if process.poll() is not None:
            raise _unusable(error_line(tail(log)))
        if time.monotonic() > deadline:
            raise _unusable(f"it does not listen after {START_SECONDS} seconds")
        time.sleep(0.05)


def _unusable(what: str) -> DrillFailed:
    return DrillFailed(f"the throwaway PostgreSQL server does not start: {what}", reason="ServerFailed")
