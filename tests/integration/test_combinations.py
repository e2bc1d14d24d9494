"""Every combination that docs/combinations.md lists is backed up, restored and compared: by us, and by Debian's tools alone."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_contract.names import BackupType
from avalanche_contract.request import Compression
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, Source, SqliteSource
from tests.cluster.packages import ensure_packages
from tests.integration import servers
from tests.integration.combinations import COMBINATIONS, Combination
from tests.integration.conftest import STORAGES, source_of
from tests.integration.keys import KeyPair, encrypted_for, key_pair
from tests.integration.runs import PREFIX, Runner
from tests.integration.servers import Postgres

TOOLS = {
    "age": "age",
    "zstd": "zstd",
    "gzip": "gzip",
    "tar": "tar",
    "sha256sum": "coreutils",
    "sqlite3": "sqlite3",
}
SMALL = """
CREATE TABLE samples (id int PRIMARY KEY, site text, facts jsonb);
INSERT INTO samples SELECT n, 'site ' || n % 7, jsonb_build_object('note', E'tab\\there \\\\. ' || n) FROM generate_series(1, 500) AS n;
CREATE SCHEMA taxonomy; CREATE VIEW taxonomy.sites AS SELECT site, count(*) FROM samples GROUP BY site;
SELECT lo_from_bytea(4242, decode(repeat('c0ffee', 100), 'hex'));
"""
COMPARED = "SELECT md5(string_agg(s::text, '|' ORDER BY id)) FROM samples AS s; SELECT * FROM taxonomy.sites ORDER BY 1; SELECT md5(lo_get(4242))"


@dataclass(frozen=True)
class Subject:
    """What is backed up, fresh places to restore it to, and an oracle that uses none of our code."""

    source: Source
    kind: BackupType
    fresh: Callable[[str], Source]
    oracle: Callable[[Source], Any]
    filled: Callable[[Source], dict[str, str]]
    """What stands for the placeholders of a restore command."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return key_pair(folder / "day"), key_pair(folder / "escrow")


@pytest.fixture(scope="module")
def small_database(postgres: Postgres) -> str:
    postgres.psql("postgres", "CREATE DATABASE small")
    postgres.psql("small", SMALL)
    return "small"


@pytest.fixture
def subject(
    combination: Combination, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Subject:
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)
    if combination.source == "sqlite":
        return _sqlite(tmp_path)
    if combination.source == "files":
        return _files(tmp_path)
    return _postgresql(
        request.getfixturevalue("postgres"), request.getfixturevalue("small_database"), combination, tmp_path
    )


@pytest.fixture
def runner(combination: Combination, tmp_path: Path, request: pytest.FixtureRequest) -> Runner:
    return Runner(request.getfixturevalue(STORAGES[combination.store]), tmp_path / "scratch")


@pytest.mark.parametrize("combination", COMBINATIONS, ids=lambda each: each.name)
def test_it_comes_back_by_us_and_by_plain_tools(
    combination: Combination,
    subject: Subject,
    runner: Runner,
    keys: tuple[KeyPair, KeyPair],
    tmp_path: Path,
) -> None:
    sealed = combination.encryption == "age"
    made = runner.backup(
        subject.source,
        kind=subject.kind,
        compression=Compression.model_validate({"algorithm": combination.compression.title()}),
        encryption=encrypted_for(*keys) if sealed else None,
    )
    before = subject.oracle(subject.source)
    ours, by_hand = subject.fresh("ours"), subject.fresh("by-hand")
    opening = runner.opening(keys[0].credential if sealed else None)
    assert opening.verify(made).reason == "Verified"
    opening.execute(made, ours, None)
    assert subject.oracle(ours) == before
    restore_by_hand(runner, made, subject.filled(by_hand) | {"<identity file>": str(keys[1].file)}, tmp_path)
    assert subject.oracle(by_hand) == before


def restore_by_hand(runner: Runner, made: Result, filled: dict[str, str], tmp_path: Path) -> None:
    """Do what the metadata says, with nothing of ours: ``sha256sum``, then the command of the artifact."""
    ensure_packages(TOOLS, print)
    folder = tmp_path / "downloaded"
    folder.mkdir()
    found = catalog.find(runner.store, PREFIX, made.backup_id or "")
    for each in found.metadata.artifacts:
        _download(runner, found, each, folder)
    sums = "".join(f"{each.sha256}  {each.file}\n" for each in found.metadata.artifacts)
    by_hand("sha256sum --check --strict -", folder, sums)
    artifact = next(each for each in found.metadata.artifacts if each.role == "data")
    assert made.checksum == f"sha256:{artifact.sha256}"
    command = artifact.restore_command
    for placeholder, value in filled.items():
        command = command.replace(placeholder, value)
    assert "<" not in command
    by_hand(command, folder)
    for index in (each for each in found.metadata.artifacts if each.role == "index"):
        opened = (
            f"age -d -i {filled['<identity file>']} {index.file}" if index.recipients else f"cat {index.file}"
        )
        lines = by_hand(f"{opened} | zstd -dc", folder).splitlines()
        assert len([json.loads(line) for line in lines]) == artifact.statistics["entries"]


def by_hand(command: str, folder: Path, given: str = "") -> str:
    """Run a command as a person does, with Debian's programs alone."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "PGPASSWORD": servers.PASSWORD}
    ended = subprocess.run(
        ["bash", "-o", "errexit", "-o", "pipefail", "-c", command], cwd=folder, env=environment, input=given,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{command}: {ended.stderr}"
    return ended.stdout


def _download(runner: Runner, found: Found, artifact: ArtifactMetadata, folder: Path) -> None:
    key = f"{found.prefix}{found.metadata.backup_type}/{artifact.file}"
    with runner.store.read(key) as chunks:
        (folder / artifact.file).write_bytes(b"".join(chunks))


def _postgresql(server: Postgres, name: str, combination: Combination, tmp_path: Path) -> Subject:
    form = {"format": combination.source.title()}

    def fresh(purpose: str) -> Source:
        database = f"{combination.name} {purpose}"
        server.psql("postgres", f'CREATE DATABASE "{database}"')
        return source_of(server, database)

    def filled(target: Any) -> dict[str, str]:
        address = f"postgresql://avalanche@127.0.0.1:{server.port}/{quote(target.database)}"
        (tmp_path / "unpacked").mkdir()
        return {"<database>": address, "<empty folder>": str(tmp_path / "unpacked")}

    def oracle(source: Any) -> str:
        return server.psql(source.database, COMPARED)

    return Subject(source_of(server, name).model_copy(update=form), "database", fresh, oracle, filled)


def _sqlite(tmp_path: Path) -> Subject:
    with closing(sqlite3.connect(tmp_path / "live.sqlite")) as made:
        made.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, filler)")
        made.executemany("INSERT INTO numbers VALUES (?, ?)", [(n, os.urandom(50)) for n in range(500)])
        made.commit()

    def source(name: str) -> Source:
        return SqliteSource(name="database", path=str(tmp_path / f"{name}.sqlite"))

    def oracle(source: Any) -> str:
        return by_hand(f"sqlite3 '{source.path}' .dump", tmp_path)

    def filled(target: Any) -> dict[str, str]:
        return {"<database file>": target.path}

    return Subject(source("live"), "database", source, oracle, filled)


def _files(tmp_path: Path) -> Subject:
    (tmp_path / "live" / "in" / "empty").mkdir(parents=True)
    for number in range(20):
        (tmp_path / "live" / "in" / f"name {number}").write_bytes(os.urandom(number * 5000))
    (tmp_path / "live" / "in" / "link").symlink_to("name 1")
    (tmp_path / "live" / "in" / "name 2").chmod(0o600)

    def fresh(name: str) -> Source:
        (tmp_path / name).mkdir(exist_ok=True)
        return FilesSource(name="files", root=str(tmp_path / name))

    def oracle(source: Any) -> list[tuple[str, int, str]]:
        return [
            (str(path.relative_to(source.root)), path.lstat().st_mode, _content(path))
            for path in sorted(Path(source.root).rglob("*"))
        ]

    def filled(target: Any) -> dict[str, str]:
        return {"<folder>": target.root}

    return Subject(fresh("live"), "files", fresh, oracle, filled)


def _content(path: Path) -> str:
    if path.is_symlink():
        return str(path.readlink())
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
