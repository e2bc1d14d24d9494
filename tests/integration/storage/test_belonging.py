"""What root writes into a folder of backups, as a restore of owners does: those whose folder it is go on with it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.storage.opening import open_store
from avalanche_contract.storage import DirectoryStorage

LOCK = "edna/nightly/restore-lock.json"
AS_A_BACKUP = f"""
import os, sys
from avalanche_backup.storage.opening import open_store
from avalanche_contract.storage import DirectoryStorage
store = open_store(DirectoryStorage(name="volume", root=sys.argv[1]))
os.setgroups([]), os.setgid(2000), os.setuid(65532)
with store.read("{LOCK}") as chunks:
    assert b"".join(chunks) == b"lock"
store.put("{LOCK}", b"ours", overwrite=True)
writer = store.create("edna/nightly/database/one.sql.gz")
writer.write(b"data")
writer.commit()
"""
"""What a backup does as the user and group of a pod: it reads the lock of a restore, and writes beside it and beneath."""


@pytest.fixture
def volume() -> Iterator[Path]:
    """Give a folder that any user reaches."""
    with tempfile.TemporaryDirectory() as around:
        Path(around).chmod(0o711)
        volume = Path(around, "volume")
        volume.mkdir()
        yield volume


def put(volume: Path, key: str = LOCK) -> None:
    open_store(DirectoryStorage(name="volume", root=str(volume))).put(key, b"lock")


def whose(path: Path) -> tuple[int, int]:
    return path.stat().st_uid, path.stat().st_gid


@pytest.mark.parametrize(
    ("owner", "group", "mode"),
    [(0, 2000, 0o2775), (0, 2000, 0o2770), (0, 0, 0o777), (65532, 65532, 0o755), (65532, 65532, 0o700)],
    ids=["fsGroup", "of a group alone", "everybody's", "his own", "his own alone"],
)
def test_backups_write_beside_what_root_made(volume: Path, owner: int, group: int, mode: int) -> None:
    os.chown(volume, owner, group)
    volume.chmod(mode)
    put(volume)
    ended = subprocess.run(
        [sys.executable, "-c", AS_A_BACKUP, str(volume)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert (volume / LOCK).read_text() == "ours"


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777])
def test_nobody_reads_the_data_of_root_by_that(volume: Path, mode: int) -> None:
    """Nor writes into its folders where everybody keeps to his own."""
    volume.chmod(mode)
    writer = open_store(DirectoryStorage(name="volume", root=str(volume))).create("a/database.sql.gz")
    writer.commit()
    assert (volume / "a" / "database.sql.gz").stat().st_mode & 0o007 == 0
    assert bool((volume / "a").stat().st_mode & 0o002) is (mode == 0o777)


@pytest.mark.parametrize("call", ["fchown", "fchmod"])
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM])
def test_a_file_system_that_gives_nothing_away_takes_backups_as_ever(
    volume: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(error, os.strerror(error))

    os.chown(volume, 65532, 65532)
    volume.chmod(0o777)
    for each in (call, "chown"):
        monkeypatch.setattr(os, each, refused)
    put(volume)
    assert (volume / LOCK).read_text() == "lock"


@pytest.mark.parametrize("made", ["file", "folder"])
def test_who_owns_the_folder_is_given_nothing_by_a_link(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str
) -> None:
    """He puts it there as soon as he sees the name of what root makes."""
    roots, given = tmp_path / made, "open" if made == "file" else "mkdir"
    roots.touch() if made == "file" else roots.mkdir(0o700)
    real: Any = getattr(os, given)

    def followed_by_a_link(name: Any, *rest: Any, **more: Any) -> Any:
        done = real(name, *rest, **more)
        inside = Path(f"/proc/self/fd/{more['dir_fd']}" if "dir_fd" in more else "", name)
        if given == "mkdir" or (rest and rest[0] & os.O_CREAT):
            inside.rename(inside.with_name("aside"))
            inside.symlink_to(roots)
        return done

    os.chown(volume, 65532, 65532)
    volume.chmod(0o777)
    with monkeypatch.context() as watched:
        watched.setattr(os, given, followed_by_a_link)
        put(volume, "object" if made == "file" else "a/object")
    assert whose(roots) == (0, 0)
    assert roots.stat().st_mode & 0o777 == (0o644 if made == "file" else 0o700)


def test_a_folder_behind_a_link_stays_whose_it_is(volume: Path, tmp_path: Path) -> None:
    os.chown(volume, 65532, 65532)
    (volume / "away").symlink_to(tmp_path)
    put(volume, "away/beneath/object")
    assert whose(tmp_path / "beneath") == whose(tmp_path / "beneath" / "object") == (0, 0)
