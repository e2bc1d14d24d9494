"""A probe of files looks whether they are there, and reads no further than it must."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from avalanche_backup.errors import SourceInvalid
from avalanche_backup.sources import files
from avalanche_backup.sources.files import FileTree
from avalanche_backup.sources.tree import Found, Selection, walk
from avalanche_contract.source import FilesSource


def _tree(root: Path, *paths: str) -> FileTree:
    return FileTree(FilesSource(name="data", root=str(root), paths=paths or (".",)))


def test_a_probe_stops_at_the_first_file_and_a_backup_counts_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        (tmp_path / f"{number}.txt").write_text("x")
    seen: list[str] = []

    def counting(selection: Selection) -> Iterator[Found]:
        for found in walk(selection):
            seen.append(found.path)
            yield found

    monkeypatch.setattr(files, "walk", counting)
    assert _tree(tmp_path).inspect(estimate=False).estimated_bytes is None and len(seen) == 1
    assert _tree(tmp_path).inspect().estimated_bytes == 50 * 1025


def test_a_probe_finds_every_path_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "first").write_text("x")
    (tmp_path / "zoo").mkdir()
    _tree(tmp_path, "in", "zoo").inspect(estimate=False)
    with pytest.raises(SourceInvalid, match="zoo/gone"):
        _tree(tmp_path, "in", "zoo/gone").inspect(estimate=False)


def test_a_probe_of_folders_without_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep" / "er").mkdir(parents=True)
    assert "holds no file in in" in _tree(tmp_path, "in").inspect(estimate=False).empty
    (tmp_path / "in" / "deep" / "file").write_text("x")
    assert _tree(tmp_path, "in").inspect(estimate=False).empty == ""
