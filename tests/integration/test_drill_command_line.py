"""`avalanche-backup drill` as a person or a scheduler runs it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import mail
from tests.integration.mail import Mail
from tests.integration.servers import PASSWORD, Postgres
from tests.integration.test_command_line import Project
from tests.integration.test_standalone import configure, with_mail


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with mail.server(tmp_path_factory.mktemp("mail")) as running:
        yield running


def test_the_newest_backup_is_drilled_and_the_questions_of_the_configuration_are_asked(
    project: Project,
) -> None:
    configure(project, drill={"queries": [{"sql": "SELECT n FROM t", "expect": 42}]})
    project.run("full")
    ended = project.run("drill")
    assert ended.returncode == 0, ended.stderr
    assert "succeeded" in ended.stdout and "1 of 1 questions answered as expected" in ended.stdout
    assert "as in the index" in ended.stdout and "integrity_check ok" in ended.stdout
    told = project.json("drill", "--query", "SELECT n FROM t")
    assert told["succeeded"] and "'SELECT n FROM t' gave '42'" in told["message"]


def test_a_wrong_answer_ends_with_25_and_is_mailed_once_as_is_the_first_success_after_it(
    project: Project, server: Mail
) -> None:
    with_mail(project, server)
    project.run("database")
    told = []
    for _ in range(2):
        ended = project.run("-o", "json", "drill", "--query", "SELECT n FROM t", "--expect", "> 42")
        assert ended.returncode == 25
        assert "gave '42', and not '> 42'" in ended.stderr
        assert json.loads(ended.stdout)["reason"] == "AssertionFailed"
        (beside,) = (project.folder / "data/backups").rglob("*_drill.json")
        written = json.loads(beside.read_text())
        told.append((written["told_reason"], written["told_time"]))
    assert told == [("AssertionFailed", told[0][1])] * 2
    ((_, _, first),) = server.received
    assert "could not be restored in a drill: AssertionFailed" in first["Subject"]
    assert project.run("drill").returncode == 0
    assert "drill works again" in server.received[1][2]["Subject"]


def test_what_is_kept_can_be_looked_into_and_removed_as_the_message_says(
    project: Project, postgres: Postgres
) -> None:
    postgres.psql("postgres", "CREATE DATABASE kept")
    postgres.psql("kept", "CREATE TABLE t (n int); INSERT INTO t VALUES (42)")
    environment = {
        "DB_TYPE": "postgresql", "DB_HOST": "127.0.0.1", "DB_PORT": str(postgres.port), "DB_NAME": "kept",
        "DB_USER": "avalanche", "DB_PASSWORD": PASSWORD,
    }  # fmt: skip
    assert project.run("database", **environment).returncode == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        ended = project.run("drill", "--keep", **environment, TMPDIR=folder)
        assert ended.returncode == 0, ended.stderr
        connect = re.search(r"^connect: (.*)$", ended.stdout, re.MULTILINE)
        stop = re.search(
            r"^stop and remove: kill -QUIT (\d+); rm -r (\S+) (\S+)$", ended.stdout, re.MULTILINE
        )
        assert connect and stop
        shown = subprocess.run(
            [*connect[1].split(), "-Atc", "SELECT n FROM t"], capture_output=True, text=True, check=True
        )
        assert shown.stdout.strip() == "42"
        subprocess.run(["kill", "-QUIT", stop[1]], check=True)
        for each in stop.group(2, 3):
            shutil.rmtree(each, ignore_errors=True)


def test_options_that_do_not_fit_together_are_refused(project: Project) -> None:
    for words, why in (
        (("--backup-id", "database_20240101_000000", "--recent"), "say which"),
        (("--query", "SELECT 1", "--expect", "1", "--expect", "2"), "one for each"),
        (("--query", "SELECT 1", "--expect", "> many"), "no number"),
    ):
        ended = project.run("drill", *words)
        assert ended.returncode == 2
        assert why in ended.stderr
    assert project.run("drill").returncode == 20
