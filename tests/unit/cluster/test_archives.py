"""The images in the cache of a machine: several checkouts build and load them at the same time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cluster.archives import GRACE_SECONDS, KEPT, ensure_archive

KEYS = [f"{number:016x}" for number in range(KEPT + 2)]


def _ensure(folder: Path, key: str) -> Path:
    def build(archive: Path) -> None:
        archive.write_text(key)

    return ensure_archive(folder, "avalanche-backup", key, build)


def _last_used_before(path: Path, seconds: float) -> None:
    moment = time.time() - seconds
    os.utime(path, (moment, moment))


def test_what_another_checkout_has_just_built_stays_while_others_are_built(tmp_path: Path) -> None:
    made = [_ensure(tmp_path, key) for key in KEYS]
    assert [each.read_text() for each in made] == KEYS


def test_an_old_one_that_another_checkout_has_just_found_stays(tmp_path: Path) -> None:
    found = _ensure(tmp_path, KEYS[0])
    _last_used_before(found, 10 * GRACE_SECONDS)
    assert _ensure(tmp_path, KEYS[0]) == found
    for key in KEYS[1:]:
        _ensure(tmp_path, key)
    assert found.exists()


def test_of_those_that_nobody_used_for_long_the_last_ones_stay(tmp_path: Path) -> None:
    made = [_ensure(tmp_path, key) for key in KEYS[:-1]]
    for age, path in enumerate(reversed(made), start=1):
        _last_used_before(path, age * 2 * GRACE_SECONDS)
    other = tmp_path / "avalanche-drill-0.tar"
    other.write_text("of another image")
    _last_used_before(other, 100 * GRACE_SECONDS)
    newest = _ensure(tmp_path, KEYS[-1])
    assert sorted(tmp_path.iterdir()) == sorted([newest, made[-1], other])


def test_one_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    found = _ensure(tmp_path, KEYS[0])
    found.write_text("built once")
    assert _ensure(tmp_path, KEYS[0]).read_text() == "built once"
