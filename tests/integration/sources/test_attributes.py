"""Owners, ACLs and other extended attributes of files: held where a source says so, set where a restore asks (§5.50, §5.53)."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from avalanche_backup.errors import SourceInvalid
from avalanche_backup.sources.attributes import ACCESS, DEFAULT
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, Preserve
from avalanche_contract.storage import DirectoryStorage
from tests.integration.runs import PREFIX, Runner
from tests.integration.sources.test_files import oracle
from tests.integration.sources.test_postgresql_faults import small

ATTRIBUTES = Preserve(extended_attributes=True)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
"""``cap_net_bind_service``, as ``setcap`` writes it."""


def acl(*named: tuple[int, int]) -> bytes:
    """Write an ACL as the kernel has it: owner rw-, group r--, mask rw-, others none, and (user, permissions)."""
    nobody = 0xFFFFFFFF
    rules = [
        (1, 6, nobody),
        *((2, each, user) for user, each in named),
        (4, 4, nobody),
        (16, 6, nobody),
        (32, 0, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in rules)


ODD = {
    "user.empty": b"",
    "user.any bytes": bytes(range(256)),
    "user.text": "Jörg\n12 comment=x\n".encode(),
    "user.a=b%3Dc": b"a name that a header has to write otherwise",
    os.fsdecode(b"user.\xff"): b"a name in no encoding",
}


@pytest.fixture
def volume(tmp_path: Path) -> Runner:
    (tmp_path / "volume").mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path / "scratch")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a tree with owners and attributes of every kind."""
    root = tmp_path / "root"
    (root / "shared" / "inner").mkdir(parents=True)
    for path, uid, gid in (
        ("shared", 1234, 5678),
        ("shared/inner", 70000, 5678),
        ("file", 1000, 1000),
        ("shared/read-only", 0, 4294967294),
    ):
        if not (root / path).exists():
            (root / path).write_text(path)
        os.chown(root / path, uid, gid)
    (root / "link").symlink_to("file")
    os.chown(root / "link", 1001, 1002, follow_symlinks=False)
    os.link(root / "file", root / "shared" / "hard")
    for name, value in ODD.items():
        os.setxattr(root / "file", name, value)
    os.setxattr(root / "shared" / "read-only", "user.origin", b"sequencer 7")
    (root / "shared" / "read-only").chmod(0o440)
    (root / "shared" / "inner").chmod(0o2770)
    os.setxattr(root / "file", ACCESS, acl((1000, 4), (1010, 6)))
    os.setxattr(root / "shared", ACCESS, acl((1010, 7)))
    os.setxattr(root / "shared", DEFAULT, acl((1020, 6)))
    os.setxattr(root / "shared", "user.kind", b"a folder's")
    (root / "program").write_text("#!/bin/true")
    os.setxattr(root / "program", "security.capability", CAPABILITY)
    os.setxattr(root / "program", "trusted.overlay.opaque", b"y")
    return root


def source(root: Path, preserve: Preserve | None = ATTRIBUTES, **more: object) -> FilesSource:
    return FilesSource.model_validate({"name": "files", "root": str(root), "preserve": preserve, **more})


def attributes(
    root: Path, *, but: tuple[str, ...] = ("security.capability", "trusted.overlay.opaque")
) -> dict[str, dict[str, bytes]]:
    """Read every attribute without any of our code, but for those that are never set."""
    return {
        str(path.relative_to(root)): {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if name not in but
        }
        for path in sorted(root.rglob("*"))
    }


def owners(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_uid, path.lstat().st_gid)
        for path in sorted(root.rglob("*"))
    }


def artifact(volume: Runner, made: Result) -> Path:
    return (
        Path(volume.storage.root if isinstance(volume.storage, DirectoryStorage) else "")
        / PREFIX
        / "files"
        / f"{made.backup_id}.tar.gz"
    )


def test_gnu_tar_brings_every_attribute_back_by_the_command_of_the_metadata(
    volume: Runner, root: Path
) -> None:
    made = volume.backup(source(root), kind="files")
    found = volume.metadata(made)
    assert not found.warnings
    assert found.artifacts[0].restore_command.endswith(
        "| tar --xattrs --xattrs-include='*' -xpf - -C <folder>"
    )
    by_hand = root.with_name("by hand")
    by_hand.mkdir()
    done = subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-xpzf", artifact(volume, made), "-C", by_hand],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not done.stderr
    assert oracle(by_hand) == oracle(root)
    assert owners(by_hand) == owners(root)
    wanted = attributes(root, but=("trusted.overlay.opaque",))
    assert attributes(by_hand, but=("trusted.overlay.opaque",)) == wanted
    assert wanted["program"] == {"security.capability": CAPABILITY}


def test_more_attributes_than_a_header_takes_are_refused_with_what_to_do(
    volume: Runner, tmp_path: Path
) -> None:
    """tmpfs takes what ext4 does not."""
    with small(tmp_path / "disk", "4m") as disk:
        (disk / "file").write_text("x")
        os.setxattr(disk / "file", "user.0", bytes(60_000))
        assert volume.backup(source(disk), kind="files").verdict == "Succeeded"
        os.setxattr(disk / "file", "user.1", bytes(60_000))
        with pytest.raises(SourceInvalid, match="exclude it, or leave preserve") as refused:
            volume.backup(source(disk), kind="files")
    assert refused.value.reason == "AttributesTooLarge"
