"""Every combination of source, compression, encryption and store that a backup may have: docs/combinations.md is this list."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import product

SOURCES = ("plain", "custom", "directory", "sqlite", "files")
"""PostgreSQL in its formats, SQLite, files."""
COMPRESSIONS = ("gzip", "zstd", "none")
ENCRYPTIONS = ("open", "age")
STORES = ("directory", "s3", "azure", "gcs")


@dataclass(frozen=True)
class Combination:
    """One cell of the table."""

    source: str
    compression: str
    encryption: str
    store: str

    @property
    def name(self) -> str:
        """Name it as pytest and the table do."""
        return "-".join(astuple(self))


COMBINATIONS = tuple(Combination(*each) for each in product(SOURCES, COMPRESSIONS, ENCRYPTIONS, STORES))
