"""The command line, run as a person or a script runs it."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.cli.runlock import exclusive
from tests.integration.conftest import FINGERPRINT
from tests.integration.keys import key_pair
from tests.integration.servers import PASSWORD, Postgres

PROGRAM = Path(sys.executable).with_name("avalanche-backup")


class Project:
    """A folder with data, a configuration and a .env."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        (folder / "config").mkdir()
        (folder / "config" / "backup.yaml").write_text("backup: {files: {paths: [data/in]}}\n")
        (folder / ".env").write_text("# the database\nexport DB_TYPE=sqlite\nDB_PATH='app.sqlite'\n")
        (folder / "data" / "in").mkdir(parents=True)
        (folder / "data" / "in" / "file").write_text("content")
        with closing(sqlite3.connect(folder / "app.sqlite")) as made:
            made.execute("CREATE TABLE t (n)")
            made.execute("INSERT INTO t VALUES (42)")
            made.commit()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command without a terminal."""
        return subprocess.run(
            [PROGRAM, *words], cwd=self.folder, env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def json(self, *words: str, **environment: str) -> Any:
        """Run a command for programs."""
        ended = self.run("-o", "json", *words, **environment)
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)


def log_of(project: Project) -> list[dict[str, Any]]:
    """Give the lines of the log of the only day."""
    (file,) = (project.folder / "data/backups/logs").glob("backup_*.log")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_each_type_is_backed_up_listed_and_verified(project: Project) -> None:
    made = [project.json(kind)["backup_id"] for kind in ("database", "files", "full")]
    listed = project.json("list")
    assert sorted(each["backup_id"] for each in listed) == sorted(made)
    assert [each["backup_type"] for each in project.json("list", "--type", "full")] == ["full"]
    assert {each["status"] for each in project.json("verify", "--all")} == {"Verified"}
    assert {
        "backup_id",
        "timestamp",
        "size_bytes",
        "checksum",
        "files_included",
        "compressed",
        "encrypted",
        "status",
    } <= listed[0].keys()


def test_cleanup_tells_of_each_backup_and_removes_what_no_rule_keeps(project: Project) -> None:
    (project.folder / "config/backup.yaml").write_text(
        "backup: {retention: {daily: 1, weekly: 0, monthly: 0, max_delete_percent: 40}}\n"
    )
    made = [project.json("database")["backup_id"] for _ in range(4)]
    while "future-dated" in project.run("cleanup", "--dry-run").stdout:
        pass  # two runs in one second: the later one is named by the second that follows
    refused = project.run("cleanup")
    assert refused.returncode == 21 and "2 of 4 backups (50 %)" in refused.stderr
    assert len(project.json("list")) == 4
    told = project.json("cleanup", "--dry-run")
    assert [(each["backup_id"], each["verdict"]) for each in told] == [
        (made[0], "Keep"), (made[1], "Remove"), (made[2], "Remove"), (made[3], "Keep"),
    ]  # fmt: skip
    assert told[0]["reasons"] == ["daily-1"] and told[3]["reasons"] == ["last-verified"]
    assert project.run("hold", "--backup-id", made[1]).returncode == 0
    assert project.run("cleanup").returncode == 0  # one of four
    assert [each["backup_id"] for each in project.json("list")] == [made[3], made[1], made[0]]
    project.run("release", "--backup-id", made[1])
    project.run("expire", "--backup-id", made[0], "--at", "2020-01-01")
    assert project.run("cleanup", "--force").returncode == 0
    assert [each["backup_id"] for each in project.json("list")] == [made[3], made[1]]
    assert project.run("hold", "--backup-id", "database_20200101_000000").returncode == 20


def test_a_cleanup_waits_for_no_run_and_touches_nothing_while_one_is_under_way(project: Project) -> None:
    project.json("database")
    with exclusive(project.folder / "data/backups"):
        ended = project.run("cleanup")
        assert ended.returncode == 19 and "another run is under way" in ended.stderr
        assert project.run("cleanup", "--dry-run").returncode == 0


def test_delete_asks_first_and_erases_what_is_not_held(project: Project) -> None:
    made = [project.json("database")["backup_id"] for _ in range(2)]
    said = project.json("hold", "--backup-id", made[0])
    assert said == {"backup_id": made[0], "held": True, "expiration_time": None, "anomaly_accepted": False}
    unasked = project.run("delete", "--backup-id", made[0])
    assert unasked.returncode == 21 and "--force" in unasked.stderr
    held = project.run("delete", "--backup-id", made[0], "--force")
    assert held.returncode == 21 and "release it first" in held.stderr
    assert project.json("release", "--backup-id", made[0])["held"] is False
    erased = project.json("delete", "--backup-id", made[0], "--force")
    assert erased == {"backup_id": made[0], "verdict": "Remove", "reasons": ["delete-requested"]}
    assert [each["backup_id"] for each in project.json("list")] == [made[1]]
    assert project.run("delete", "--backup-id", made[0], "--force").returncode == 20


def test_what_is_said_of_a_backup_is_given_to_programs(project: Project) -> None:
    made = project.json("database")["backup_id"]
    until = project.json("expire", "--backup-id", made, "--at", "2030-01-31")
    assert until["expiration_time"] == "2030-01-31T00:00:00Z"
    assert project.json("accept-anomaly", "--backup-id", made)["anomaly_accepted"] is True
    never = project.json("expire", "--backup-id", made, "--never")
    assert never["expiration_time"] is None and never["anomaly_accepted"] is True
    assert project.run("expire", "--backup-id", made).returncode == 2


def test_a_damaged_backup_is_exit_code_15(project: Project) -> None:
    made = project.json("database")
    artifact = project.folder / "data/backups/database" / made["artifacts"][0]["file"]
    os.truncate(artifact, 20)
    ended = project.run("-o", "json", "verify", "--backup-id", made["backup_id"])
    assert ended.returncode == 15 and json.loads(ended.stdout)[0]["status"] == "VerificationFailed"


def test_damaged_metadata_fails_a_verification_of_all(project: Project) -> None:
    project.json("database")
    (project.folder / "data/backups/database/database_20200101_000000_metadata.json").write_text("{")
    ended = project.run("-o", "json", "verify", "--all")
    verdicts = {each["backup_id"]: each["reason"] for each in json.loads(ended.stdout)}
    assert ended.returncode == 15 and verdicts["database_20200101_000000"] == "MetadataInvalid"


def _verified(project: Project, backup_id: str, when: str) -> None:
    """Let a backup have been verified at some time."""
    (verdict,) = project.folder.rglob(f"{backup_id}_verification.json")
    verdict.write_text(json.dumps({**json.loads(verdict.read_text()), "verified_time": when}))


def test_the_oldest_are_those_that_were_not_verified_for_longest(project: Project) -> None:
    ids = [project.json(kind)["backup_id"] for kind in ("files", "database", "files")]
    project.json("verify", "--all")
    for backup_id, when in zip(ids[1:], ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"), strict=True):
        _verified(project, backup_id, when)
    assert [each["backup_id"] for each in project.json("verify", "--oldest", "2")] == ids[1:]
    assert project.run("verify", "--oldest", "1", "--all").returncode == 2


def test_a_reading_that_no_verdict_tells_of_counts_for_whose_turn_it_is(project: Project) -> None:
    """A storage that takes no second write of a verdict has a note beside it, whose name says when."""
    ids = [project.json(kind)["backup_id"] for kind in ("files", "database")]
    project.json("verify", "--all")
    _verified(project, ids[0], "2020-01-01T00:00:00Z")
    _verified(project, ids[1], "2020-01-02T00:00:00Z")
    (metadata,) = project.folder.rglob(f"{ids[0]}_metadata.json")
    metadata.with_name(f"{ids[0]}_read_20200103000000.json").write_text("{}")
    assert [each["backup_id"] for each in project.json("verify", "--oldest", "1")] == ids[1:]


def test_a_reading_that_is_yet_to_come_is_none(project: Project) -> None:
    ids = [project.json(kind)["backup_id"] for kind in ("files", "database", "files")]
    project.json("verify", "--all")
    _verified(project, ids[0], "2020-01-01T00:00:00Z")
    _verified(project, ids[1], "2099-01-01T00:00:00Z")
    (metadata,) = project.folder.rglob(f"{ids[0]}_metadata.json")
    metadata.with_name(f"{ids[0]}_read_20990101000000.json").write_text("{}")
    assert {each["backup_id"] for each in project.json("verify", "--oldest", "2")} == set(ids[:2])


@pytest.mark.parametrize("words", [("list",), ("verify", "--all"), ("verify", "--recent", "1")])
def test_a_folder_of_backups_that_is_gone_is_no_empty_list(project: Project, words: tuple[str, ...]) -> None:
    ended = project.run(*words)
    assert ended.returncode == 13 and "is the volume mounted?" in ended.stderr


def test_a_variable_that_is_nearly_ours_is_refused(project: Project) -> None:
    ended = project.run("database", DB_PASSWROD="secret")
    assert ended.returncode == 2 and "did you mean DB_PASSWORD?" in ended.stderr
    assert "secret" not in ended.stderr


def test_files_that_hold_the_backups_themselves_are_refused(project: Project) -> None:
    (project.folder / "config/backup.yaml").write_text("backup: {files: {paths: [data]}}\n")
    ended = project.run("files")
    assert ended.returncode == 2 and "put data/backups into backup.files.exclude" in ended.stderr
    text = "backup: {files: {paths: [data], exclude: [data/backups]}}\n"
    (project.folder / "config/backup.yaml").write_text(text)
    assert project.run("files").returncode == 0


def test_a_restore_without_a_terminal_wants_force(project: Project) -> None:
    made = project.json("full")["backup_id"]
    (project.folder / "data/in/file").write_text("spoiled")
    refused = project.run("restore", "full", "--backup-id", made)
    assert refused.returncode == 17 and "--force" in refused.stderr
    assert (project.folder / "data/in/file").read_text() == "spoiled"
    assert project.run("restore", "full", "--backup-id", made, "--dry-run").returncode == 0
    assert (project.folder / "data/in/file").read_text() == "spoiled"
    assert project.run("restore", "full", "--backup-id", made, "--force").returncode == 0
    assert (project.folder / "data/in/file").read_text() == "content"


@pytest.mark.parametrize(("answer", "code", "content"), [("yes", 0, "content"), ("y", 17, "spoiled")])
def test_on_a_terminal_the_word_yes_is_asked_for(
    project: Project, answer: str, code: int, content: str
) -> None:
    made = project.json("files")["backup_id"]
    (project.folder / "data/in/file").write_text("spoiled")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "restore", "files", "--backup-id", made], cwd=project.folder, env=project.environment,
        stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(ours, f"{answer}\n".encode())
    process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code and (project.folder / "data/in/file").read_text() == content


def test_a_database_is_restored_into_another_one_to_test_it(
    project: Project, postgres: Postgres, database: Any
) -> None:
    server = {"DB_TYPE": "postgresql", "DB_HOST": "127.0.0.1", "DB_PORT": str(postgres.port), "DB_USER": "avalanche",
              "DB_PASSWORD": PASSWORD}  # fmt: skip
    made = project.json("database", DB_NAME=database.database, **server)["backup_id"]
    postgres.psql("postgres", f'CREATE DATABASE "test {database.database}"')
    target = {"DB_NAME": f"test {database.database}", **server}
    ended = project.run("restore", "database", "--backup-id", made, "--force", **target)
    assert ended.returncode == 0, ended.stderr
    expected = postgres.psql(database.database, FINGERPRINT)
    assert postgres.psql(f"test {database.database}", FINGERPRINT) == expected
    assert PASSWORD not in ended.stdout + ended.stderr


def test_a_directory_is_dumped_as_configured_and_restored_by_several_jobs_where_asked(
    project: Project, postgres: Postgres, database: Any
) -> None:
    configured = "backup: {database: {format: directory, jobs: 2, include_globals: true}}\n"
    (project.folder / "config" / "backup.yaml").write_text(configured)
    server = {"DB_TYPE": "postgresql", "DB_HOST": "127.0.0.1", "DB_PORT": str(postgres.port), "DB_USER": "avalanche",
              "DB_PASSWORD": PASSWORD, "DB_NAME": database.database}  # fmt: skip
    made = project.json("database", **server)
    assert [(each["role"], each["format"]) for each in made["artifacts"]] == [
        ("data", "Directory"),
        ("globals", "Plain"),
    ]
    before = postgres.psql(database.database, FINGERPRINT)
    alone = project.run("restore", "database", "--backup-id", made["backup_id"], "--dry-run", **server)
    assert "in one transaction" in alone.stdout
    words = (
        "restore",
        "database",
        "--backup-id",
        made["backup_id"],
        "--force",
        "--jobs",
        "2",
        "--strategy",
        "in-place",
    )
    together = project.run(*words, **server)
    assert together.returncode == 0 and "NOT in one transaction" in together.stdout
    assert postgres.psql(database.database, FINGERPRINT) == before


def _encrypting(project: Project, recipients: str, identity: str = "null") -> None:
    (project.folder / "config/backup.yaml").write_text(
        f"backup: {{files: {{paths: [data/in]}}, compression: {{algorithm: zstd, level: 9}}, "
        f"encryption: {{recipients: {recipients}, identity_file: {identity}}}}}\n"
    )


def test_an_encrypted_backup_is_verified_and_restored_with_the_identity_alone(project: Project) -> None:
    keys, other = key_pair(project.folder / "key.txt"), key_pair(project.folder / "other.txt")
    _encrypting(project, f"[{keys.recipient}]")
    made = project.json("full")
    assert made["encrypted"] and [each["recipients"] for each in made["artifacts"]] == [[keys.recipient]] * 3
    (project.folder / "data/in/file").write_text("spoiled")
    assert project.json("verify", "--all")[0]["reason"] == "NotDecoded"
    refused = project.run("restore", "full", "--backup-id", made["backup_id"], "--force")
    assert refused.returncode == 14 and keys.recipient in refused.stderr
    _encrypting(project, f"[{keys.recipient}]", "other.txt")
    unread = project.run("-o", "json", "verify", "--all")
    assert unread.returncode == 14 and json.loads(unread.stdout)[0]["reason"] == "IdentityDoesNotFit"
    _encrypting(project, f"[{other.recipient}]", "key.txt")  # rotated: the old backup opens all the same
    assert project.json("verify", "--all")[0]["reason"] == "Verified"
    plan = project.run("restore", "full", "--backup-id", made["backup_id"], "--dry-run")
    assert f"Encrypted for {keys.recipient}" in plan.stdout
    restored = project.run("restore", "full", "--backup-id", made["backup_id"], "--force")
    assert restored.returncode == 0 and (project.folder / "data/in/file").read_text() == "content"
    assert "SECRET-KEY" not in f"{made} {refused} {unread} {plan} {restored}"


@pytest.mark.parametrize("field", ["recipients", "identity_file"])
def test_a_private_key_that_went_astray_into_the_configuration_is_not_repeated(
    project: Project, field: str
) -> None:
    secret = key_pair(project.folder / "key.txt").secret
    _encrypting(project, *((secret,) if field == "recipients" else ("[]", secret)))
    command = ["files"] if field == "recipients" else ["verify", "--backup-id", "files_20260101_000000"]
    ended = project.run(*command)
    assert ended.returncode == 2 and field in ended.stderr and "SECRET-KEY" not in ended.stderr + ended.stdout
    assert not list((project.folder / "data").rglob("*.age"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("backup: {compression: {algorithm: gzip, level: 10}}", "gzip has levels 1 to 9"),
        ("backup: {compression: {algorithm: none, level: 1}}", "none has no level"),
        ("backup: {encryption: {recipient: [age1]}}", "did you mean backup.encryption.recipients?"),
        ("backup: {root_dirr: x}", "unknown key backup.root_dirr; did you mean backup.root_dir?"),
        ("backup: {cloud: {s3: {buckett: x}}}", "did you mean backup.cloud.s3.bucket?"),
        ("backup: {retention: {daily: many}}", "backup.retention.daily"),
        ("backup: [", "not YAML"),
        ("backup: {files: {paths: [../x]}}", "backup.files.paths.0: "),
    ],
)
def test_a_wrong_configuration_names_the_key(project: Project, text: str, sentence: str) -> None:
    (project.folder / "config/backup.yaml").write_text(text)
    ended = project.run("list")
    assert ended.returncode == 2 and sentence in ended.stderr


def test_a_missing_backup_and_a_missing_setting_have_codes_of_their_own(project: Project) -> None:
    assert project.run("verify", "--backup-id", "database_20200101_000000").returncode in (13, 20)
    ended = project.run("database", DB_TYPE="postgresql")
    assert ended.returncode == 14 and "DB_NAME" in ended.stderr


def test_a_restore_that_kept_what_was_there_is_taken_back_by_one_command(project: Project) -> None:
    file, app = project.folder / "data/in/file", project.folder / "app.sqlite"
    made = project.json("full")["backup_id"]
    file.write_text("second")
    with closing(sqlite3.connect(app)) as changed, changed:
        changed.execute("UPDATE t SET n = 43")
    words = ("restore", "full", "--backup-id", made, "--force", "--keep-previous")
    assert project.run(*words, "--strategy", "in-place").returncode == 2
    assert project.run(*words).returncode == 0
    assert file.read_text() == "content"
    assert project.run("undo", "full").returncode == 17
    assert "takes its place again" in project.run("undo", "full", "--dry-run").stdout
    undone = project.run("undo", "full", "--force")
    assert undone.returncode == 0, undone.stderr
    with closing(sqlite3.connect(app)) as found:
        assert (file.read_text(), found.execute("SELECT n FROM t").fetchall()) == ("second", [(43,)])
    nothing = project.run("undo", "full", "--force")
    assert nothing.returncode == 17 and "kept anything" in nothing.stderr
