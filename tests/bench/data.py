"""What is backed up: made from a seed, so that each machine measures the same bytes. Made once, then found again.

The text of sequencing compresses to about a quarter, as real reads do, and no two stretches of it are alike: tools that find
repeated pieces find none here, and win nothing that they would not win on real data.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from isal import igzip

from tests.integration.servers import Postgres

MIB = 1024 * 1024
READ_LENGTH = 150
READS_AT_ONCE = 4000
VERSION = "1"
"""Changes with what is made here: data of another version is made anew."""
_BASES = bytes(b"ACGT"[value & 3] for value in range(256))
_QUALITIES = bytes(
    ord("F") if value < 190 else ord(":") if value < 230 else ord(",") if value < 250 else ord("#")
    for value in range(256)
)
"""The four qualities that current sequencers write, about as often as they do."""


@dataclass(frozen=True)
class Scale:
    """How much is made: bytes of all files, how many small ones, rows of each database."""

    files_bytes: int
    small_files: int
    database_rows: int
    sqlite_rows: int


FULL = Scale(2048 * MIB, 8000, 1_000_000, 1_200_000)
QUICK = Scale(8 * MIB, 40, 2_000, 2_000)
TEXT_PERCENT, PACKED_PERCENT, SMALL_PERCENT = 60, 25, 15
LARGE_FILES = 12
NOTES = ("kept", "low quality", "chimera", "")
PACKED_FILES = 5


def make_files(folder: Path, scale: Scale) -> Path:
    """Make a directory: 60 % text of sequencing, 25 % compressed already, 15 % small files of tables and settings."""
    return _once(folder / f"files-{scale.files_bytes}", lambda beside: _make_files(beside, scale))


def make_sqlite(folder: Path, scale: Scale) -> Path:
    """Make a SQLite database, and give its file."""
    made = _once(folder / f"sqlite-{scale.sqlite_rows}", lambda beside: _make_sqlite(beside, scale))
    return made / "edna.sqlite"


def fill(server: Postgres, database: str, scale: Scale) -> None:
    """Make a PostgreSQL database: of a million rows, 500 MB."""
    server.psql("postgres", f"CREATE DATABASE {database}")
    server.psql(database, _SCHEMA.format(rows=scale.database_rows))


def _once(folder: Path, make: Callable[[Path], None]) -> Path:
    marker = folder / ".made"
    if marker.is_file() and marker.read_text() == VERSION:
        return folder / "data"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    make(folder / "data")
    marker.write_text(VERSION)
    return folder / "data"


def _make_files(root: Path, scale: Scale) -> None:
    share = scale.files_bytes // 100
    for number in range(LARGE_FILES):
        path = root / "datasets" / f"run{number // 4}" / f"sample{number:02d}.fastq"
        _write(path, _limited(reads(number), share * TEXT_PERCENT // LARGE_FILES))
    for number in range(PACKED_FILES):
        path = root / "reference" / f"genome{number:02d}.fastq.gz"
        _write(path, _limited(_packed(reads(100 + number)), share * PACKED_PERCENT // PACKED_FILES))
    _make_small(root / "results", share * SMALL_PERCENT, scale.small_files)


def _make_small(root: Path, total: int, count: int) -> None:
    """Make tables of a few hundred bytes to some hundred KiB, a hundred in a folder."""
    chance = random.Random(7)
    weights = [chance.lognormvariate(0, 1) for _ in range(count)]
    for number, weight in enumerate(weights):
        path = root / f"batch{number // 100:03d}" / f"taxa{number:05d}.csv"
        _write(path, _limited(_table(chance), int(total * weight / sum(weights))))


def reads(seed: int) -> Iterator[bytes]:
    """Give text of sequencing (FASTQ) without end."""
    chance, number = random.Random(seed), 0
    while True:
        length = READ_LENGTH * READS_AT_ONCE
        bases, qualities = (chance.randbytes(length).translate(each) for each in (_BASES, _QUALITIES))
        lines: list[bytes] = []
        for start in range(0, length, READ_LENGTH):
            number += 1
            end = start + READ_LENGTH
            head = b"@A00:7:HF:%d:%d:%d:%d 1:N:0:AT\n" % (
                seed % 8 + 1,
                number // 9000,
                number * 7 % 30011,
                number * 13 % 36767,
            )
            lines += (head, bases[start:end], b"\n+\n", qualities[start:end], b"\n")
        yield b"".join(lines)


def _packed(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        yield igzip.compress(chunk, 1, mtime=0)


def _table(chance: random.Random) -> Iterator[bytes]:
    yield b"sample,taxon,reads,score,note\n"
    while True:
        rows = (
            f"S{chance.randrange(99999):05d},taxon {chance.randrange(900)},{chance.randrange(10**6)},"
            f"{chance.random():.4f},{chance.choice(NOTES)}\n"
            for _ in range(64)
        )
        yield "".join(rows).encode()


def _limited(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[:size]
        size -= len(chunk)
        if size <= 0:
            return


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(chunks)


_SCHEMA = """
CREATE TABLE samples (id bigint PRIMARY KEY, site text NOT NULL, taken timestamptz NOT NULL, latitude float8, longitude float8, facts jsonb);
INSERT INTO samples SELECT n, 'site ' || n % 97, timestamptz '2024-01-01' + n * interval '1 minute', (n::bigint * 7919 % 180000) / 1000.0 - 90,
  (n::bigint * 104729 % 360000) / 1000.0 - 180, jsonb_build_object('depth', n % 300, 'ph', (n % 140) / 10.0, 'lab', 'lab ' || n % 11)
  FROM generate_series(1, {rows} / 4) AS n;
CREATE TABLE sequences (id bigint PRIMARY KEY, sample_id bigint NOT NULL, checksum text NOT NULL, bases text NOT NULL);
INSERT INTO sequences SELECT n, n / 4 + 1, md5(n::text), translate(md5('a' || n) || md5('b' || n) || md5('c' || n) || md5('d' || n), '0123456789abcdef', 'ACGTACGTACGTACGT')
  FROM generate_series(1, {rows}) AS n;
CREATE TABLE assignments (sequence_id bigint NOT NULL, taxon text NOT NULL, score numeric(7, 5) NOT NULL);
INSERT INTO assignments SELECT n, 'taxon ' || n::bigint * 31 % 4099, (n::bigint * 7919 % 100000) / 100000.0 FROM generate_series(1, {rows} * 2) AS n;
CREATE INDEX ON sequences (sample_id);
CREATE INDEX ON assignments (sequence_id);
VACUUM ANALYZE;
"""


def _make_sqlite(folder: Path, scale: Scale) -> None:
    with closing(sqlite3.connect(folder / "edna.sqlite", isolation_level=None)) as database:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("CREATE TABLE samples (id INTEGER PRIMARY KEY, site TEXT, taken TEXT, facts TEXT)")
        database.execute("CREATE TABLE sequences (id INTEGER PRIMARY KEY, sample INTEGER, bases TEXT)")
        chance = random.Random(11)
        database.execute("BEGIN")
        for number in range(1, scale.sqlite_rows + 1):
            bases = chance.randbytes(300).translate(_BASES).decode()
            database.execute("INSERT INTO sequences VALUES (?, ?, ?)", (number, number // 3, bases))
            if number % 3 == 0:
                facts = f'{{"depth": {chance.randrange(300)}, "lab": "lab {number % 11}"}}'
                row = (number // 3, f"site {number % 97}", f"2024-01-01 00:00:{number % 60:02d}", facts)
                database.execute("INSERT INTO samples VALUES (?, ?, ?, ?)", row)
        database.execute("CREATE INDEX of_sample ON sequences (sample)")
        database.execute("COMMIT")
