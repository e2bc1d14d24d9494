"""Archives as an attacker writes them: nothing beside the target changes, and each is refused in plain words (§5.42)."""

from __future__ import annotations

import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avalanche_backup.errors import Failure, RestoreFailed
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.entries import CHUNK, HEADER_MAX_BYTES
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.postgresql.directory import unpack
from avalanche_backup.sources.tree import MARKER
from avalanche_contract.source import FilesSource, Preserve

BLOCK = tarfile.BLOCKSIZE
FOLDER, LINK, HARD, FILE = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.REGTYPE
END = bytes(2 * BLOCK)
EVERYTHING = Preserve(ownership=True, extended_attributes=True)
WORK = ".avalanche-restoring-01234567"
JOURNAL = b'{"step": "Entry", "path": "kept", "was": false, "mode": null}\n'


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Give an empty target; beside it lie what an escape would reach, and a folder whose name begins like the target's."""
    for each in ("target", "target2", "outside"):
        (tmp_path / each).mkdir()
    (tmp_path / "outside" / "canary").write_text("alive")
    (tmp_path / "outside").chmod(0o751)
    return tmp_path / "target"


def entry(name: str, kind: bytes = FILE, link: str = "", content: bytes = b"", **more: object) -> bytes:
    """Write one entry as GNU tar would: what has no place in a header comes before it."""
    information = tarfile.TarInfo(name)
    information.type, information.linkname, information.size = kind, link, len(content)
    for field, value in more.items():
        setattr(information, field, value)
    made = information.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return made + content + bytes(-len(content) % BLOCK)


def header(name: str = "x", kind: bytes = FILE, size: bytes = b"00000000000\0") -> bytes:
    """Write a header whose size field holds just these bytes, with the right checksum."""
    made = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    made[124:136], made[156:157], made[148:156] = size, kind, b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def pax(records: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Write an extended header."""
    body = b""
    for key, value in records.items():
        length = len(f" {key}={value}\n".encode())
        total = length + len(str(length + len(str(length))))
        body += f"{total} {key}={value}\n".encode()
    return entry("pax", kind, content=body)


def _deep_chain() -> bytes:
    """Write ten thousand links, each to the next, and a file through them (the form of CVE-2025-4517)."""
    links = [entry(f"{number:05}", LINK, f"{number + 1:05}") for number in range(10_000)]
    return b"".join([*links, entry("10000", LINK, "../outside"), entry("00000/canary", content=b"dead")])


LEAVING = {
    "a parent": entry("../outside/canary", content=b"dead"),
    "a parent midway": entry("a/../../outside/canary", content=b"dead"),
    "an absolute path": entry("/tmp/avalanche-canary", content=b"dead"),
    "a sibling that begins alike": entry("../target2/canary", content=b"dead"),
    "a path override": pax({"path": "../outside/canary"}) + entry("harmless", content=b"dead"),
    "a long name": entry("../" * 60 + "outside/canary", content=b"dead"),
    "a hard link out": entry("x", HARD, "../outside/canary"),
    "a hard link to an absolute path": entry("x", HARD, "/etc/passwd"),
    "a hard link through a link": entry("a", LINK, "../outside") + entry("x", HARD, "a/canary"),
    "a folder that is a parent": entry("..", FOLDER, mode=0o777),
    "the folder itself": entry(".", FOLDER, mode=0o777),
    "no name": entry("", content=b"dead"),
    "the marker": entry(MARKER, FOLDER),
    "the marker's place": entry(f"{MARKER}/x", content=b"x"),
    "a journal that the next restore would obey": entry(f"{WORK}/journal", content=JOURNAL),
    "a journal deeper down": entry(f"a/{WORK}/journal", content=JOURNAL),
    "what an undo would bring back": entry(".avalanche-previous-01234567/old/x", content=b"x"),
    "a hard link to a journal": entry("x", HARD, f"{WORK}/journal"),
    "a folder that becomes a link before its mode is set": entry("a", FOLDER, mode=0o777)
    + entry("a", LINK, "../outside"),
    "a character device": entry("x", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "a block device": entry("x", tarfile.BLKTYPE, devmajor=8),
    "a pipe": entry("x", tarfile.FIFOTYPE),
    "a type that nobody knows": entry("x", b"Z"),
    "a name with a NUL": pax({"path": "a\0b"}) + entry("x"),
    "a link with a NUL": pax({"linkpath": "a\0b"}) + entry("x", LINK, "y"),
    "a name that is too long for a file system": entry("n" * 256, content=b"x"),
    "a time that is none": pax({"mtime": "inf"}) + entry("x"),
    "a time after the end of time": pax({"mtime": "999999999999.5"}) + entry("x"),
    "a folder's time that is none": pax({"mtime": "nan"}) + entry("x", FOLDER),
    "a file below a file": entry("a", content=b"x") + entry("a/b", content=b"x") + entry("a", FOLDER) + entry("b", HARD, "c"),
}  # fmt: skip

BROKEN = {
    "a negative size": header(size=b"\xff" * 12) + END,
    "a negative size in an extended header": pax({"size": "-1024"}) + entry("x") + END,
    "a size of 8 EiB": header(size=b"\x80\0\0\0\x7f" + b"\xff" * 7) + END,
    "a sparse file of 8 GiB": header(kind=tarfile.GNUTYPE_SPARSE) + END,
    "a sparse map in the content": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**60)})
    + entry("x", content=b"9999999999\n" * 2000) + END,
    "a sparse map in the header": pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**60)}) + entry("x") + END,
    "a header without end": header(kind=tarfile.XHDTYPE, size=b"%011o\0" % 2**33) + b"x" * 10_000_000,
    "a header over the limit": entry("pax", tarfile.XHDTYPE, content=b"1" * (HEADER_MAX_BYTES + 1)) + END,
    "a long name without end": header(kind=tarfile.GNUTYPE_LONGNAME, size=b"\x80\0\0\0" + b"\x7f" * 8) + END,
    "headers without an entry": pax({"comment": "x"}) * 20_000 + entry("x") + END,
    "a header of headers of no length": entry("pax", tarfile.XHDTYPE, content=b"0 a=b\n") + entry("x") + END,
    "a length with thousands of digits": entry("pax", tarfile.XHDTYPE, content=b"9" * 9000 + b" a=b\n") + entry("x") + END,
    "a damaged header midway": entry("a") + b"\x01" * BLOCK + entry("b") + END,
    "a header for all that follows": pax({"comment": "x"}, tarfile.XGLTYPE) + entry("x") + END,
    "a path for all that follows": pax({"path": "x"}, tarfile.XGLTYPE) + entry("a") + END,
    "no end": entry("a"),
    "an end within a header": entry("a") + b"a" * 100,
    "an end within a file": entry("a", content=b"x" * 5000)[:3000],
    "nothing": b"",
    "what is no archive": b"<html>not found</html>" * 100,
}  # fmt: skip


@pytest.mark.parametrize("case", LEAVING)
def test_an_entry_that_is_not_ours_is_refused_and_nothing_beside_the_target_changes(
    case: str, target: Path
) -> None:
    before = _outside(target)
    failure = _refused(target, LEAVING[case] + END)
    assert len(failure.message) < 600
    assert _outside(target) == before and not Path("/tmp/avalanche-canary").exists()
    assert (target / MARKER).is_file()


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_archive_is_refused_at_once_and_takes_no_memory(case: str, target: Path) -> None:
    before = _outside(target)
    failure = _refused(target, BROKEN[case])
    assert "cannot be read" in failure.message or "sparse" in failure.message
    assert _outside(target) == before


@pytest.mark.parametrize(
    "archive",
    [entry("a", LINK, "../outside") + entry("a/canary", content=b"dead"),
     entry("a", LINK, "../outside") + entry("a", FOLDER, mode=0o777) + entry("a/canary", content=b"dead"),
     entry("a", LINK, "../outside/canary") + entry("a", content=b"dead"),
     entry("a", LINK, "../outside/canary") + entry("b", HARD, "a") + entry("b", content=b"dead"), _deep_chain()],
    ids=["into a link", "a folder over a link", "over a link", "over a hard link to a link", "ten thousand links"],
)  # fmt: skip
def test_no_link_is_followed_what_comes_next_takes_its_place(archive: bytes, target: Path) -> None:
    before = _outside(target)
    _restore(target, archive + END)
    assert _outside(target) == before


def test_set_id_bits_of_files_do_not_come_back(target: Path) -> None:
    _restore(target, entry("x", content=b"x", mode=0o6755) + entry("d", FOLDER, mode=0o7755) + END)
    assert stat.S_IMODE((target / "x").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o3755


def test_what_follows_the_end_is_not_extracted(target: Path) -> None:
    _restore(target, entry("a", content=b"a") + END + entry("b", content=b"b") + END)
    assert [each.name for each in target.iterdir()] == ["a"]


def test_of_entries_of_one_name_the_last_one_counts(target: Path) -> None:
    _restore(
        target,
        entry("d", FOLDER, mode=0o777) + entry("d/f", content=b"1") + entry("d/f", content=b"2") + entry("d", FOLDER, mode=0o500) + END,
    )  # fmt: skip
    assert (target / "d" / "f").read_bytes() == b"2" and stat.S_IMODE((target / "d").stat().st_mode) == 0o500


def test_a_path_of_ten_thousand_folders_is_made_beneath_the_target_or_refused(target: Path) -> None:
    before = _outside(target)
    _restore(target, entry("d/" * 10_000 + "f", content=b"deep") + END)
    assert _outside(target) == before and _depth(target) == 10_001
    assert "a header of" in _refused(target, entry("d/" * 100_000 + "f") + END).message
    subprocess.run(["rm", "-rf", target], check=True)  # pytest would need a stack frame for each


def test_names_in_no_encoding_with_line_ends_and_emoji_are_only_names(target: Path) -> None:
    names = [
        b"\xff\xfe",
        b"new\nline",
        "😀".encode(),
        "\u202egnp.exe".encode(),
        b"--help",
        b"n" * 255,
        b"$(id)",
    ]
    _restore(target, b"".join(entry(os.fsdecode(name), content=name) for name in names) + END)
    found = [os.fsencode(each.name) for each in target.iterdir()]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("planted", ["canary", "nothing"])
def test_a_marker_that_the_targets_owner_made_a_link_is_not_followed(planted: str, target: Path) -> None:
    (target / MARKER).symlink_to(target.parent / "outside" / planted)
    before = _outside(target)
    with pytest.raises(Failure):
        _restore(target, entry("a") + END)
    assert _outside(target) == before


def test_links_that_lie_in_the_target_are_not_followed(target: Path) -> None:
    (target / "data").symlink_to(target.parent / "outside")
    before = _outside(target)
    _restore(target, entry("data/canary", content=b"dead") + END)
    assert _outside(target) == before and (target / "data" / "canary").read_bytes() == b"dead"


PIECES = [*LEAVING.values(), *(each for each in BROKEN.values() if len(each) < 30_000), entry("d", FOLDER), END,
          entry("d/f", content=b"f" * 700), entry("l", LINK, "d"), entry("l/f", HARD, "d/f")]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    st.lists(st.sampled_from(PIECES), max_size=6),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 255)), max_size=3),
)
def test_whatever_an_archive_holds_it_is_extracted_or_refused_and_nothing_else_happens(
    target: Path, pieces: list[bytes], flips: list[tuple[int, int]]
) -> None:
    archive, before = bytearray(b"".join(pieces)), _outside(target)
    for place, bits in flips:
        if place < len(archive):
            archive[place] ^= bits
    with suppress(Failure):
        _restore(target, bytes(archive))
    assert _outside(target) == before


@pytest.mark.parametrize(
    "archive",
    [*BROKEN.values(), entry("toc.dat") * 2 + END, entry("../toc.dat") + END, entry("toc.dat", LINK, "/etc/passwd") + END],
    ids=[*BROKEN, "twice", "a parent", "a link"],
)  # fmt: skip
def test_an_archive_of_a_directory_dump_is_refused_alike(archive: bytes, target: Path) -> None:
    before = _outside(target)
    with pytest.raises(Failure) as raised:
        unpack(_chunks(archive), target / "dump", 0)
    assert raised.value.reason in ("ArchiveInvalid", "ArtifactIncomplete")
    assert _outside(target) == before


def attributed(**values: str) -> bytes:
    """Write a header of attributes, ``__`` for each dot."""
    return pax({f"SCHILY.xattr.{name.replace('__', '.')}": value for name, value in values.items()})


def test_attributes_that_make_programs_run_with_rights_or_are_the_systems_are_never_set(target: Path) -> None:
    rights = attributed(
        security__capability="\1\0\0\2\0\4" + 14 * "\0", security__selinux="system_u:object_r:shadow_t:s0",
        trusted__overlay__opaque="y", system__nfs4_acl="x", user__kept="x",
    )  # fmt: skip
    told = _restore(
        target, rights + entry("x", content=b"x", mode=0o4755) + rights + entry("d", FOLDER) + END, EVERYTHING
    )
    assert "of 2 entries, were not set" in told
    assert [os.listxattr(target / each) for each in ("x", "d")] == [["user.kept"]] * 2


ODD = {
    "no name": attributed(**{"": "x"}) + entry("x"),
    "half a name": attributed(user__="x") + entry("x"),
    "a name with a NUL": attributed(**{"user__a\0b": "x"}) + entry("x"),
    "a name that is too long": attributed(**{"user__" + "n" * 300: "x"}) + entry("x"),
    "a value that is too long": attributed(user__a="x" * 70_000) + entry("x"),
    "an ACL that is none": attributed(system__posix_acl_access="\2\0\0\0x") + entry("x"),
    "a folder's ACL on a file": attributed(system__posix_acl_default="\2\0\0\0x") + entry("x"),
    "an ACL of a folder that is none": attributed(system__posix_acl_default="x") + entry("x", FOLDER),
    "nobody's number": entry("x", uid=2**32 - 1),
    "a group below zero": entry("x", gid=-1),
    "a number beyond all": pax({"uid": str(2**70)}) + entry("x", LINK, "y"),
    "a folder of nobody's": entry("x", FOLDER, gid=2**32 - 1),
}  # fmt: skip


@pytest.mark.parametrize("case", [each for each in ODD if each != "no name"])
def test_owners_and_attributes_that_nothing_can_have_are_refused(case: str, target: Path) -> None:
    failure = _refused(target, ODD[case] + END, EVERYTHING)
    assert failure.reason in ("AttributesNotKept", "ArchiveInvalid") and len(failure.message) < 600
    for each in (os.lstat(target / "x") if os.path.lexists(target / "x") else os.lstat(target),):
        assert (each.st_uid, each.st_gid) == (0, 0)


@pytest.mark.parametrize("case", ODD)
def test_owners_and_attributes_that_were_not_asked_for_are_not_even_looked_at(
    case: str, target: Path
) -> None:
    _restore(target, ODD[case] + END)
    assert os.listxattr(target / "x", follow_symlinks=False) == []


def test_neither_owner_nor_attributes_reach_what_a_link_leads_to(target: Path) -> None:
    before = _outside(target)
    given = attributed(user__a="x")
    archive = (
        given + entry("a", LINK, "../outside/canary", uid=7) + given + entry("b", HARD, "a", uid=7)
        + given + entry("c", LINK, "../outside", uid=7) + given + entry("c", FOLDER, uid=7, mode=0o777)
    )  # fmt: skip
    _restore(target, archive + END, EVERYTHING)
    assert _outside(target) == before and os.listxattr(target.parent / "outside" / "canary") == []
    assert os.lstat(target / "a").st_uid == 7
    failure = _refused(
        target, given + entry("d", FOLDER, uid=7) + entry("d", LINK, "../outside", uid=7) + END, EVERYTHING
    )
    assert "no folder any more" in failure.message
    assert _outside(target) == before


@pytest.mark.parametrize("before", [None, "chown"], ids=["before it is looked at", "before it is given away"])
def test_what_the_owner_of_a_folder_puts_in_the_place_of_a_link_is_not_given_away(
    target: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """He may rename what lies in his folder, though it is root's and he cannot read it."""
    symlink, chown = os.symlink, os.chown
    (target / "secret").touch(0o600)

    def swap() -> None:
        for hidden in target.glob(".avalanche-*"):
            if hidden.is_symlink():
                hidden.rename(target / "aside")
                (target / "secret").rename(hidden)
                os.link(hidden, target / "kept")

    def linked(*arguments: Any, **more: Any) -> None:
        symlink(*arguments, **more)
        if before is None:
            swap()

    def given_away(*arguments: Any, **more: Any) -> None:
        swap()
        chown(*arguments, **more)

    monkeypatch.setattr("os.symlink", linked)
    if before:
        monkeypatch.setattr("os.chown", given_away)
    with suppress(RestoreFailed):
        _restore(target, entry("a", LINK, "nowhere", uid=7) + END, EVERYTHING)
    assert (target / "kept").stat().st_uid == 0


def test_folders_with_more_different_acls_than_a_pod_can_remember_are_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("avalanche_backup.sources.extract.LISTS_MAX_BYTES", 1000)
    folders = [
        attributed(system__posix_acl_default=f"{number:0100}") + entry(f"{number}", FOLDER)
        for number in range(20)
    ]
    assert "too many" in _refused(target, b"".join(folders) + END, EVERYTHING).message
    alike = [attributed(user__a=f"{number:0100}") + entry(f"{number}", FOLDER) for number in range(20)]
    _restore(target, b"".join(alike) + END, EVERYTHING)


def _refused(target: Path, archive: bytes, preserve: Preserve | None = None) -> RestoreFailed:
    with pytest.raises(RestoreFailed) as raised:
        _restore(target, archive, preserve)
    return raised.value


def _restore(target: Path, archive: bytes, preserve: Preserve | None = None) -> str:
    tree = FileTree(FilesSource(name="files", root=str(target), preserve=preserve))
    return tree.restore(Incoming(_chunks(archive), {}, target, lambda _: None))


def _chunks(archive: bytes) -> Iterator[bytes]:
    return (archive[at : at + CHUNK] for at in range(0, len(archive), CHUNK))


def _outside(target: Path) -> list[tuple[object, ...]]:
    """Give all that lies beside the target: names, modes, owners, times and contents."""
    found: list[tuple[object, ...]] = [(target.parent.lstat().st_mode,)]
    for each in sorted(target.parent.glob("*[!t]/**/*")) + sorted(target.parent.glob("*[!t]")):
        status = each.lstat()
        content = each.read_bytes() if each.is_file() else b""
        found.append((each, status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, content))
    found.append(tuple(sorted(each.name for each in target.parent.iterdir())))
    return found


def _depth(folder: Path) -> int:
    told = subprocess.run(["find", folder, "-name", "f", "-printf", "%d"], capture_output=True, check=True)
    return int(told.stdout)
