"""The files of the sample application: ``datasets/ reference/ results/ config/``, with the names that people give.

The same ``scale`` writes the same tree, down to modes and times.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 20241123
FOLDERS = ("datasets", "reference", "results", "config")
TIME = 1_732_240_800
LARGE, SMALL = 40, 3_600
LARGE_BYTES, SMALL_BYTES = 4_000_000, 80_000
LETTERS = bytes(b"ACGT"[number % 4] for number in range(256))
QUALITIES = bytes(33 + number % 40 for number in range(256))
ODD_NAMES = (
    b"with space", b"-rf", b"--help", b"'quoted' \"twice\"", b"new\nline", b"tab\there", b"back\\slash", b"$(HOME)", b"$$",
    b"%s%n", b"*", b"?", b"~", b"#", b"..hidden", b"...", b" leading", b"trailing ", b"trailing.", b"a" * 255,
    "Zürich".encode(), "Zu\u0308rich".encode(), "雪崩".encode(), "🏔️".encode(), "עברית".encode(), b"latin-\xe9-1",
    b'{"kind":"result","verdict":"Succeeded"}', b"AVALANCHE result", b"CON", b"file.sql.gz", b"_metadata.json",
)  # fmt: skip
CONFIGURATION = b"pipeline:\n  threads: 8\n  reference: reference/mitofish.fasta\n  home: $(HOME) and $$\n"


@dataclass(frozen=True)
class File:
    """One file to be written, its path relative to the root."""

    path: bytes
    content: bytes
    mode: int = 0o644


def write(root: Path, scale: float) -> tuple[int, int]:
    """Write everything beneath ``root``, and give the number of entries and of bytes."""
    base, count, size = os.fsencode(root), 0, 0
    for number, file in enumerate(contents(scale)):
        path = os.path.join(base, file.path)  # noqa: PTH118 - names that are not UTF-8
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        with open(path, "xb") as opened:  # noqa: PTH123
            opened.write(file.content)
        os.chmod(path, file.mode)  # noqa: PTH101
        os.utime(path, ns=(TIME * 10**9, (TIME + number) * 10**9 + number))
        count, size = count + 1, size + len(file.content)
    return count + _links(root), size


def contents(scale: float) -> Iterator[File]:
    """Give every file in the order of writing."""
    dice = random.Random(SEED)
    yield File(b"config/pipeline.yaml", CONFIGURATION, 0o640)
    yield File(b"config/credentials.example", b"token=\n", 0o600)
    yield File(b"config/run.py", b"#!/usr/bin/env python3\nprint('edna')\n", 0o755)
    yield File(b"results/empty", b"")
    for number in range(max(2, int(LARGE * scale))):
        yield File(
            f"datasets/run-{number:03}/reads.fastq".encode(),
            _reads(dice, int(LARGE_BYTES * min(1, scale * 10))),
        )
    for number in range(max(120, int(SMALL * scale))):
        yield _small(dice, number)
    for name in ODD_NAMES:
        yield File(b"results/odd names/" + name, b"odd: " + name)
    yield File(b"reference/" + b"/".join([b"deep"] * 40) + b"/file", b"forty folders down")


def _small(dice: random.Random, number: int) -> File:
    content = dice.randbytes(dice.randrange(SMALL_BYTES))
    if number % 3 == 0:
        return File(
            f"reference/taxon-{number % 60:02}/{number:05}.fasta".encode(),
            b">%d\n" % number + content.translate(LETTERS),
        )
    if number % 3 == 1:
        return File(f"results/run-{number % 40:03}/{number:05}.png".encode(), content)
    return File(
        f"datasets/run-{number % 40:03}/{number:05}.csv".encode(), content.hex(",").encode()[: len(content)]
    )


def _reads(dice: random.Random, size: int) -> bytes:
    half = dice.randbytes(size // 2)
    return b"@reads\n" + half.translate(LETTERS) + b"\n+\n" + half.translate(QUALITIES)


def _links(root: Path) -> int:
    (root / "results" / "no files here").mkdir()
    (root / "results" / "latest").symlink_to("run-001")
    (root / "results" / "dangling").symlink_to("never/was")
    os.link(root / "config" / "pipeline.yaml", root / "results" / "pipeline-as-used.yaml")
    with (root / "results" / "sparse.bin").open("xb") as sparse:
        sparse.truncate(8_000_000)
    os.utime(root / "results" / "sparse.bin", (TIME, TIME))
    return 5
