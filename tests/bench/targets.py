"""What is to be reached: ratios of wall time within one run, and bounds."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.scenes import DRILL as DRILL  # noqa: PLC0414 - readers find it here
from tests.bench.scenes import OURS_GZIP, OURS_ZSTD, UNPROVEN

PEAK_MIB = 200
START_SECONDS = 0.5
DRILLED = "database to a folder"
DRILL_SECONDS = 15
"""How much longer a drill may take than the restore that it proves."""


@dataclass(frozen=True)
class Target:
    """``ours`` beside ``beside`` takes at most so many times as long. Peers read nothing back, so neither does ours here."""

    scene: str
    ours: str
    beside: str
    at_most: float
    step: str = "backup"


TARGETS = (
    Target("files to a folder", OURS_ZSTD + UNPROVEN, "tar | zstd -3 -T2", 1.15),
    Target("files to a folder", OURS_GZIP + UNPROVEN, "tar | pigz -1", 0.50),
    Target("files to a folder", OURS_ZSTD + UNPROVEN, "restic", 0.55),
    Target("files to a folder", OURS_ZSTD + UNPROVEN, "kopia", 0.80),
    Target("SQLite to a folder", OURS_ZSTD + UNPROVEN, "VACUUM INTO, zstd -3 -T2", 1.25),
    Target("files to S3", OURS_ZSTD + UNPROVEN, "tar | zstd -3 -T2 | aws s3 cp", 1.00),
    Target("database to a folder", OURS_ZSTD + UNPROVEN, "pg_dump | zstd -3 -T2", 1.20),
    Target("database to a folder", OURS_GZIP + UNPROVEN, "pg_dump | gzip -6", 0.20),
    Target("files to a folder", OURS_ZSTD, OURS_ZSTD + UNPROVEN, 1.60),
    Target("files to a folder", OURS_GZIP, OURS_GZIP + UNPROVEN, 1.60),
    Target("files to S3", OURS_ZSTD, OURS_ZSTD + UNPROVEN, 1.60),
    Target("database to a folder", OURS_ZSTD, OURS_ZSTD + UNPROVEN, 1.60),
    Target("SQLite to a folder", OURS_ZSTD, OURS_ZSTD + UNPROVEN, 1.60),
    Target("files to a folder", OURS_ZSTD, "tar | zstd -3 -T2", 1.11, "restore"),
    Target("files to a folder", OURS_ZSTD, "restic", 1.11, "restore"),
    Target("files to a folder", OURS_ZSTD, "kopia", 1.11, "restore"),
    Target("files to S3", OURS_ZSTD, "tar | zstd -3 -T2 | aws s3 cp", 1.11, "restore"),
    Target("database to a folder", OURS_ZSTD, "pg_dump | zstd -3 -T2", 1.11, "restore"),
    Target("database to a folder", "ours, Directory, 2 jobs, zstd", "pg_dump -Fd -j2", 1.11, "restore"),
)
