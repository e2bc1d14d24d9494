"""Files as people have them: odd names, holes, links, deep paths, times before 1970. Each comes back, or is told of (§5.50)."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreFailed, SourceInvalid
from avalanche_contract.result import Result
from tests.integration.runs import PREFIX, Runner
from tests.integration.sources.test_files import oracle, source
from tests.integration.sources.test_postgresql_faults import small

NAMES = {
    "no encoding": b"\xff\xfe\x80",
    "half a character": "ä".encode()[:1],
    "a line's end": b"new\nline\r\n",
    "a tab and an escape": b"\ttab\x1b[31m",
    "255 bytes": b"n" * 255,
    "255 bytes of emoji": "🧬".encode() * 63 + b"abc",
    "an option": b"--checkpoint-action=exec=sh",
    "a pattern": b"*?[a]{b,c}",
    "a drive": b"C:",
    "backslashes": b"..\\..\\windows",
    "quotes and a command": b'it\'s "$(touch canary)" `id`; #',
    "written backwards": "\u202egnp.exe".encode(),
    "one character in two spellings": "é".encode(),
    "the other spelling": "e\u0301".encode(),
    "dots": b"...",
    "a space at the end": b" x ",
    "a date": b"2026-11-26T00:00:00Z",
    "what our index writes": b'{"path":"x","type":"file"}',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def brought_back(runner: Runner, root: Path, strategy: str = "InPlace") -> tuple[Path, Result]:
    """Back a tree up and restore it beside, where something lies."""
    target = root.with_name(f"target of {root.name}")
    target.mkdir()
    made = runner.backup(source(root), kind="files")
    runner.restore(made, source(target), strategy=strategy)
    return target, made


def warnings(runner: Runner, made: Result) -> str:
    return " ".join(runner.metadata(made).warnings)


@pytest.mark.parametrize("strategy", ["InPlace", "Swap"])
def test_names_of_any_bytes_are_only_names(runner: Runner, root: Path, strategy: str) -> None:
    for name in NAMES.values():
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(name)
        folder = Path(os.fsdecode(bytes(root) + b"/in/" + name))
        folder.mkdir(parents=True)
        (folder / "link").symlink_to(os.fsdecode(b"../" + name))
    target, made = brought_back(runner, root, strategy)
    assert oracle(target) == oracle(root)
    by_hand = root.with_name("by hand")
    by_hand.mkdir()
    artifact = root.parent / "volume" / PREFIX / "files" / f"{made.backup_id}.tar.gz"
    subprocess.run(["tar", "-xpzf", artifact, "-C", by_hand], check=True)
    assert oracle(by_hand) == oracle(root)


def test_a_file_with_holes_comes_back_with_what_it_holds(runner: Runner, root: Path) -> None:
    with (root / "holes").open("wb") as file:
        file.seek(40_000_000)
        file.write(b"in the middle")
        file.truncate(80_000_000)
    target, made = brought_back(runner, root)
    assert oracle(target) == oracle(root)
    assert (made.size_bytes or 0) < 1_000_000


def test_a_farm_of_hard_links_is_stored_once_and_is_one_file_again(runner: Runner, root: Path) -> None:
    (root / "first").write_bytes(os.urandom(100_000))
    for number in range(500):
        folder = root / f"{number % 7}"
        folder.mkdir(exist_ok=True)
        os.link(root / "first", folder / f"{number}")
    os.link(root / "0" / "0", root / "last")
    target, made = brought_back(runner, root)
    assert oracle(target) == oracle(root)
    assert (target / "first").stat().st_nlink == 502
    assert (made.size_bytes or 0) < 200_000


def test_a_path_longer_than_the_system_can_name_comes_back(runner: Runner, root: Path) -> None:
    """PATH_MAX is 4,096 bytes for one call: it can be made, and reached, a step at a time."""
    folder = os.open(root, os.O_RDONLY)
    for _ in range(40):
        os.mkdir("f" * 250, dir_fd=folder)
        inner = os.open("f" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    with os.fdopen(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=folder), "w") as file:
        file.write("far down")
    os.close(folder)
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        (root / Path(*["f" * 250] * 40)).stat()
    target, made = brought_back(runner, root, "Swap")
    assert runner.metadata(made).artifacts[0].statistics["entries"] == 41
    found = [
        subprocess.run(
            ["find", ".", "-name", "file", "-printf", "%d %s %T@"], cwd=each, capture_output=True, check=True
        ).stdout
        for each in (root, target)
    ]
    assert found[0] == found[1] and found[0].startswith(b"41 8 ")
    subprocess.run(["rm", "-rf", root, target], check=True)


@contextmanager
def open_files(limit: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_tree_deeper_than_the_limit_of_open_files_is_refused_with_what_to_do(
    runner: Runner, root: Path
) -> None:
    subprocess.run(["mkdir", "-p", root / Path(*["d"] * 300)], check=True)
    with open_files(200), pytest.raises(SourceInvalid, match="ulimit -n") as raised:
        runner.backup(source(root), kind="files")
    assert raised.value.reason == "SourceUnreadable"


def test_times_before_1970_and_to_the_nanosecond_come_back(runner: Runner, root: Path) -> None:
    for number, moment in enumerate(
        (-1, -1_000_000_001, -14_159_040_123_456_789, 1, 4_102_444_800_999_999_999)
    ):
        (root / f"{number}").touch()
        os.utime(root / f"{number}", ns=(moment, moment))
        (root / f"folder {number}").mkdir()
        os.utime(root / f"folder {number}", ns=(moment, moment))
    before = {each.name: each.stat().st_mtime_ns for each in root.iterdir()}
    target, _ = brought_back(runner, root)
    assert {each.name: each.stat().st_mtime_ns for each in target.iterdir()} == before


def test_modes_come_back_and_set_id_bits_of_files_do_not(runner: Runner, root: Path) -> None:
    modes = {"sticky": 0o1777, "group": 0o2775, "closed": 0o500}
    for name, mode in modes.items():
        (root / name).mkdir()
        (root / name / "in").touch()
        (root / name).chmod(mode)
    (root / "program").write_text("x")
    (root / "program").chmod(0o6755)
    target, _ = brought_back(runner, root)
    assert {name: stat.S_IMODE((target / name).stat().st_mode) for name in modes} == modes
    assert stat.S_IMODE((target / "program").stat().st_mode) == 0o755


def test_pipes_sockets_and_devices_are_left_out_told_of_and_never_waited_for(
    runner: Runner, root: Path
) -> None:
    (root / "file").write_text("x")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        kinds = ["pipe", "socket"]
        if os.geteuid() == 0:
            os.mknod(root / "device", stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it has no end
            kinds.append("device")
        target, made = brought_back(runner, root)
    assert [each.name for each in target.iterdir()] == ["file"]
    assert all(f"'{kind}' is neither file, folder nor link" in warnings(runner, made) for kind in kinds)
    assert runner.metadata(made).artifacts[0].statistics["skipped"] == len(kinds)


def test_links_that_lead_nowhere_in_circles_or_out_are_only_links(runner: Runner, root: Path) -> None:
    for name, leads in {
        "nowhere": "nothing",
        "self": "self",
        "a": "b",
        "b": "a",
        "up": "..",
        "root": "/",
    }.items():
        (root / name).symlink_to(leads)
    (root / "long").symlink_to("x/" * 2000)
    (root / "file").touch()
    target, _ = brought_back(runner, root)
    assert oracle(target) == oracle(root)


def test_owners_of_any_number_are_in_the_archive_and_what_comes_back_belongs_to_who_restores(
    runner: Runner, root: Path
) -> None:
    (root / "file").touch()
    expected = f"{os.geteuid()}/{os.getegid()}"
    if os.geteuid() == 0:  # nobody else gives files away
        os.chown(root / "file", 4_294_967_294, 2_147_483_648)
        expected = "4294967294/2147483648"
    target, made = brought_back(runner, root)
    artifact = root.parent / "volume" / PREFIX / "files" / f"{made.backup_id}.tar.gz"
    listed = subprocess.run(
        ["tar", "--numeric-owner", "-tvzf", artifact, "file"], capture_output=True, text=True, check=True
    ).stdout
    assert expected in listed
    assert (target / "file").stat().st_uid == os.geteuid()


def test_another_file_system_in_the_tree_is_read_or_left_out_as_asked(runner: Runner, root: Path) -> None:
    with small(root / "mounted", "1m"):
        (root / "mounted" / "inside").write_text("x")
        (root / "file").touch()
        whole = runner.backup(source(root), kind="files")
        without = runner.backup(source(root, one_file_system=True), kind="files")
    entries = [runner.metadata(each).artifacts[0].statistics["entries"] for each in (whole, without)]
    assert entries == [3, 2]


@pytest.mark.parametrize("on", ["a file", "a folder"])
def test_attributes_that_a_backup_does_not_hold_are_told_of(runner: Runner, root: Path, on: str) -> None:
    """An ACL is an extended attribute too."""
    (root / "folder").mkdir()
    (root / "file").write_text("x")
    assert warnings(runner, runner.backup(source(root), kind="files")) == ""
    os.setxattr(root / ("file" if on == "a file" else "folder"), "user.origin", b"sequencer 7")
    told = warnings(runner, runner.backup(source(root), kind="files"))
    assert (
        f"'{on.partition(' ')[2]}' has an ACL" in told
        and "not part of this backup" in told
        and "preserve.extendedAttributes" in told
    )


def test_attributes_that_a_system_gives_to_every_file_are_not_worth_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.listxattr", lambda *_, **__: ["security.selinux", "system.nfs4_acl"])
    assert not platforms.has_attributes(0)
    monkeypatch.setattr("os.listxattr", lambda *_, **__: ["security.selinux", "system.posix_acl_default"])
    assert platforms.has_attributes("/")


@pytest.mark.parametrize("strategy", ["InPlace", "Swap"])
def test_a_disk_that_fills_up_midway_leaves_the_old_files_or_a_marked_folder(
    runner: Runner, root: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan found room for it, and somebody else takes that meanwhile."""
    for number in range(8):
        (root / f"{number}").write_bytes(os.urandom(250_000))
    made = runner.backup(source(root), kind="files")
    with small(root.with_name("disk"), "4m") as disk:
        for number in range(4):
            (disk / f"{number}").write_text(f"old {number}")
        with (disk / "filler").open("wb", buffering=0) as filler:
            while os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize > 1_000_000:
                filler.write(bytes(4096))
        before = oracle(disk)
        monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
        with pytest.raises(RestoreFailed, match="No space left on device"):
            runner.restore(made, source(disk), strategy=strategy)
        if strategy == "Swap":
            assert oracle(disk) == before
        else:
            with pytest.raises(SourceInvalid) as refused:
                runner.backup(source(disk), kind="files")
            assert refused.value.reason == "RestoreIncomplete"
        (disk / "filler").unlink()
        runner.restore(made, source(disk), strategy="InPlace")
        assert oracle(disk) == oracle(root)
