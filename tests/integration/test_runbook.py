"""The runbook without a cluster: its commands, as they stand there, bring back what a cluster had backed up."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from avalanche_contract.request import Compression
from avalanche_contract.source import FilesSource, PostgresqlSource
from avalanche_contract.storage import S3Storage
from tests import runbook
from tests.cluster.packages import ensure_packages
from tests.integration import servers
from tests.integration.conftest import FINGERPRINT
from tests.integration.keys import encrypted_for, key_pair
from tests.integration.runs import PREFIX, Runner
from tests.integration.servers import Postgres, Seaweed
from tests.integration.test_command_line import PROGRAM

TOOLS = {"rclone": "rclone", "age": "age", "zstd": "zstd", "jq": "jq", "psql": "postgresql-client"}


@pytest.fixture
def values(
    tmp_path: Path, bucket: S3Storage, postgres: Postgres, database: PostgresqlSource
) -> dict[str, str]:
    """Back up as a cluster does, encrypted, and lose everything but the bucket and the drawer; give what the runbook asks for."""
    drawer, source = tmp_path / "drawer", tmp_path / "volume"
    drawer.mkdir()
    (source / "results").mkdir(parents=True)
    (source / "results" / "table 1.csv").write_text("".join(f"{n};{n * n}\n" for n in range(5000)))
    (source / "results" / "latest").symlink_to("table 1.csv")
    (source / "raw.fastq").write_bytes(os.urandom(300_000))
    keys = key_pair(drawer / "age.identity")
    (drawer / "object-storage.env").write_text(
        f"AWS_ACCESS_KEY_ID={servers.ACCESS_KEY}\nAWS_SECRET_ACCESS_KEY={servers.SECRET_KEY}\n"
    )
    (drawer / "database.env").write_text(f"username=avalanche\npassword={servers.PASSWORD}\n")
    runner = Runner(bucket.model_copy(update={"prefix": ""}), tmp_path / "scratch")
    runner.backup(
        database, FilesSource(name="data", root=str(source), paths=(".",)), kind="full",
        compression=Compression(algorithm="Zstd"), encryption=encrypted_for(keys),
    )  # fmt: skip
    namespace, policy = PREFIX.strip("/").split("/")
    postgres.psql("postgres", 'DROP DATABASE IF EXISTS "brought back"')
    postgres.psql("postgres", 'CREATE DATABASE "brought back"')
    return dict.fromkeys(runbook.variables(), "") | {
        "DRAWER": str(drawer), "BUCKET": bucket.bucket, "REGION": "us-east-1", "ENDPOINT": str(bucket.endpoint),
        "NAMESPACE": namespace, "POLICY": policy, "DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(postgres.port),
        "DATABASE": "brought back",
    }  # fmt: skip


def files_of(root: Path) -> dict[str, str]:
    """Give what a tree holds, by path: the hash of a file, where a link leads."""
    found = (each for each in root.rglob("*") if each.is_symlink() or each.is_file())
    return {
        str(each.relative_to(root)): f"to {each.readlink()}"
        if each.is_symlink()
        else hashlib.sha256(each.read_bytes()).hexdigest()
        for each in found
    }


def test_on_any_machine_the_command_line_brings_everything_back(
    values: dict[str, str], tmp_path: Path, postgres: Postgres, database: PostgresqlSource, seaweed: Seaweed
) -> None:
    path = f"{PROGRAM.parent}:{os.environ['PATH']}"
    runbook.run("(c) There is no cluster", values, tmp_path, PATH=path)
    assert files_of(tmp_path / "rescue" / "data") == files_of(tmp_path / "volume")
    assert postgres.psql("brought back", FINGERPRINT) == postgres.psql(database.database, FINGERPRINT)
    s3 = seaweed.client()
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=values["BUCKET"], Prefix=PREFIX)["Contents"]]
    made = [each for each in keys if each.endswith("_metadata.json")]
    owner = json.loads(s3.get_object(Bucket=values["BUCKET"], Key=f"{PREFIX}owner.json")["Body"].read())
    assert len(made) == 2 and (owner["cluster_uid"], owner["policy"]) == ("", "policy")


def test_debians_tools_alone_bring_everything_back(
    values: dict[str, str], tmp_path: Path, postgres: Postgres, database: PostgresqlSource
) -> None:
    ensure_packages(TOOLS, print)
    said = runbook.run(
        "(d) With Debian's tools alone",
        values,
        tmp_path,
        PATH="/usr/bin:/bin",
        HOME=str(tmp_path),
        AWS_CA_BUNDLE="",
    )
    assert said.count(": OK") == 3 and ": succeeded, data of 20" in said
    assert files_of(tmp_path / "by-hand" / "data") == files_of(tmp_path / "volume")
    assert postgres.psql("brought back", FINGERPRINT) == postgres.psql(database.database, FINGERPRINT)
