"""The command line with a folder and a bucket: backups go to both, and are listed, copied, healed and restored from either."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from avalanche_backup.cli.main import main
from avalanche_contract.storage import S3Storage
from tests.integration import servers
from tests.integration.servers import Seaweed
from tests.integration.test_command_line import PROGRAM, Project, log_of


class CloudProject(Project):
    """A project whose backups go to a bucket as well."""

    def __init__(self, folder: Path, storage: S3Storage) -> None:
        super().__init__(folder)
        self.storage = storage
        self.environment |= {
            "AWS_ACCESS_KEY_ID": servers.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY,
        }
        self.configure()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in this process, which saves a second each time; the first test starts a program as people do."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with (
            patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            patch.object(sys, "argv", [PROGRAM.name, *words]),
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def program(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a program of its own."""
        return super().run(*words)

    def configure(self, **changes: Any) -> None:
        """Write the configuration."""
        s3 = {
            "bucket": self.storage.bucket,
            "prefix": self.storage.prefix.rstrip("/"),
            "endpoint": self.storage.endpoint,
            **changes,
        }
        cloud = {"enabled": True, "s3": s3}
        text = json.dumps({"backup": {"files": {"paths": ["data/in"]}, "cloud": cloud}})
        (self.folder / "config" / "backup.yaml").write_text(text)

    @property
    def local(self) -> dict[str, bytes]:
        """Give what lies in the folder, documents of verifications and the place's own aside."""
        root = self.folder / "data/backups"
        files = [path for path in root.rglob("*") if path.is_file()]
        return {str(path.relative_to(root)): path.read_bytes() for path in files if _of_a_backup(path.name)}

    @property
    def cloud(self) -> dict[str, bytes]:
        """Give what lies in the bucket."""
        client = Seaweed(self.storage.endpoint or "").client()
        listed = client.list_objects_v2(Bucket=self.storage.bucket, Prefix=self.storage.prefix).get(
            "Contents", ()
        )
        keys = [each["Key"] for each in listed if _of_a_backup(each["Key"].rpartition("/")[2])]
        read = {key: client.get_object(Bucket=self.storage.bucket, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(self.storage.prefix): data for key, data in read.items()}

    def remove(self, *keys: str) -> None:
        """Take objects out of the bucket."""
        for key in keys:
            client = Seaweed(self.storage.endpoint or "").client()
            client.delete_object(Bucket=self.storage.bucket, Key=f"{self.storage.prefix}{key}")


def _of_a_backup(name: str) -> bool:
    return name.startswith(("database_", "files_", "full_")) and not name.endswith("_verification.json")


@pytest.fixture
def project(tmp_path: Path, corner: S3Storage) -> CloudProject:
    return CloudProject(tmp_path, corner)


def test_a_backup_goes_to_the_folder_and_the_bucket_alike(project: CloudProject) -> None:
    ended = project.program("-o", "json", "full")
    assert ended.returncode == 0, ended.stderr
    made = json.loads(ended.stdout)["backup_id"]
    assert project.local == project.cloud and len(project.local) == 4
    assert project.json("list") == [project.json("list")[0] | {"backup_id": made, "copies": ["local", "s3"]}]
    assert "COPIES" in project.run("list").stdout and "local, s3" in project.run("list").stdout


@pytest.mark.parametrize("change", [{"endpoint": "http://127.0.0.1:1"}, {"bucket": "no-such-bucket"}])
def test_a_bucket_that_fails_costs_its_copy_alone_and_has_an_exit_code_of_its_own(
    project: CloudProject, change: dict[str, str]
) -> None:
    project.configure(**change)
    ended = project.run("-o", "json", "files")
    assert ended.returncode == 24 and "warning: no copy in s3" in ended.stderr
    assert log_of(project)[-1]["exit_code"] == 24
    assert json.loads(ended.stdout)["status"] == "succeeded" and len(project.local) == 3
    project.configure()
    assert [each["action"] for each in project.json("sync")] == ["Upload"]
    assert project.local == project.cloud


def test_a_folder_that_fails_costs_its_copy_alone(project: CloudProject) -> None:
    (project.folder / "data/backups").write_text("in the way")
    ended = project.run("database")
    assert ended.returncode == 24 and "warning: no copy in local" in ended.stderr and len(project.cloud) == 2


def test_upload_copies_one_or_all_even_where_the_cloud_is_not_enabled(project: CloudProject) -> None:
    off = {"BACKUP_CLOUD_ENABLED": "false"}
    made = [project.json("database", **off)["backup_id"], project.json("files", **off)["backup_id"]]
    assert project.cloud == {}
    told = project.json("upload", "--backup-id", made[0], **off)
    assert [(each["backup_id"], each["action"], each["status"]) for each in told] == [
        (made[0], "Upload", "Copied")
    ]
    assert project.json("upload", "--backup-id", made[0], **off)[0]["status"] == "AlreadyThere"
    assert [each["backup_id"] for each in project.json("upload", "--all", **off)] == [made[1]]
    assert project.local == project.cloud


def test_a_fresh_machine_downloads_what_the_bucket_has(project: CloudProject) -> None:
    made = project.json("full")["backup_id"]
    before = project.local
    shutil.rmtree(project.folder / "data/backups")
    assert project.json("download", "--backup-id", made)[0]["status"] == "Copied"
    assert project.local == before and project.json("verify", "--all")[0]["status"] == "Verified"
    shutil.rmtree(project.folder / "data/backups")
    assert [each["backup_id"] for each in project.json("download", "--all")] == [made]
    assert project.local == before


def test_sync_copies_both_ways_and_says_before_what_it_would_do(project: CloudProject) -> None:
    first, second = project.json("database")["backup_id"], project.json("files")["backup_id"]
    both = project.local
    for key in both:
        if first in key:
            (project.folder / "data/backups" / key).unlink()
        else:
            project.remove(key)
    planned = project.json("sync", "--dry-run")
    assert [(each["backup_id"], each["action"], each["status"]) for each in planned] == [
        (first, "Download", "Planned"),
        (second, "Upload", "Planned"),
    ]
    assert len(project.local) + len(project.cloud) == len(both)
    assert {each["status"] for each in project.json("sync")} == {"Copied"}
    assert project.local == both == project.cloud and project.json("sync") == []


def test_what_cannot_be_copied_is_told_and_the_rest_is_copied(project: CloudProject) -> None:
    off = {"BACKUP_CLOUD_ENABLED": "false"}
    damaged, good = project.json("database", **off), project.json("files", **off)["backup_id"]
    os.truncate(project.folder / "data/backups/database" / damaged["artifacts"][0]["file"], 20)
    ended = project.run("-o", "json", "upload", "--all")
    told = {each["backup_id"]: each["status"] for each in json.loads(ended.stdout)}
    assert ended.returncode == 15 and told == {damaged["backup_id"]: "Failed", good: "Copied"}
    assert {key.partition("/")[0] for key in project.cloud} == {"files"}
    assert project.run("upload", "--backup-id", "database_20200101_000000").returncode == 20
    assert project.run("upload").returncode == 2


def test_verify_heals_the_copy_that_is_damaged_or_says_that_it_did_not(project: CloudProject) -> None:
    made = project.json("database")
    before, file = project.local, made["artifacts"][0]["file"]
    os.truncate(project.folder / "data/backups/database" / file, 20)
    ended = project.run("-o", "json", "verify", "--all", "--no-heal")
    assert ended.returncode == 15 and json.loads(ended.stdout)[0]["reason"] == "CopyDamaged"
    assert project.json("verify", "--all")[0]["reason"] == "Healed" and project.local == before
    project.remove(*project.cloud)
    ended = project.run("verify", "--all", "--no-heal")
    assert ended.returncode == 24 and "CopiesIncomplete" in ended.stdout
    assert project.json("verify", "--recent", "1")[0]["reason"] == "Healed" and project.cloud == before


def test_a_restore_reads_the_folder_else_the_bucket(project: CloudProject) -> None:
    made = project.json("files")
    restore = ("restore", "files", "--backup-id", made["backup_id"], "--dry-run")
    assert project.json(*restore)["storage"] == "local"
    assert project.json(*restore, "--from-cloud")["storage"] == "s3"
    os.truncate(project.folder / "data/backups/files" / made["artifacts"][0]["file"], 20)
    (project.folder / "data/in/file").write_text("spoiled")
    force = (*restore[:-1], "--force")
    assert project.run(*force).returncode == 15
    assert project.run(*force, "--from-cloud").returncode == 0
    assert (project.folder / "data/in/file").read_text() == "content"
    shutil.rmtree(project.folder / "data/backups")
    (project.folder / "data/in/file").write_text("spoiled")
    assert project.run(*force).returncode == 0 and (project.folder / "data/in/file").read_text() == "content"


def test_a_copy_that_is_known_to_be_damaged_is_not_restored_where_another_is_good(
    project: CloudProject,
) -> None:
    made = project.json("files")
    restore = ("restore", "files", "--backup-id", made["backup_id"], "--dry-run")
    os.truncate(project.folder / "data/backups/files" / made["artifacts"][0]["file"], 20)
    assert project.run("verify", "--all", "--no-heal").returncode == 15
    assert project.json(*restore)["storage"] == "s3"
    project.remove(*project.cloud)
    assert project.json(*restore)["storage"] == "local"


def test_on_a_fresh_machine_the_newest_good_backup_comes_back_from_the_bucket_alone(
    project: CloudProject,
) -> None:
    old = project.json("full")
    (project.folder / "data/in/file").write_text("newer")
    while (new := project.json("full"))["snapshot_time"] == old["snapshot_time"]:  # times are whole seconds
        old = new
    shutil.rmtree(project.folder / "data/backups")
    (project.folder / "data/in/file").unlink()
    restore = ("restore", "full", "--from-cloud")
    shown = project.json(*restore, "--dry-run", "--as-of", old["snapshot_time"])
    assert shown["backupID"] == old["backup_id"]
    assert project.json(*restore, "--dry-run")["backupID"] == new["backup_id"]
    assert project.run(*restore, "--force").returncode == 0
    assert (project.folder / "data/in/file").read_text() == "newer"
    none = project.run(*restore, "--as-of", "2001-01-01", "--force")
    assert none.returncode == 20 and "no good backup of type full with data of 2001-01-01" in none.stderr
    (artifact,) = (each["file"] for each in new["artifacts"] if each["kind"] == "sqlite")
    project.remove(f"full/{artifact}")
    part = project.json("files")
    passed = project.run("-o", "json", *restore, "--dry-run")
    assert json.loads(passed.stdout)["backupID"] == old["backup_id"]
    assert f"{new['backup_id']} is newer, and is not restored: objects of it are missing" in passed.stderr
    assert f"{part['backup_id']} is newer than {old['backup_id']}, and holds files alone" in passed.stderr
    both = project.run(*restore, "--backup-id", new["backup_id"], "--as-of", "2001-01-01")
    assert both.returncode == 2 and "give one of them" in both.stderr


def test_a_bucket_that_is_away_hides_no_local_backup_and_no_restore(project: CloudProject) -> None:
    made = project.json("files")["backup_id"]
    project.configure(endpoint="http://127.0.0.1:1")
    listed = project.run("-o", "json", "list")
    assert listed.returncode == 12 and [each["backup_id"] for each in json.loads(listed.stdout)] == [made]
    (project.folder / "data/in/file").write_text("spoiled")
    assert project.run("restore", "files", "--backup-id", made, "--force").returncode == 0
    assert (project.folder / "data/in/file").read_text() == "content"
    assert project.run("sync").returncode == 12


def test_the_folder_of_a_lost_cluster_is_adopted_by_naming_it_and_costs_the_copy_otherwise(
    project: CloudProject,
) -> None:
    client = Seaweed(project.storage.endpoint or "").client()
    owner = {"cluster_uid": "lost", "namespace": "edna", "policy": "nightly", "policy_uid": "uid"}
    key = f"{project.storage.prefix}owner.json"
    client.put_object(Bucket=project.storage.bucket, Key=key, Body=json.dumps(owner).encode())
    for words in ((), ("--take-over", "another")):
        ended = project.run("files", *words)
        assert ended.returncode == 24 and not project.cloud
        assert (
            "belongs to policy edna/nightly of cluster lost" in ended.stderr
            and "--take-over lost" in ended.stderr
        )
    assert project.run("files", "--take-over", "lost").returncode == 0
    assert project.run("files").returncode == 0 and len(project.cloud) == 2 * 3
    assert [each["action"] for each in project.json("sync")] == ["Upload", "Upload"]
