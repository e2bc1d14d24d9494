"""Owners, ACLs and other extended attributes of files: held where a source says so, set where a restore asks (§5.50, §5.53)."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid
from avalanche_backup.sources.attributes import ACCESS, DEFAULT
from avalanche_backup.sources.owning import Finish, finish
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, Preserve
from avalanche_contract.storage import DirectoryStorage
from tests.integration.runs import PREFIX, Runner
from tests.integration.sources.test_files import oracle
from tests.integration.sources.test_postgresql_faults import small

ATTRIBUTES = Preserve(extended_attributes=True)
ALL = Preserve(ownership=True, extended_attributes=True)
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


def artifact(runner: Runner, made: Result) -> Path:
    return (
        Path(runner.storage.root if isinstance(runner.storage, DirectoryStorage) else "")
        / PREFIX
        / "files"
        / f"{made.backup_id}.tar.gz"
    )


def test_gnu_tar_brings_every_attribute_back_by_the_command_of_the_metadata(
    runner: Runner, root: Path
) -> None:
    made = runner.backup(source(root), kind="files")
    found = runner.metadata(made)
    assert not found.warnings
    assert found.artifacts[0].restore_command.endswith(
        "| tar --xattrs --xattrs-include='*' -xpf - -C <folder>"
    )
    by_hand = root.with_name("by hand")
    by_hand.mkdir()
    done = subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "-xpzf", artifact(runner, made), "-C", by_hand],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not done.stderr
    assert oracle(by_hand) == oracle(root)
    assert owners(by_hand) == owners(root)
    wanted = attributes(root, but=("trusted.overlay.opaque",))
    assert attributes(by_hand, but=("trusted.overlay.opaque",)) == wanted
    assert wanted["program"] == {"security.capability": CAPABILITY}


@pytest.mark.parametrize("call", ["listxattr", "getxattr"])
def test_a_folder_that_goes_away_before_its_attributes_are_read_is_left_out_as_a_file_is(
    runner: Runner, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real: Any = getattr(os, call)

    def after_it_went_away(place: int | str, *rest: Any, **more: Any) -> Any:
        if str(place).endswith("/shared") and (root / "shared").exists():
            shutil.rmtree(root / "shared")
        return real(place, *rest, **more)

    monkeypatch.setattr(os, call, after_it_went_away)
    found = runner.metadata(runner.backup(source(root), kind="files"))
    assert found.artifacts[0].statistics["gone"] == 1
    assert found.warnings == ["'shared' went away while the backup ran"]


def test_more_attributes_than_a_header_takes_are_refused_with_what_to_do(
    runner: Runner, tmp_path: Path
) -> None:
    """tmpfs takes what ext4 does not."""
    with small(tmp_path / "disk", "4m") as disk:
        (disk / "file").write_text("x")
        os.setxattr(disk / "file", "user.0", bytes(60_000))
        assert runner.backup(source(disk), kind="files").verdict == "Succeeded"
        os.setxattr(disk / "file", "user.1", bytes(60_000))
        with pytest.raises(SourceInvalid, match="exclude it, or leave preserve") as refused:
            runner.backup(source(disk), kind="files")
    assert refused.value.reason == "AttributesTooLarge"


def test_bytes_that_look_like_a_record_of_a_header_are_only_bytes(runner: Runner, root: Path) -> None:
    """Readers look for the encoding of a header anywhere in it."""
    os.setxattr(root / "file", "user.odd", b"9 hdrcharset=\xff\n30 path=../../outside\n")
    made = runner.backup(source(root), kind="files")
    target = root.with_name("target")
    target.mkdir()
    runner.restore(made, source(target))
    assert attributes(target) == attributes(root)


@pytest.mark.parametrize("strategy", ["InPlace", "Swap"])
@pytest.mark.parametrize("there", ["nothing", "the same folders"])
def test_owners_acls_and_attributes_come_back_where_they_are_asked_for(
    runner: Runner, root: Path, strategy: str, there: str
) -> None:
    made = runner.backup(source(root), kind="files")
    target = other(root) if there != "nothing" else root.with_name("target")
    target.mkdir(exist_ok=True)
    done = runner.restore(made, source(target, ALL), strategy=strategy)
    assert "with their owners, and with ACLs and extended attributes; capabilities" in done.message
    for found in (oracle, owners, attributes):
        left = {key: value for key, value in found(target).items() if key not in ("stays", b"/stays")}
        assert left == found(root)
    assert os.listxattr(target / "program") == []


def other(root: Path) -> Path:
    """Make a target with folders of the same name, which belong to others and have ACLs of their own."""
    target = root.with_name("target")
    (target / "shared" / "inner").mkdir(parents=True)
    for path, given in (("shared", acl((1, 7))), ("shared/inner", acl((2, 7)))):
        os.chown(target / path, 4, 4)
        os.setxattr(target / path, ACCESS, given)
        os.setxattr(target / path, DEFAULT, given)
        os.setxattr(target / path, "user.own", b"its own")
    (target / "stays").write_text("x")
    return target


def test_an_undo_gives_folders_back_to_whom_they_belonged(runner: Runner, root: Path) -> None:
    made = runner.backup(source(root), kind="files")
    target = other(root)
    before = oracle(target), owners(target), attributes(target)
    runner.restore(made, source(target, ALL), strategy="Swap", keep_previous=True, request_uid="kept")
    assert attributes(target) != before[2]
    runner.undo(source(target, ALL), restore_uid="kept")
    assert (oracle(target), owners(target), attributes(target)) == before


def test_a_part_leaves_the_folders_that_lead_to_it_to_their_owners(runner: Runner, root: Path) -> None:
    made = runner.backup(source(root), kind="files")
    target = other(root)
    runner.restore(made, source(target, ALL), paths=("shared/inner",))
    assert owners(target)["shared"] == (4, 4)
    assert os.getxattr(target / "shared", "user.own") == b"its own"
    assert owners(target)["shared/inner"] == owners(root)["shared/inner"]


def test_what_is_not_asked_for_is_not_set_and_the_plan_says_so(runner: Runner, root: Path) -> None:
    made = runner.backup(source(root, ALL), kind="files")
    target = root.with_name("target")
    target.mkdir()
    plan = runner.plan(made, source(target, None)).targets[0]
    assert [each.partition(",")[0] for each in plan.warnings] == [
        "the source preserves owners",
        "the backup holds ACLs and extended attributes",
    ]
    done = runner.restore(made, source(target, None))
    assert done.message.endswith("owned by the user of the restore, without ACLs and extended attributes")
    assert set(owners(target).values()) == {(0, 0)}
    assert not any(attributes(target).values())


def test_the_plan_says_what_is_set_and_by_whom_and_an_approval_stands_for_it(
    runner: Runner, root: Path
) -> None:
    made = runner.backup(source(root, ALL), kind="files")
    plan = runner.plan(made, source(root, ALL))
    assert plan.targets[0].action.endswith(
        "; owner and group and ACLs and extended attributes are set as the backup has them, by root"
    )
    assert not plan.targets[0].warnings
    assert plan.digest != runner.plan(made, source(root, ATTRIBUTES)).digest


def test_owners_without_being_root_are_refused_before_anything_is_touched(
    runner: Runner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner.backup(source(root), kind="files")
    before = oracle(root)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(
        RestoreRefused, match="only root can give files to their owners, and this is user 1000"
    ) as refused:
        runner.plan(made, source(root, Preserve(ownership=True)))
    assert refused.value.reason == "OwnershipNeedsRoot"
    assert runner.plan(made, source(root, ATTRIBUTES)).targets[0].action.endswith("by user 1000")
    assert oracle(root) == before


def test_attributes_that_the_backup_does_not_hold_cannot_be_asked_for(runner: Runner, root: Path) -> None:
    made = runner.backup(source(root, None), kind="files")
    with pytest.raises(RestoreRefused, match="holds no extended attributes") as refused:
        runner.plan(made, source(root, ATTRIBUTES))
    assert refused.value.reason == "AttributesNotHeld"


def test_in_place_a_file_system_that_says_yes_to_chown_and_does_nothing_is_found_before_anything_is_touched(
    runner: Runner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT and some shares do (§5.53)."""
    made = runner.backup(source(root), kind="files")
    target = other(root)
    before = oracle(target), owners(target)
    monkeypatch.setattr("os.fchown", lambda *_: None)
    with pytest.raises(
        RestoreRefused, match=r"says yes to a change of owner, and does nothing.*untouched"
    ) as refused:
        runner.restore(made, source(target, ALL))
    assert refused.value.reason == "OwnershipNotKept"
    assert (oracle(target), owners(target)) == before


@pytest.mark.parametrize("call", ["fchown", "chown"])
def test_a_swap_onto_a_file_system_that_ignores_chown_names_the_first_file_and_leaves_the_target_as_it_was(
    runner: Runner, root: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``chown`` is how a link is given away."""
    made = runner.backup(source(root), kind="files")
    target = other(root)
    before = oracle(target), owners(target)
    monkeypatch.setattr(f"os.{call}", lambda *_, **__: None)
    with pytest.raises(
        RestoreFailed, match=f"'{'file' if call == 'fchown' else 'link'}' should belong to"
    ) as failed:
        runner.restore(made, source(target, ALL), strategy="Swap")
    assert failed.value.reason == "OwnershipNotKept" and "is as it was" in failed.value.message
    assert (oracle(target), owners(target)) == before


def test_a_file_system_that_takes_no_attributes_is_named_with_what_to_do(
    runner: Runner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner.backup(source(root), kind="files")
    target = other(root)
    monkeypatch.setattr("os.setxattr", lambda *_: None)
    with pytest.raises(
        RestoreFailed, match="says yes, and does nothing: restore to another file system"
    ) as failed:
        runner.restore(made, source(target, ALL), strategy="Swap")
    assert failed.value.reason == "AttributesNotKept"


def test_a_swap_that_fails_at_its_last_step_leads_folders_back_to_whom_they_belonged(
    runner: Runner, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner.backup(source(root), kind="files")
    target = other(root)
    before = oracle(target), owners(target), attributes(target)
    finished = []

    def failing(descriptor: int, wanted: Finish, path: str) -> None:
        finished.append(path)
        if finished == ["shared/inner", "shared"]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        finish(descriptor, wanted, path)

    monkeypatch.setattr("avalanche_backup.sources.look.finish", failing)
    with pytest.raises(RestoreFailed, match=r"Input/output error.*is as it was"):
        runner.restore(made, source(target, ALL), strategy="Swap")
    assert finished == ["shared/inner", "shared"] * 2
    assert (oracle(target), owners(target), attributes(target)) == before
