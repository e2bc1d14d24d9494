"""What the data is, in hashes: one for every table, view, sequence and large object, file and folder.

Runs in the pod ``toolbox`` and prints JSON, name to hash::

    python3 -m toolbox.fingerprints database
    python3 -m toolbox.fingerprints files
    python3 -m toolbox.fingerprints observations 1200    # the rows up to this ID
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from .tree import FOLDERS

Fingerprint = dict[str, str]
CHUNK = 1024 * 1024

# One SELECT for each relation, made by the server and run by psql's \\gexec.
RELATIONS = r"""
SET TIME ZONE 'UTC';
SELECT format(
  'SELECT %L, count(*) || '' rows'', md5(coalesce(string_agg(hash, '''' ORDER BY hash), '''')) FROM (SELECT md5((%s)::text) AS hash FROM %I.%I AS t) AS rows',
  CASE relkind WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialised view ' WHEN 'S' THEN 'sequence ' ELSE 'table ' END || nspname || '.' || relname,
  CASE relkind WHEN 'S' THEN 'last_value, is_called' ELSE 't' END, nspname, relname) -- a sequence's log_cnt is no data
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE relkind IN ('r', 'v', 'm', 'S') AND nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY nspname, relname \gexec
SELECT 'large object ' || oid, length(lo_get(oid)) || ' bytes', md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid;
SELECT 'definitions', count(*) || ' objects', md5(string_agg(line, chr(10) ORDER BY line COLLATE "C")) FROM (
  SELECT indexdef AS line FROM pg_indexes WHERE schemaname IN ('public', 'reports')
  UNION ALL SELECT pg_get_constraintdef(oid) || conname FROM pg_constraint WHERE connamespace::regnamespace::text IN ('public', 'reports')
  UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc AS p WHERE prokind = 'f' AND pronamespace::regnamespace::text IN ('public', 'reports') AND prolang <> 13
) AS definitions;
"""


def database(name: str = "edna") -> Fingerprint:
    """Hash every relation of a database, rows in an order of their own."""
    command = [
        "psql",
        "-X",
        "-A",
        "-t",
        "-q",
        "-R",
        "\x1e",
        "-F",
        "\x1f",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={name}",
        "--file=-",
    ]
    printed = subprocess.run(command, input=RELATIONS, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = (
        line.strip("\n").split("\x1f") for line in printed.replace("\n", "\x1e").split("\x1e") if line.strip()
    )
    return {what: f"{count} {hashed}" for what, count, hashed in lines}


def files(root: Path) -> Fingerprint:
    """Hash every entry beneath the folders of the sample data: its content, mode, and for files the time."""
    return dict(sorted(_entries(os.fsencode(root))))


def observations(path: Path, up_to: int | None = None) -> Fingerprint:
    """Hash the rows of the SQLite database, up to an ID where one is given."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        state = connection.execute("PRAGMA integrity_check").fetchone()[0]
        last = connection.execute("SELECT max(id) FROM observation").fetchone()[0] if up_to is None else up_to
        rows = connection.execute("SELECT * FROM observation WHERE id <= ? ORDER BY id", (last,)).fetchall()
    hashed = hashlib.sha256("\n".join(repr(row) for row in rows).encode()).hexdigest()
    return {"integrity": state, "observation": f"{len(rows)} rows {hashed}", "last ID": str(last)}


def _entries(root: bytes) -> Iterator[tuple[str, str]]:
    for top in FOLDERS:
        yield top, _entry(os.path.join(root, os.fsencode(top)))  # noqa: PTH118
        for folder, folders, names in os.walk(os.path.join(root, os.fsencode(top))):  # noqa: PTH118
            for name in [*folders, *names]:
                path = os.path.join(folder, name)  # noqa: PTH118
                yield os.path.relpath(path, root).decode(errors="backslashreplace"), _entry(path)


def _entry(path: bytes) -> str:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return "absent"
    if os.path.islink(path):  # noqa: PTH114
        return f"link to {os.fsencode(os.readlink(path)).decode()}"  # noqa: PTH115
    if os.path.isdir(path):  # noqa: PTH112
        return f"folder {found.st_mode & 0o777:o}"  # set-group-ID is the volume's (fsGroup), not the data's
    digest = hashlib.sha256()
    with open(path, "rb") as opened:  # noqa: PTH123
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return f"file {found.st_mode:o} {found.st_mtime_ns // 10**9} {digest.hexdigest()}"


def main(what: str, *arguments: str) -> Fingerprint:
    """Take one fingerprint."""
    if what == "database":
        return database(*arguments)
    if what == "files":
        return files(Path("/avalanche"))
    return observations(Path("/observations/observations.sqlite"), *(int(each) for each in arguments))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
