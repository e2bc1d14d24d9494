"""Files, archived with an index of every hash and put back beneath a root."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import resource
import subprocess
import tarfile
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid, VerificationFailed
from avalanche_backup.sources.archive import CHUNK
from avalanche_backup.sources.base import Dump, Incoming
from avalanche_backup.sources.entries import Stream
from avalanche_backup.sources.extract import extract
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.tree import MARKER
from avalanche_contract.request import Compression
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource
from avalanche_contract.storage import Storage
from tests.integration.runs import PREFIX, Runner

Tree = dict[bytes, tuple[Any, ...]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    deep = root / "data" / "x" / ("long-" * 30) / ("name-" * 30)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (root / "data" / "empty").mkdir()
    (root / "data" / "nothing").touch()
    (root / "data" / "-odd\nname").write_bytes(os.urandom(3_000_000))
    Path(os.fsdecode(bytes(root) + b"/data/\xff\xfe")).write_bytes(b"no encoding")
    (root / "data" / "@avalanche:0123456789abcdef:end {}").write_text("protocol")
    (root / "data" / "link").symlink_to("../outside")
    os.link(root / "data" / "nothing", root / "data" / "hard")
    (root / "data" / "mode").write_text("x")
    (root / "data" / "mode").chmod(0o640)
    os.utime(root / "data" / "mode", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    return root


def oracle(root: Path) -> Tree:
    """Walk a tree without any of our code."""
    found: Tree = {}
    for folder, folders, names in os.walk(bytes(root)):
        for name in [*folders, *names]:
            path = folder + b"/" + name
            status = os.lstat(path)
            if os.path.islink(path):  # noqa: PTH114
                content: Any = os.readlink(path)  # noqa: PTH115
            elif os.path.isdir(path):  # noqa: PTH112
                content = "folder"
            else:
                with open(path, "rb") as file:  # noqa: PTH123 - a name in no encoding
                    content = hashlib.sha256(file.read()).hexdigest(), status.st_mtime_ns
            found[path[len(bytes(root)) :]] = (status.st_mode if content != "link" else 0, content)
    return found


def source(root: Path, **more: Any) -> FilesSource:
    return FilesSource(name="files", root=str(root), **more)


def test_a_tree_comes_back_as_it_was(storage: Storage, tmp_path: Path, tree: Path) -> None:
    runner, target = Runner(storage, tmp_path / "scratch"), tmp_path / "target"
    target.mkdir()
    made = runner.backup(source(tree), kind="files")
    assert not runner.plan(made, source(target)).needs_approval
    runner.execute(made, source(target), None)
    assert oracle(target) == oracle(tree)
    assert (target / "data/hard").stat().st_ino == (target / "data/nothing").stat().st_ino


def test_gnu_tar_reads_an_artifact_and_the_index_lists_every_file(
    runner: Runner, tmp_path: Path, tree: Path
) -> None:
    made = runner.backup(source(tree), kind="files")
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    folder = tmp_path / "volume" / PREFIX / "files"
    subprocess.run(["tar", "-xpzf", folder / f"{made.backup_id}.tar.gz", "-C", by_hand], check=True)
    assert oracle(by_hand) == oracle(tree)
    index = subprocess.run(
        ["zstd", "-dc", folder / f"{made.backup_id}_index.ndjson.zst"], capture_output=True, check=True
    ).stdout
    entries = [json.loads(line) for line in index.splitlines()]
    assert len(entries) == len(oracle(tree))
    odd = next(each for each in entries if each["path"] == "data/-odd\nname")
    assert odd["sha256"] == hashlib.sha256((tree / "data/-odd\nname").read_bytes()).hexdigest()


def test_a_part_comes_back_and_other_files_stay(runner: Runner, tree: Path) -> None:
    made = runner.backup(source(tree), kind="files")
    (tree / "data/mode").write_text("changed")
    (tree / "data/nothing").write_text("changed")
    (tree / "data/new").write_text("new")
    runner.restore(made, source(tree), paths=("data/mode",))
    assert (tree / "data/mode").read_text() == "x"
    assert (tree / "data/nothing").read_text() == "changed" and (tree / "data/new").read_text() == "new"


def test_excluded_files_are_left_out(runner: Runner, tmp_path: Path, tree: Path) -> None:
    made = runner.backup(source(tree, exclude=("mode", "data/x/*")), kind="files")
    target = tmp_path / "target"
    target.mkdir()
    runner.execute(made, source(target), None)
    assert not (target / "data/mode").exists() and (target / "data/link").is_symlink()


def test_an_empty_tree_is_refused(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    assert _fails(runner, source(tmp_path / "empty")).reason == "SourceEmpty"


def test_a_missing_path_is_refused(runner: Runner, tree: Path) -> None:
    assert _fails(runner, source(tree, paths=("data", "nowhere"))).reason == "SourceMissing"


def test_a_file_that_is_truncated_while_it_is_read_fails(tree: Path, tmp_path: Path) -> None:
    class Truncating:
        count = 0

        def write(self, data: bytes | memoryview) -> None:
            self.count += len(data)
            if self.count > CHUNK:
                os.truncate(tree / "data/-odd\nname", CHUNK)

    with pytest.raises(SourceInvalid, match="truncated while it was read"):
        FileTree(source(tree)).dump(Truncating(), beside=None, scratch=tmp_path, progress=lambda _: None)


def test_a_disk_that_fails_under_a_file_fails_the_backup_by_the_name_of_the_file(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(descriptor: int, size: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("avalanche_backup.sources.archive.os.read", failing)
    with pytest.raises(SourceInvalid, match="Input/output error") as raised:
        FileTree(source(tree)).dump(
            Doing(lambda: None, 0), beside=None, scratch=tmp_path, progress=lambda _: None
        )
    assert raised.value.reason == "SourceUnreadable"
    assert "data" in raised.value.message


class Doing:
    """A sink that does something once, when so many bytes have come: in the middle of a dump."""

    def __init__(self, act: Callable[[], None], after: int) -> None:
        self._act: Callable[[], None] | None = act
        self._left = after

    def write(self, data: bytes | memoryview) -> None:
        """Take bytes, and act where it is time."""
        self._left -= len(data)
        if self._left < 0 and self._act is not None:
            act, self._act = self._act, None
            act()


def _dump(wanted: FilesSource, act: Callable[[], None], scratch: Path, after: int = 4000) -> Dump:
    return FileTree(wanted).dump(Doing(act, after), beside=None, scratch=scratch, progress=lambda _: None)


def test_what_goes_away_under_a_backup_is_told_of(tree: Path, tmp_path: Path) -> None:
    dump = _dump(source(tree), (tree / "data/mode").unlink, tmp_path)
    assert dump.statistics["gone"] == 1 and any("went away" in each for each in dump.warnings)


def test_a_folder_that_goes_away_is_told_of_as_a_file_is(tree: Path, tmp_path: Path) -> None:
    dump = _dump(source(tree), (tree / "data/empty").rmdir, tmp_path)
    assert dump.statistics["gone"] == 1 and not (tree / "data/empty").exists()


def test_a_tree_that_is_cleared_under_a_backup_is_no_smaller_success(tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(100):
        (root / f"{number:03}").write_text("x")

    def clear() -> None:
        for number in range(50, 100):
            (root / f"{number:03}").unlink()

    with pytest.raises(SourceInvalid, match="50 of 100 entries went away") as raised:
        _dump(source(root), clear, tmp_path)
    assert raised.value.reason == "SourceChanged"


def test_a_file_that_is_written_to_while_it_is_read_is_told_of(tree: Path, tmp_path: Path) -> None:
    def write() -> None:
        with (tree / "data/-odd\nname").open("r+b") as file:
            file.seek(2_900_000)
            file.write(b"new")

    dump = _dump(source(tree), write, tmp_path, after=CHUNK)
    assert dump.statistics["changed"] == 1 and any("old and new" in each for each in dump.warnings)


@pytest.mark.parametrize("chosen", ["way", "way/x", "data/mode/x"])
def test_a_path_that_is_a_link_or_leads_through_one_or_through_a_file_is_refused(
    runner: Runner, tree: Path, chosen: str
) -> None:
    (tree / "way").symlink_to("data")
    reason = "SourceIsLink" if "way" in chosen else "SourceMissing"
    assert _fails(runner, source(tree, paths=(chosen,))).reason == reason


@pytest.mark.parametrize("path", ["..", "/etc", "a/../b", ""])
def test_a_path_out_of_the_root_is_refused_before_anything(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not relative to the root"):
        source(tmp_path, paths=(path,))


def test_a_tree_deeper_than_pythons_stack_comes_back(runner: Runner, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    root, target = tmp_path / "deep", tmp_path / "target"
    try:
        for each in (root, target):
            each.mkdir()
        _dig(root, 600)
        made = runner.backup(source(root), kind="files")
        runner.execute(made, source(target), None)
        listed = [
            subprocess.run(
                ["find", ".", "-printf", "%d %f\n"], cwd=each, capture_output=True, check=True
            ).stdout
            for each in (root, target)
        ]
        assert listed[0] == listed[1] and listed[0].endswith(b"601 bottom\n")
    finally:
        subprocess.run(["rm", "-rf", root, target], check=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _dig(root: Path, levels: int) -> None:
    folder = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


def test_a_part_makes_the_folders_that_lead_to_it_as_they_were(
    runner: Runner, tree: Path, tmp_path: Path
) -> None:
    (tree / "data").chmod(0o2755)
    made, target = runner.backup(source(tree), kind="files"), tmp_path / "target"
    target.mkdir()
    runner.restore(made, source(target), paths=("data/mode",))
    assert (target / "data").stat().st_mode & 0o7777 == 0o2755
    assert [each.name for each in (target / "data").iterdir()] == ["mode"]


def test_a_hard_link_to_what_was_not_chosen_is_refused_and_not_made_to_another_file(
    runner: Runner, tree: Path
) -> None:
    made = runner.backup(source(tree), kind="files")
    first, second = sorted(["data/hard", "data/nothing"])
    (tree / first).unlink()
    (tree / first).write_text("another file by now")
    with pytest.raises(RestoreFailed) as raised:
        runner.restore(made, source(tree), paths=(second,))
    assert raised.value.reason == "LinkOutsidePaths"


def test_a_part_does_not_make_whole_what_an_earlier_restore_left_unfinished(
    runner: Runner, tree: Path
) -> None:
    made = runner.backup(source(tree), kind="files")
    (tree / MARKER).touch()
    runner.restore(made, source(tree), paths=("data/mode",))
    assert (tree / MARKER).exists()
    runner.restore(made, source(tree))
    assert not (tree / MARKER).exists()


def test_files_where_the_backup_lay_need_an_approval_whatever_the_policy_names_by_now(
    runner: Runner, tree: Path
) -> None:
    made = runner.backup(source(tree, paths=("data",)), kind="files")
    (tree / "other").mkdir()
    assert runner.plan(made, source(tree, paths=("other",))).needs_approval


def test_one_more_file_among_thousands_is_another_plan(runner: Runner, tmp_path: Path) -> None:
    root = tmp_path / "many"
    root.mkdir()
    for number in range(3000):
        (root / str(number)).touch()
    made = runner.backup(source(root), kind="files")
    before = runner.plan(made, source(root)).digest
    (root / "zzz").touch()
    assert runner.plan(made, source(root)).digest != before


def test_a_folder_that_its_user_may_not_read_is_said_plainly() -> None:
    # Not beneath pytest's folders: only root may enter those, and under xdist there is one more of them.
    with tempfile.TemporaryDirectory() as outside:
        Path(outside).chmod(0o711)
        closed = Path(outside) / "closed"
        closed.mkdir()
        closed.chmod(0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # nothing is closed to root
        try:
            with pytest.raises(SourceInvalid) as raised:
                FileTree(source(closed)).inspect()
        finally:
            os.seteuid(user)
    assert raised.value.reason == "SourceUnreadable"


def test_a_sparse_entry_is_refused_before_it_becomes_large(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "hole").open("wb") as file:
        file.truncate(300_000_000)
    archive = subprocess.run(
        ["tar", "--sparse", "--format=gnu", "-cf", "-", "-C", tmp_path / "in", "hole"],
        capture_output=True,
        check=True,
    ).stdout
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(RestoreFailed, match="sparse"):
        _extract(target, archive)
    assert not (target / "hole").exists()


def test_many_entries_take_no_memory_for_each(tmp_path: Path) -> None:
    entries = [
        (f"{number:06}", tarfile.DIRTYPE if number % 2 else tarfile.SYMTYPE, "x") for number in range(20_000)
    ]
    archive, target = _archive(*entries), tmp_path / "target"
    target.mkdir()
    tracemalloc.start()
    root = os.open(target, os.O_RDONLY)
    try:
        extract(Stream(archive[at : at + CHUNK] for at in range(0, len(archive), CHUNK)), root, ("none",))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(root)
    assert peak < 4_500_000


def test_a_tree_whose_restore_did_not_end_is_not_backed_up(runner: Runner, tree: Path) -> None:
    (tree / MARKER).touch()
    assert _fails(runner, source(tree)).reason == "RestoreIncomplete"


@pytest.mark.parametrize("name", ["../out", "/out", "data/../../out", "link/out", "./out", "a//b"])
def test_an_entry_that_would_leave_the_target_is_refused(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "outside").mkdir()
    archive = _archive(("link", tarfile.SYMTYPE, "../outside"), (name, tarfile.REGTYPE, ""))
    if name == "link/out":
        _extract(target, archive)  # the link gives way to a folder of the target's own
        assert (target / "link/out").is_file() and not (target / "link").is_symlink()
    else:
        with pytest.raises(RestoreFailed):
            _extract(target, archive)
        assert (target / MARKER).exists()
    assert not (tmp_path / "out").exists() and list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(RestoreFailed, match="device"):
        _extract(tmp_path, _archive(("device", kind, "")))


def test_a_hard_link_out_of_the_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RestoreFailed):
        _extract(tmp_path, _archive(("passwd", tarfile.LNKTYPE, "../../etc/passwd")))


def test_paths_that_the_backup_does_not_hold_are_refused(runner: Runner, tree: Path) -> None:
    made = runner.backup(source(tree), kind="files")
    with pytest.raises(RestoreRefused, match="holds nothing at"):
        runner.restore(made, source(tree), paths=("nowhere",))


def test_a_restore_into_an_empty_folder_reads_the_backup_once(
    runner: Runner, tree: Path, tmp_path: Path
) -> None:
    made = runner.backup(source(tree), kind="files")
    target = tmp_path / "target"
    (target / "lost+found").mkdir(parents=True)
    plan = runner.plan(made, source(target), strategy=None)
    assert (plan.targets[0].strategy, plan.targets[0].state, plan.needs_approval) == ("Swap", "Empty", False)
    assert _steps(runner, made, target, strategy=None) == ["Restoring"]
    assert _steps(runner, made, target, strategy="InPlace") == ["Checking", "Restoring"]
    assert sorted(each.name for each in target.iterdir()) == ["data", "lost+found"]


@pytest.mark.parametrize("at", [2, 5])
def test_what_an_application_writes_into_an_empty_folder_meanwhile_stays_where_the_backup_is_damaged(
    runner: Runner, tree: Path, tmp_path: Path, at: int
) -> None:
    (tree / "data" / "large").write_bytes(os.urandom(8_000_000))
    made = runner.backup(source(tree), kind="files", compression=Compression(algorithm="None"))
    stored = next(path for path in (tmp_path / "volume").rglob("*.tar"))
    with stored.open("r+b") as file:
        file.seek(stored.stat().st_size * at // 6)
        file.write(b"damage")
    target = tmp_path / "target"
    target.mkdir()
    digest = runner.plan(made, source(target), strategy=None).digest
    (target / "data").mkdir()
    (target / "data" / "of-the-application").touch()
    with pytest.raises((VerificationFailed, RestoreRefused)):
        runner.execute(made, source(target), digest, strategy=None)
    approved = runner.reported.plans[-1].digest
    with pytest.raises(VerificationFailed, match="untouched"):
        runner.execute(made, source(target), approved, strategy=None, plan_number=1)
    assert [each.relative_to(target).as_posix() for each in sorted(target.rglob("*"))] == [
        "data",
        "data/of-the-application",
    ]


def test_a_part_that_is_not_in_the_backup_leaves_no_folder_behind(
    runner: Runner, tree: Path, tmp_path: Path
) -> None:
    made = runner.backup(source(tree), kind="files")
    target = tmp_path / "target"
    target.mkdir()
    for strategy in ("InPlace", "Swap"):
        with pytest.raises(RestoreRefused, match="holds nothing at"):
            runner.restore(made, source(target), paths=("data/x/nowhere",), strategy=strategy)
        assert list(target.iterdir()) == []


def test_fewer_files_than_the_metadata_counts_leave_the_target_marked(tmp_path: Path) -> None:
    archive = _archive(("data", tarfile.DIRTYPE, ""), ("data/file", tarfile.REGTYPE, ""))
    with pytest.raises(RestoreFailed, match=r"the metadata counts 2; .* is marked"):
        _extract(tmp_path, archive, {"statistics": {"files": 2}})
    assert (tmp_path / MARKER).exists()


def _steps(runner: Runner, made: Result, target: Path, **more: Any) -> list[str]:
    runner.reported.phases.clear()
    runner.restore(made, source(target), **more)
    return list(dict.fromkeys(step for step in runner.reported.phases if step != "Verifying"))


def _fails(runner: Runner, wanted: FilesSource) -> Failure:
    with pytest.raises(SourceInvalid) as raised:
        runner.backup(wanted, kind="files")
    assert [key for key in runner.stored() if "/files/" in key] == []
    return raised.value


def _archive(*entries: tuple[str, bytes, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, link in entries:
            information = tarfile.TarInfo(name)
            information.type, information.linkname = kind, link
            archive.addfile(information)
    return made.getvalue()


def _extract(target: Path, archive: bytes, artifact: dict[str, Any] | None = None) -> None:
    def chunks() -> Iterator[bytes]:
        yield archive

    FileTree(source(target)).restore(Incoming(chunks(), artifact or {}, target, lambda _: None))
