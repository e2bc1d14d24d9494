"""Nothing POSIX-only is imported or run when the package is imported: database backups run on Windows as well."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from avalanche_backup import platforms
from avalanche_backup.errors import SourceInvalid
from avalanche_backup.sources.opening import open_source
from avalanche_contract.source import FilesSource
from tests.integration.test_command_line import Project, project

__all__ = ["project"]

WINDOWS = textwrap.dedent("""
    import importlib, os, pkgutil, signal, sys

    # What libraries need of the real system is loaded before that system is taken away.
    import apprise, boto3, click, click.shell_completion, pydantic, structlog, yaml, isal, sqlite3, smtplib, ssl, tarfile
    import concurrent.futures, http.server, multiprocessing, subprocess, tempfile, shutil, uuid, zoneinfo
    {extra}
    GONE = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "posix", "syslog", "readline", "crypt")

    class Windows:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in GONE:
                raise ImportError(f"{{name}} is not there on Windows")

    sys.meta_path.insert(0, Windows())
    for name in GONE:
        sys.modules.pop(name, None)
    for name in ("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "getuid", "geteuid", "getgid", "getegid",
                 "fork", "killpg", "setsid", "chown", "lchown", "fchown", "fchmod", "mkfifo", "mknod", "statvfs", "getxattr",
                 "setxattr", "posix_fadvise", "sched_getaffinity", "getpgid", "initgroups", "setgroups", "WEXITSTATUS"):
        if hasattr(os, name):
            delattr(os, name)
    for name in ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGPIPE", "SIGALRM", "SIGUSR1"):
        if hasattr(signal, name):
            delattr(signal, name)
    os.supports_dir_fd = set()
    found = []
    for package in ("avalanche_contract", "avalanche_backup"):
        root = importlib.import_module(package)
        found += [each.name for each in pkgutil.walk_packages(root.__path__, package + ".")]
    for name in found:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    print(len(found))
""")
A_DATABASE = textwrap.dedent("""
    from avalanche_backup.cli import runlock
    from avalanche_backup.cli.main import cli

    runlock._locked = runlock._unlock = bool  # of the real system, which this one is only in part
    for words in (["database"], ["restore", "database", "--backup-id", {backup_id!r}, "--force"]):
        cli.main(words, standalone_mode=False)
""")
SDKS = ("azure.storage.blob", "azure.identity", "google.cloud.storage", "pyrage")


def test_every_module_is_imported_where_there_is_no_posix() -> None:
    extra = "\n".join(f"try: import {each}\nexcept ImportError: pass" for each in SDKS)
    ended = subprocess.run(
        [sys.executable, "-c", WINDOWS.format(extra=extra)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) > 40


def test_a_database_is_backed_up_and_restored_where_there_is_no_posix(project: Project) -> None:
    made = project.json("database")["backup_id"]
    with closing(sqlite3.connect(project.folder / "app.sqlite")) as changed, changed:
        changed.execute("UPDATE t SET n = 7")
    ended = subprocess.run(
        [sys.executable, "-c", WINDOWS.format(extra="") + A_DATABASE.format(backup_id=made)],
        cwd=project.folder, env=project.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert len(project.json("list")) == 2
    with closing(sqlite3.connect(project.folder / "app.sqlite")) as found:
        assert found.execute("SELECT n FROM t").fetchall() == [(42,)]


def test_files_are_refused_with_a_reason_where_a_link_could_not_be_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platforms, "O_NOFOLLOW", 0)
    with pytest.raises(SourceInvalid) as raised:
        open_source(FilesSource(name="files", root="/"), None)  # type: ignore[arg-type] # nothing is written
    assert raised.value.reason == "PlatformUnsupported"
