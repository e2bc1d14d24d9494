"""A bad day: tables dropped, files deleted, the SQLite file overwritten.

Runs in the pod ``toolbox``::

    python3 -m toolbox.disaster database|files|observations|mend-observations
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

OBSERVATIONS = Path("/observations/observations.sqlite")
DROPPED = """
DROP TABLE sequences, taxonomic_assignments CASCADE;
DROP SCHEMA reports CASCADE;
DELETE FROM samples WHERE id % 2 = 0;
UPDATE samples SET measurements = '{"temperature": 451}', note = 'oops';
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
ALTER SEQUENCE accession RESTART WITH 1;
"""


def database() -> str:
    """Drop tables, views and the large object, and spoil what is left."""
    command = [
        "psql",
        "-X",
        "-q",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        "--dbname=edna",
        "--file=-",
    ]
    subprocess.run(command, input=DROPPED, check=True, stdout=subprocess.DEVNULL, text=True)
    return "tables dropped, half of the samples deleted, the rest spoiled"


def files(root: Path = Path("/avalanche")) -> str:
    """Delete whole folders, and overwrite what is left of the others."""
    for folder in ("datasets", "results"):
        shutil.rmtree(root / folder)
    (root / "config" / "credentials.example").unlink()
    (root / "config" / "pipeline.yaml").write_text("pipeline: broken\n")
    for path in sorted((root / "reference").glob("taxon-*0")):
        shutil.rmtree(path)
    return "datasets/ and results/ deleted, reference/ thinned, config/ overwritten"


def observations(path: Path = OBSERVATIONS) -> str:
    """Overwrite the file, as a tool does that takes it for a text."""
    path.write_bytes(b"this is not a database\n" * 4096)
    _remove_journals(path)
    return "observations.sqlite overwritten"


def mend_observations(path: Path = OBSERVATIONS) -> str:
    """Remove a file that an interrupted demo left overwritten: the stations begin a new one."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    except sqlite3.DatabaseError:
        whole = not path.exists()
    if whole:
        return "the observations are as they should be"
    path.unlink()
    _remove_journals(path)
    return "observations.sqlite was no database: removed"


def _remove_journals(path: Path) -> None:
    for ending in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


ACTIONS = {
    "database": database,
    "files": files,
    "observations": observations,
    "mend-observations": mend_observations,
}

if __name__ == "__main__":
    print(ACTIONS[sys.argv[1]]())
