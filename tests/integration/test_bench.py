"""What ``make bench`` measures with works: a small folder, backed up and brought back by ours and by tar."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from avalanche_contract.source import FilesSource
from tests.bench import __main__ as bench
from tests.bench import data, measure, peers, report, scenes, tools
from tests.bench.contenders import ZSTD, Place
from tests.bench.measure import Pipe, RunFailed, first_read
from tests.bench.ours import Ours
from tests.bench.scenes import OURS_ZSTD, UNPROVEN, Scene
from tests.cluster.processes import start_time, wait_until

SMALL = data.Scale(1024 * 1024, 20, 10, 10)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(tools, "OURS", sys.executable)
    files, target = data.make_files(tmp_path, SMALL), tmp_path / "target"
    source = FilesSource(name="files", root=str(files))
    ours = Ours(source, "files", scenes._folder, {}, tmp_path / "scratch")

    def clear() -> None:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()

    def compare() -> None:
        Pipe((("diff", "--recursive", files, target),)).run()

    def place(name: str) -> Place:
        return Place(tmp_path / name)

    def back() -> FilesSource:
        return source.model_copy(update={"root": str(target)})

    contenders = [
        ours.contender(place("proven"), "Zstd", back, name=OURS_ZSTD),
        ours.contender(place("unread"), "Zstd", back, name=OURS_ZSTD + UNPROVEN, read_back=False),
        peers.tar(place("tar"), files, target, ZSTD),
    ]
    return Scene("files to a folder", contenders, clear, compare)


def test_a_small_folder_is_measured_and_written_down(scene: Scene, tmp_path: Path) -> None:
    found = scenes.measured(scene, 2, {}, lambda _: None)
    machine = {"date": "2026-01-01", "processors": 1, "processor": "x", "memory_gib": 1, "versions": {}}
    results = json.loads(json.dumps({"scenes": {scene.name: {"machine": machine, "figures": found}}}))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}figures of yesterday{report.END}\nafter\n")
    for _ in range(2):
        report.write(page, results)
    written = page.read_text()
    assert written.startswith("before\n") and written.endswith("after\n") and "yesterday" not in written
    assert "files to a folder: measured 2026-01-01 on 1 × x, 1 GiB, 2 times each." in written
    assert "tar \\| zstd -3 -T2 | backup |" in written and written.count("### Ratios") == 1
    ours = found[OURS_ZSTD]
    assert len(ours["backup"]) == len(ours["restore"]) == 2 and not found[OURS_ZSTD + UNPROVEN]["restore"]
    assert all(each["peak_bytes"] > 0 and each["cpu_seconds"] > 0 for each in ours["backup"])
    assert all(0 < size < SMALL.files_bytes for size in ours["stored_bytes"])


def test_the_first_file_that_is_opened_is_seen(scene: Scene, tmp_path: Path) -> None:
    [pipe] = scene.contenders[0].backup()
    scene.contenders[0].place.clear()
    (tmp_path / f"files-{SMALL.files_bytes}" / "data" / "datasets" / "large").write_bytes(bytes(200 << 20))
    assert 0 < first_read(pipe, tmp_path / f"files-{SMALL.files_bytes}") < 60


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(RunFailed, match="No such file"):
        Pipe((("cat", "/nowhere"), ("cat",))).run()


def test_what_is_measured_ends_with_whoever_measures_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written = tmp_path / "child"

    def interrupted(_: object) -> None:
        wait_until(lambda: written.is_file() and written.read_text().endswith("\n"), 30, lambda: "no child")
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "_waited", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Pipe((("sh", "-c", f"sleep 600 & echo $! > {written}; wait"), ("cat",))).run()
    wait_until(lambda: start_time(int(written.read_text())) is None, 30, lambda: "a child still runs")


def test_figures_of_other_scenes_and_machines_stay_their_own() -> None:
    here = {"date": "2026-01-02", "processors": 1, "processor": "x", "memory_gib": 1, "versions": {}}
    there = here | {"date": "2026-01-01"}
    taken = {"wall_seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": 1}
    figures = {"tar": {"backup": [taken], "restore": [], "stored_bytes": [1]}}
    results = {
        "scenes": {
            "one": {"machine": there, "figures": figures},
            "two": {"machine": here, "figures": figures},
        }
    }
    assert bench._before(results, "one", here) == {} and bench._before(results, "two", here) == figures
    written = report.markdown(results)
    assert "one: measured 2026-01-01" in written and "two: measured 2026-01-02" in written


def test_a_row_that_was_lost_is_seen_in_any_table(tmp_path: Path) -> None:
    file = data.make_sqlite(tmp_path, SMALL)
    whole = scenes._dumped(file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("DELETE FROM samples WHERE id = 1")
        database.commit()
    assert scenes._dumped(file) != whole


def test_data_is_the_same_each_time(tmp_path: Path) -> None:
    one, other = data.make_files(tmp_path / "one", SMALL), data.make_files(tmp_path / "other", SMALL)
    Pipe((("diff", "--recursive", one, other),)).run()
