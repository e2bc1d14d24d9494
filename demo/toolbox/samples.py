"""The sample application's data, made from a seed: the same bytes every time, on every machine.

Runs in the pod ``toolbox`` (standard library alone)::

    python3 -m toolbox.samples database 1.0     # about 100 MB in PostgreSQL, at the server of PGHOST
    python3 -m toolbox.samples files 1.0        # about 300 MB, thousands of files, beneath /avalanche

The argument scales the amount. What is as it should be stays as it is; anything else is made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import fingerprints, tables, tree


def database(scale: float) -> str:
    """Fill the database, unless it holds what this generator makes; give one sentence."""
    key = _key(tables.__file__, scale)
    found = _sql(
        "postgres", "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = 'edna'"
    )
    if found and found == _state(key, _database_hash()):
        return "the database is as it should be"
    _sql("postgres", "DROP DATABASE IF EXISTS edna WITH (FORCE);", "CREATE DATABASE edna;")
    _stream("edna", tables.statements(scale))
    _sql("postgres", f"COMMENT ON DATABASE edna IS '{_state(key, _database_hash())}'")
    return f"{_sql('edna', 'SELECT pg_size_pretty(pg_database_size(current_database()))')} in the database"


def files(scale: float, root: Path) -> str:
    """Write the files, unless they are what this generator makes; give one sentence."""
    state = root / ".sample-data"  # beside what the policies back up
    key = _key(tree.__file__, scale)
    if state.exists() and state.read_text() == _state(key, _hash(fingerprints.files(root))):
        return "the files are as they should be"
    state.unlink(missing_ok=True)
    for folder in tree.FOLDERS:
        shutil.rmtree(root / folder, ignore_errors=True)
    count, size = tree.write(root, scale)
    state.write_text(_state(key, _hash(fingerprints.files(root))))
    return f"{count} entries, {size / 1e6:.0f} MB"


def _database_hash() -> str:
    return _hash(fingerprints.database())


def _hash(fingerprint: fingerprints.Fingerprint) -> str:
    return hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()


def _key(program: str, scale: float) -> str:
    return hashlib.sha256(Path(program).read_bytes() + repr(scale).encode()).hexdigest()


def _state(key: str, content: str) -> str:
    return f"sample data {key[:16]} {content[:32]}"


def _sql(name: str, *statements: str) -> str:
    commands = [f"--command={statement}" for statement in statements]
    command = ["psql", "-X", "-A", "-t", "-q", "--set=ON_ERROR_STOP=1", f"--dbname={name}", *commands]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _stream(name: str, sql: Iterator[bytes]) -> None:
    command = [
        "psql",
        "-X",
        "-q",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        f"--dbname={name}",
        "--file=-",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as psql:
        if psql.stdin is not None:
            for piece in sql:
                psql.stdin.write(piece)
            psql.stdin.close()
    if psql.returncode:
        sys.exit(f"psql ended with {psql.returncode}")


if __name__ == "__main__":
    what, amount = sys.argv[1], float(sys.argv[2])
    print(database(amount) if what == "database" else files(amount, Path("/avalanche")))
