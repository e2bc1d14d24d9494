"""PostgreSQL, dumped and brought back by its own tools, against a real server."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avalanche_backup.errors import (
    Failure,
    RestoreFailed,
    RestoreRefused,
    SourceInvalid,
    SourceUnavailable,
    VerificationFailed,
)
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql.clients import ENV_CLIENTS
from avalanche_contract.base import Credential
from avalanche_contract.request import Compression
from avalanche_contract.source import PostgresqlSource
from avalanche_contract.storage import Storage
from tests.integration.conftest import FINGERPRINT, source_of
from tests.integration.runs import PREFIX, Runner
from tests.integration.servers import PASSWORD, Postgres
from tests.integration.sources.future_server import serve


@pytest.fixture
def runner(storage: Storage, tmp_path: Path) -> Runner:
    return Runner(storage, tmp_path / "scratch")


@pytest.mark.parametrize("form", ["Plain", "Custom"])
@pytest.mark.parametrize("algorithm", ["Gzip", "Zstd", "None"])
def test_a_database_comes_back_as_it_was(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str, algorithm: str
) -> None:
    source = database.model_copy(update={"format": form})
    before = postgres.psql(source.database, FINGERPRINT)
    made = runner.backup(source, compression=Compression.model_validate({"algorithm": algorithm}))
    postgres.psql(
        source.database, "DROP TABLE samples CASCADE; CREATE TABLE rubbish (); SELECT lo_unlink(4242)"
    )
    runner.restore(made, source)
    assert postgres.psql(source.database, FINGERPRINT) == before
    assert postgres.psql(source.database, "SELECT to_regclass('rubbish')") == ""


@pytest.mark.parametrize("form", ["Plain", "Custom"])
def test_a_restore_over_what_is_still_there_replaces_it(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    source = database.model_copy(update={"format": form})
    before = postgres.psql(source.database, FINGERPRINT)
    made = runner.backup(source)
    runner.restore(made, source)
    assert postgres.psql(source.database, FINGERPRINT) == before


def test_an_owner_who_is_no_superuser_restores_in_place(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    owner = f"owner of {database.database}"
    postgres.psql("postgres", f"CREATE ROLE \"{owner}\" LOGIN PASSWORD '{PASSWORD}'")
    postgres.psql("postgres", f'CREATE DATABASE "{owner}" OWNER "{owner}"')
    postgres.psql(
        owner,
        f'SET SESSION AUTHORIZATION "{owner}"; CREATE TABLE mine (n int); INSERT INTO mine VALUES (7);'
        "CREATE SCHEMA other; CREATE VIEW other.seen AS SELECT * FROM mine; SELECT lo_from_bytea(5, 'large')",
    )
    source = database.model_copy(update={"database": owner, "username": owner})
    made = runner.backup(source)
    postgres.psql(owner, "DELETE FROM mine")
    runner.restore(made, source)
    assert postgres.psql(owner, "SELECT n, lo_get(5) FROM other.seen") == "7|\\x6c61726765"


def test_a_database_comes_back_into_another_one(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    postgres.psql("postgres", f'CREATE DATABASE "copy of {database.database}"')
    target = source_of(postgres, f"copy of {database.database}")
    assert not runner.plan(made, target).needs_approval
    runner.execute(made, target, None)
    assert postgres.psql(target.database, FINGERPRINT) == postgres.psql(database.database, FINGERPRINT)


def test_plain_tools_restore_an_artifact(
    bucket: Storage, tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    runner = Runner(bucket, tmp_path / "scratch")
    made = runner.backup(database)
    with runner.store.read(f"{PREFIX}database/{made.backup_id}.sql.gz") as chunks:
        stored = b"".join(chunks)
    summed = (
        subprocess.run(["sha256sum"], input=stored, capture_output=True, check=True)
        .stdout.split()[0]
        .decode()
    )
    assert made.checksum == f"sha256:{summed}"
    postgres.psql("postgres", f'CREATE DATABASE "by hand {database.database}"')
    postgres.psql(f"by hand {database.database}", gzip.decompress(stored).decode())
    before = postgres.psql(database.database, FINGERPRINT)
    assert postgres.psql(f"by hand {database.database}", FINGERPRINT) == before


def test_tar_and_pg_restore_restore_a_directory(
    bucket: Storage, tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    runner = Runner(bucket, tmp_path / "scratch")
    made = runner.backup(database.model_copy(update={"format": "Directory", "jobs": 2}))
    command = runner.metadata(made).artifacts[0].restore_command
    unpack = f"gzip -dc {made.backup_id}.tar.gz | tar -xf - -C <empty folder>"
    assert (
        command
        == f"{unpack} && pg_restore --exit-on-error --single-transaction --dbname=<database> <empty folder>"
    )
    with runner.store.read(f"{PREFIX}database/{made.backup_id}.tar.gz") as chunks:
        stored = b"".join(chunks)
    folder = tmp_path / "by hand"
    folder.mkdir()
    subprocess.run(["tar", "-xf", "-", "-C", folder], input=gzip.decompress(stored), check=True)
    postgres.psql("postgres", f'CREATE DATABASE "by tar {database.database}"')
    words: list[str | Path] = [
        postgres.binaries / "pg_restore", "--exit-on-error", "--single-transaction", "-h", "127.0.0.1", "-p",
        str(postgres.port), "-U", "avalanche", f"--dbname=by tar {database.database}", folder,
    ]  # fmt: skip
    subprocess.run(words, env={**os.environ, "PGPASSWORD": PASSWORD}, check=True)
    before = postgres.psql(database.database, FINGERPRINT)
    assert postgres.psql(f"by tar {database.database}", FINGERPRINT) == before


def test_an_artifact_with_one_flipped_bit_is_refused_before_the_target_is_touched(
    tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    runner, artifact = _backed_up(tmp_path, database)
    damaged = bytearray(artifact.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    artifact.write_bytes(damaged)
    _assert_refused(runner, postgres, database)


def test_a_truncated_artifact_is_refused_before_the_target_is_touched(
    tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    runner, artifact = _backed_up(tmp_path, database)
    os.truncate(artifact, artifact.stat().st_size - 1)
    _assert_refused(runner, postgres, database)


def test_an_empty_database_is_not_backed_up(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    postgres.psql("postgres", f'CREATE DATABASE "empty {database.database}"')
    _assert_fails(runner, source_of(postgres, f"empty {database.database}"), SourceInvalid, "SourceEmpty")


def test_a_wrong_password_is_named_and_not_shown(
    runner: Runner, database: PostgresqlSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "not-the-password")
    failure = _assert_fails(runner, database, SourceInvalid, "AuthenticationFailed")
    assert "not-the-password" not in failure.message and PASSWORD not in failure.message


def test_a_database_that_is_not_there_is_named(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    del database
    failure = _assert_fails(runner, source_of(postgres, "nowhere"), SourceInvalid, "DatabaseMissing")
    assert "nowhere" in failure.message


def test_a_server_that_does_not_listen_is_worth_another_try(
    runner: Runner, database: PostgresqlSource
) -> None:
    _assert_fails(runner, database.model_copy(update={"port": 1}), SourceUnavailable, "SourceUnavailable")


def test_a_missing_password_names_where_it_should_be(runner: Runner, database: PostgresqlSource) -> None:
    missing = Credential(described='key "password" of Secret "database"', file="/nowhere/password")
    failure = _assert_fails(
        runner, database.model_copy(update={"password": missing}), Failure, "CredentialsMissing"
    )
    assert 'key "password" of Secret "database"' in failure.message


def test_pg_dump_killed_midway_leaves_nothing(
    runner: Runner,
    postgres: Postgres,
    database: PostgresqlSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _wrap_pg_dump(postgres, tmp_path, monkeypatch, "| head -c 50000; kill -KILL $$")
    _assert_fails(runner, database, SourceUnavailable, "SourceUnavailable")


def test_pg_dump_that_fails_after_writing_everything_leaves_nothing(
    runner: Runner,
    postgres: Postgres,
    database: PostgresqlSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _wrap_pg_dump(postgres, tmp_path, monkeypatch, "; exit 1")
    _assert_fails(runner, database, SourceUnavailable, "SourceUnavailable")


def test_a_dump_without_its_closing_line_leaves_nothing(
    runner: Runner,
    postgres: Postgres,
    database: PostgresqlSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _wrap_pg_dump(postgres, tmp_path, monkeypatch, "| head -c 50000; exit 0")
    _assert_fails(runner, database, SourceUnavailable, "DumpIncomplete")


def test_a_server_newer_than_every_client_is_refused(runner: Runner, database: PostgresqlSource) -> None:
    with _server_of_the_future() as port:
        failure = _assert_fails(
            runner,
            database.model_copy(update={"port": port, "ssl_mode": "disable"}),
            SourceInvalid,
            "ServerTooNew",
        )
    assert "PostgreSQL 99" in failure.message


def test_a_plan_that_no_longer_fits_asks_again(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    approved = runner.plan(made, database).digest
    postgres.psql(database.database, "CREATE TABLE precious (n int); INSERT INTO precious VALUES (1)")
    with pytest.raises(RestoreRefused) as refused:
        runner.execute(made, database, approved)
    assert refused.value.reason == "PlanChanged" and runner.reported.plans[-1].digest != approved
    assert postgres.psql(database.database, "SELECT n FROM precious") == "1"


def test_a_meta_command_in_a_dump_is_not_run(
    tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    from avalanche_backup.sources.postgresql import PostgresqlDatabase

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    hostile = (
        b"\\restrict abc\n-- x\n\\unrestrict abc\nSELECT 1;\n\\! touch "
        + str(tmp_path / "owned").encode()
        + b"\n"
    )
    with pytest.raises(RestoreFailed):
        PostgresqlDatabase(database, scratch).restore(
            Incoming(iter([hostile]), {"format": "Plain"}, scratch, lambda _: None)
        )
    assert not (tmp_path / "owned").exists()
    assert postgres.psql(database.database, "SELECT count(*) FROM samples") == "5000"


def _backed_up(tmp_path: Path, database: PostgresqlSource) -> tuple[Runner, Path]:
    from avalanche_contract.storage import DirectoryStorage

    root = tmp_path / "volume"
    root.mkdir()
    runner = Runner(DirectoryStorage(name="volume", root=str(root)), tmp_path / "scratch")
    made = runner.backup(database)
    return runner, root / f"{PREFIX}database/{made.backup_id}.sql.gz"


def _assert_refused(runner: Runner, postgres: Postgres, database: PostgresqlSource) -> None:
    from avalanche_contract.result import Result

    backup_id = next(key for key in runner.stored() if key.endswith("_metadata.json")).rpartition("/")[2]
    made = Result(
        nonce="", verb="backup", verdict="Succeeded", reason="", message="", backup_id=backup_id[:24]
    )
    postgres.psql(database.database, "CREATE TABLE only_here (); DROP TABLE taxonomy.assignments CASCADE")
    with pytest.raises(VerificationFailed, match="The target is untouched"):
        runner.restore(made, database)
    assert postgres.psql(database.database, "SELECT to_regclass('only_here')") == "only_here"


def _assert_fails(runner: Runner, source: PostgresqlSource, kind: type[Failure], reason: str) -> Failure:
    with pytest.raises(kind) as raised:
        runner.backup(source)
    assert raised.value.reason == reason, raised.value.message
    assert [key for key in runner.stored() if "/database/" in key] == []
    return raised.value


def _wrap_pg_dump(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """Put a pg_dump before the real one that does the real work and ends otherwise."""
    folder = tmp_path / "clients"
    folder.mkdir()
    for tool in ("psql", "pg_restore"):
        (folder / tool).symlink_to(postgres.binaries / tool)
    script = f'#!/bin/sh\n[ "$1" = --version ] && exec {postgres.binaries}/pg_dump --version\n{postgres.binaries}/pg_dump "$@" {ending}\n'
    (folder / "pg_dump").write_text(script)
    (folder / "pg_dump").chmod(stat.S_IRWXU)
    monkeypatch.setenv(ENV_CLIENTS, str(folder))


@contextmanager
def _server_of_the_future() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
