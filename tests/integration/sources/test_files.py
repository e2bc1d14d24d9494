"""Files, archived with an index of every hash and put back beneath a root."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid
from avalanche_backup.sources.archive import CHUNK
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.tree import MARKER
from avalanche_contract.request import DirectoryStorage, FilesSource, Storage
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
    volume: Runner, tmp_path: Path, tree: Path
) -> None:
    made = volume.backup(source(tree), kind="files")
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


def test_a_part_comes_back_and_other_files_stay(volume: Runner, tree: Path) -> None:
    made = volume.backup(source(tree), kind="files")
    (tree / "data/mode").write_text("changed")
    (tree / "data/nothing").write_text("changed")
    (tree / "data/new").write_text("new")
    volume.restore(made, source(tree), paths=("data/mode",))
    assert (tree / "data/mode").read_text() == "x"
    assert (tree / "data/nothing").read_text() == "changed" and (tree / "data/new").read_text() == "new"


def test_excluded_files_are_left_out(volume: Runner, tmp_path: Path, tree: Path) -> None:
    made = volume.backup(source(tree, exclude=("mode", "data/x/*")), kind="files")
    target = tmp_path / "target"
    target.mkdir()
    volume.execute(made, source(target), None)
    assert not (target / "data/mode").exists() and (target / "data/link").is_symlink()


def test_an_empty_tree_is_refused(volume: Runner, tmp_path: Path) -> None:
    (tmp_path / "empty" / "folder").mkdir(parents=True)
    assert _fails(volume, source(tmp_path / "empty")).reason == "SourceEmpty"


def test_a_missing_path_is_refused(volume: Runner, tree: Path) -> None:
    assert _fails(volume, source(tree, paths=("data", "nowhere"))).reason == "SourceMissing"


def test_a_file_that_is_truncated_while_it_is_read_fails(tree: Path, tmp_path: Path) -> None:
    class Truncating:
        count = 0

        def write(self, data: bytes | memoryview) -> None:
            self.count += len(data)
            if self.count > CHUNK:
                os.truncate(tree / "data/-odd\nname", CHUNK)

    with pytest.raises(SourceInvalid, match="truncated while it was read"):
        FileTree(source(tree)).dump(Truncating(), index=None, scratch=tmp_path, progress=lambda _: None)


def test_a_tree_whose_restore_did_not_end_is_not_backed_up(volume: Runner, tree: Path) -> None:
    (tree / MARKER).touch()
    assert _fails(volume, source(tree)).reason == "RestoreIncomplete"


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


def test_paths_that_the_backup_does_not_hold_are_refused(volume: Runner, tree: Path) -> None:
    made = volume.backup(source(tree), kind="files")
    with pytest.raises(RestoreRefused, match="holds nothing at"):
        volume.restore(made, source(tree), paths=("nowhere",))


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


def _extract(target: Path, archive: bytes) -> None:
    def chunks() -> Iterator[bytes]:
        yield archive

    FileTree(source(target)).restore(chunks(), artifact={}, paths=(), scratch=target, progress=lambda _: None)


@pytest.fixture
def volume(tmp_path: Path) -> Runner:
    root = tmp_path / "volume"
    root.mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(root)), tmp_path / "scratch")
