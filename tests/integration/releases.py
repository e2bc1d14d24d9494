"""PostgreSQL releases that this machine's Debian lacks: unpacked from newer suites once, made to run here for each test run.

A release is Debian's own packages without being installed: the cache keeps the tree, and each run gets a copy whose
programs name that copy's loader and libraries. So nothing of the machine is changed. The copy lies outside pytest's
folder, which every pytest that starts makes private again: the server, which may not run as root, would lose it.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.build import locked
from tests.cluster.layout import cache_root
from tests.cluster.packages import ensure_packages
from tests.cluster.processes import run

SUITES = {17: "trixie", 18: "forky"}
"""Which suite of Debian carries a major."""
_TOOLS = {"mmdebstrap": "mmdebstrap", "patchelf": "patchelf"}
_PROGRAMS = (
    "postgres",
    "pg_isready",
    "initdb",
    "psql",
    "pg_dump",
    "pg_dumpall",
    "pg_restore",
    "pg_basebackup",
)
_HEAVY = ("libLLVM*", "libz3*", "libperl*")
"""Libraries for which nothing here has a use: compiled queries are switched off in tests."""


@contextmanager
def installed(major: int, say: Callable[[str], None] = print) -> Iterator[Path]:
    """Give the folder of a major's programs, ready to run, for a while."""
    ensure_packages(_TOOLS, say)
    with tempfile.TemporaryDirectory(prefix=f"postgresql-{major}-") as folder:
        Path(folder).chmod(0o711)
        yield _ready(major, _cached(major, say), Path(folder) / "usr")


def _ready(major: int, tree: Path, target: Path) -> Path:
    shutil.copytree(tree, target, symlinks=True)
    programs = target / "lib" / "postgresql" / str(major) / "bin"
    libraries = target / "lib" / _triplet()
    loader = next(libraries.glob("ld-linux*.so.*"))
    for name in _PROGRAMS:
        run(
            "patchelf",
            "--set-interpreter",
            loader,
            "--force-rpath",
            "--set-rpath",
            libraries,
            programs / name,
        )
    return programs


def _cached(major: int, say: Callable[[str], None]) -> Path:
    tree = cache_root() / "postgresql" / f"{SUITES[major]}-{major}-{platform.machine()}"
    with locked(cache_root() / "postgresql.lock"):
        if not tree.is_dir():
            say(
                f"unpacking PostgreSQL {major} from Debian {SUITES[major]}: about a quarter of a minute, once"
            )
            root = tree.with_suffix(".root")
            shutil.rmtree(root, ignore_errors=True)
            root.parent.mkdir(parents=True, exist_ok=True)
            # A suite that is not released may be mirrored late: its signature is checked, its age is not.
            run(
                "mmdebstrap", "--quiet", "--variant=extract", "--aptopt=Acquire::Check-Valid-Until \"false\"",
                f"--include=postgresql-{major}", SUITES[major], root,
            )  # fmt: skip
            _keep(root / "usr", tree.with_suffix(".unfinished"), major)
            shutil.rmtree(root)
            tree.with_suffix(".unfinished").rename(tree)
    return tree


def _keep(usr: Path, kept: Path, major: int) -> None:
    shutil.rmtree(kept, ignore_errors=True)
    for part in (Path("lib", "postgresql", str(major)), Path("share", "postgresql", str(major))):
        shutil.copytree(usr / part, kept / part, symlinks=True)
    libraries = kept / "lib" / _triplet()
    libraries.mkdir(parents=True)
    for library in _libraries(usr / "lib" / _triplet()):
        shutil.copy2(library, libraries, follow_symlinks=False)


def _libraries(folder: Path) -> Iterator[Path]:
    for each in sorted(folder.glob("*.so*")):
        if each.is_file() and not any(each.match(pattern) for pattern in _HEAVY):
            yield each


def _triplet() -> str:
    return f"{platform.machine()}-linux-gnu"
