"""The configuration of the command line: each key obeyed or refused, and the environment wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.environment import load_dotenv
from avalanche_backup.cli.parsing import parse
from avalanche_backup.errors import Failure, UsageInvalid
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.storage import AzureStorage, DirectoryStorage, GcsStorage, S3Storage

SINGLE_LINE = st.characters(exclude_characters="\r\n'\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e", codec="utf-8")
DATABASE = {"DB_NAME": "edna", "DB_USER": "avalanche"}


def _read(environment: dict[str, str] | None = None, **section: Any) -> Configuration:
    return Configuration(parse({"backup": section}), environment or {})


@pytest.mark.parametrize(
    ("written", "value"),
    [("'x' # note", "x"), ('"a\\"b" # note', 'a"b'), ("x # note", "x"), ("'a # b'", "a # b"), ("a#b", "a#b")],
)
def test_a_comment_may_follow_a_value_quoted_or_not(tmp_path: Path, written: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"NAME={written}\n")
    found: dict[str, str] = {}
    load_dotenv(tmp_path / ".env", found)
    assert found == {"NAME": value}


@pytest.mark.parametrize("empty", [None, {}, {"backup": {}}])
def test_without_a_file_the_defaults_hold(empty: Any) -> None:
    configuration = Configuration(parse(empty), {})
    storage, files = configuration.local.storage, configuration.source("files")
    assert isinstance(storage, DirectoryStorage) and storage.root == "data/backups"
    assert isinstance(files, FilesSource)
    assert files.paths == ("data/datasets", "data/reference", "data/results", "config")
    assert configuration.compression.algorithm == "Gzip"


@pytest.mark.parametrize(
    ("value", "algorithm", "level"),
    [
        (True, "Gzip", None),
        (False, "None", None),
        ({"algorithm": "zstd", "level": 9}, "Zstd", 9),
        ({"level": 1}, "Gzip", 1),
    ],
)
def test_compression_is_a_switch_or_a_choice(value: Any, algorithm: str, level: int | None) -> None:
    chosen = _read(compression=value).compression
    assert (chosen.algorithm, chosen.level) == (algorithm, level)


@pytest.mark.parametrize(("document", "sentence"), [
    ({"backups": {}}, "unknown key backups; did you mean backup?"),
    ({"backup": {"file": {}}}, "unknown key backup.file; did you mean backup.files?"),
    ({"backup": {"retention": {"dayly": 1}}}, "did you mean backup.retention.daily?"),
    ({"backup": {"cloud": {"s3": {"secret_key": "x"}}}}, "unknown key backup.cloud.s3.secret_key"),
    ({"backup": {"retention": {"daily": -1}}}, "backup.retention.daily: input should be greater"),
    ({"backup": {"compression": {"algorithm": "lzma"}}}, "backup.compression.algorithm"),
    ({"backup": {"cloud": {"provider": "ftp"}}}, "backup.cloud.provider"),
    ({"backup": {"database": {"globals": True}}}, "unknown key backup.database.globals; did you mean backup.database.include_globals?"),
    ({"backup": {"database": {"format": "custom", "jobs": 2}}}, "jobs above 1 need format: directory"),
    (["backup"], "is no mapping"),
])  # fmt: skip
def test_what_is_wrong_is_named(document: Any, sentence: str) -> None:
    with pytest.raises(UsageInvalid) as raised:
        parse(document)
    assert sentence in raised.value.message


@pytest.mark.parametrize(("value", "cloud"), [("true", True), ("YES", True), ("0", False), ("", False)])
def test_the_environment_switches_the_cloud_over_the_file(value: str, cloud: bool) -> None:
    places = _read({"BACKUP_CLOUD_ENABLED": value}, cloud={"enabled": not cloud}).places
    assert [isinstance(each.storage, S3Storage) for each in places] == ([False, True] if cloud else [False])


def test_a_bucket_takes_its_keys_from_the_environment_by_name_and_never_by_value() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "canary"}
    storage = _read(environment, cloud={"enabled": True, "s3": {"bucket": "b", "prefix": "p"}}).cloud.storage
    assert isinstance(storage, S3Storage) and storage.prefix == "p/"
    assert (
        storage.secret_access_key is not None
        and storage.secret_access_key.environment == "AWS_SECRET_ACCESS_KEY"
    )
    assert "canary" not in storage.model_dump_json()


def test_the_file_says_how_a_database_is_dumped() -> None:
    section = {"format": "directory", "jobs": 4, "include_globals": True}
    source = _read(DATABASE, database=section).source("database")
    assert isinstance(source, PostgresqlSource)
    assert (source.format, source.jobs, source.include_globals) == ("Directory", 4, True)


def test_the_environment_names_the_database() -> None:
    source = _read({**DATABASE, "DB_HOST": "db", "DB_PORT": "5433", "DB_PASSWORD": "canary"}).source(
        "database"
    )
    assert isinstance(source, PostgresqlSource)
    assert (source.host, source.port, source.database, source.username) == ("db", 5433, "edna", "avalanche")
    assert "canary" not in source.model_dump_json()
    lite = _read({"DB_TYPE": "sqlite", "DB_PATH": "app.sqlite"}).source("database")
    assert isinstance(lite, SqliteSource) and lite.path == "app.sqlite"


@pytest.mark.parametrize(("environment", "name"), [
    ({}, "DB_NAME"),
    ({"DB_NAME": "edna"}, "DB_USER"),
    ({"DB_TYPE": "sqlite"}, "DB_PATH"),
    ({"DB_TYPE": "oracle"}, "DB_TYPE"),
    ({**DATABASE, "DB_PORT": "70000"}, "DB_PORT"),
])  # fmt: skip
def test_a_variable_that_is_missing_or_wrong_is_named(environment: dict[str, str], name: str) -> None:
    with pytest.raises(Failure, match=name):
        _read(environment).source("database")


def test_a_full_backup_has_both_sources() -> None:
    assert [each.name for each in _read(DATABASE).sources("full")] == ["database", "files"]


def test_a_dotenv_file_gives_what_the_environment_does_not(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        '# comment\n\nexport DB_HOST=db   # a comment\nDB_NAME = \'a # b\'\nDB_PASSWORD="quoted \\"word\\""\nDB_USER=from-file\n'
    )
    environment = {"DB_USER": "from-environment"}
    load_dotenv(tmp_path / ".env", environment)
    assert environment == {
        "DB_USER": "from-environment",
        "DB_HOST": "db",
        "DB_NAME": "a # b",
        "DB_PASSWORD": 'quoted "word"',
    }


def test_a_line_of_dotenv_that_says_nothing_is_named_without_its_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DB_HOST=db\nhunter2 is the password\n")
    with pytest.raises(UsageInvalid, match="line 2: write NAME=value") as raised:
        load_dotenv(tmp_path / ".env", {})
    assert "hunter2" not in raised.value.message


@given(st.text(SINGLE_LINE))
def test_a_single_quoted_value_is_taken_as_it_is(value: str) -> None:
    class Lines:
        def read_text(self, encoding: str) -> str:
            assert encoding == "utf-8"
            return f"NAME='{value}'\n"

    environment: dict[str, str] = {}
    load_dotenv(Lines(), environment)  # type: ignore[arg-type] # a file of one line
    assert environment == {"NAME": value}


def test_azure_is_told_by_the_file_and_the_environment() -> None:
    section = parse(
        {
            "backup": {
                "cloud": {"enabled": True, "provider": "azure", "azure": {"container": "c", "prefix": "p"}}
            }
        }
    )
    environment = {"AZURE_STORAGE_ACCOUNT": "account", "AZURE_STORAGE_CONNECTION_STRING": "x"}
    storage = Configuration(section, environment).cloud.storage
    assert isinstance(storage, AzureStorage) and (storage.container, storage.prefix) == ("c", "p/")
    assert storage.account_name == "account" and storage.account_key is None
    assert storage.connection_string is not None
    assert storage.connection_string.environment == "AZURE_STORAGE_CONNECTION_STRING"


def test_google_is_told_by_the_file_and_the_sdk_finds_the_key() -> None:
    cloud = {"enabled": True, "provider": "gcs", "gcs": {"bucket": "b", "prefix": "", "project_id": "edna-1"}}
    storage = Configuration(parse({"backup": {"cloud": cloud}}), {}).cloud.storage
    assert isinstance(storage, GcsStorage) and storage.credentials is None
    assert (storage.bucket, storage.prefix, storage.project_id) == ("b", "", "edna-1")


def test_a_temporary_key_of_aws_is_taken_with_its_token() -> None:
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_SESSION_TOKEN": "c"}
    storage = Configuration(parse({"backup": {"cloud": {"enabled": True}}}), environment).cloud.storage
    assert isinstance(storage, S3Storage) and storage.session_token is not None
