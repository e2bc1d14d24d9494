"""The command line under a scheduler: one run at a time, a log of each day, mail when it matters, exit codes."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration import mail
from tests.integration.mail import PASSWORD, Mail
from tests.integration.test_command_line import PROGRAM, Project, log_of

HOLD = "import sys, pathlib; from avalanche_backup.cli.runlock import exclusive\nwith exclusive(pathlib.Path('data/backups')): print('held', flush=True); sys.stdin.read()"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with mail.server(tmp_path_factory.mktemp("mail")) as running:
        yield running


def configure(project: Project, **section: Any) -> None:
    document = {"backup": {"files": {"paths": ["data/in"]}, **section}}
    (project.folder / "config/backup.yaml").write_text(yaml.safe_dump(document))


def with_mail(project: Project, server: Mail, **more: Any) -> None:
    email = {
        "smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_user": "backup", "smtp_password": PASSWORD,
        "from_email": "backup@edna.example", "to_emails": ["a@edna.example"], "ca_file": str(server.ca_file), **more,
    }  # fmt: skip
    configure(project, notifications={"email": email})


def forget(project: Project) -> None:
    """Remove what failed runs left: the same failure is told once in twelve hours."""
    for path in (project.folder / "data/backups").rglob("*_attempt.json"):
        path.unlink()


@contextmanager
def holder(project: Project) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=project.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_run_is_refused_and_told_who_works_here(project: Project, server: Mail) -> None:
    with_mail(project, server)
    with holder(project) as other:
        ended = project.run("files")
    assert ended.returncode == 19 and f"process {other.pid}, since {datetime.now(UTC):%Y-}" in ended.stderr
    assert project.json("list") == []
    subject = server.received[0][2]["Subject"]
    assert subject.startswith("[avalanche] files backup did not run: AlreadyRunning (")


def test_the_lock_of_a_dead_process_stops_nothing(project: Project) -> None:
    with holder(project) as other:
        other.kill()
        other.wait()
        assert json.loads((project.folder / "data/backups/run.lock").read_text())["pid"] == other.pid
        assert project.run("files").returncode == 0


def test_a_run_leaves_its_story_in_the_log_of_the_day(project: Project) -> None:
    made = project.json("files")["backup_id"]
    assert project.run("verify", "--backup-id", made).returncode == 0
    lines = log_of(project)
    assert [each["command"] for each in lines if each["event"] == "started"] == ["files", f"verify {made}"]
    assert [each["exit_code"] for each in lines if each["event"] == "ended"] == [0, 0]
    assert {"Running", "Verifying"} <= {each.get("phase") for each in lines}
    listed = project.json("logs")
    assert [each["date"] for each in listed] == [f"{datetime.now(UTC):%Y-%m-%d}"]
    assert project.json("logs", "show") == lines
    shown = project.run("logs", "--date", f"{datetime.now(UTC):%Y%m%d}")
    assert "started" in shown.stdout and shown.returncode == 0
    assert project.run("logs", "--date", "2020-01-01").returncode == 20


def test_a_failure_is_in_the_log_with_its_reason_and_code(project: Project) -> None:
    (project.folder / "data/in/file").unlink()
    ended = project.run("files")
    last = log_of(project)[-1]
    assert ended.returncode == last["exit_code"] == 11 and last["reason"] == "SourceEmpty"
    assert last["level"] == "error" and last["message"] in ended.stderr


def test_logs_stay_as_long_as_is_said_and_what_is_not_ours_stays(project: Project) -> None:
    configure(project, logs={"keep_days": 3})
    folder = project.folder / "data/backups/logs"
    folder.mkdir(parents=True)
    today = datetime.now(UTC).date()
    for days in (1, 2, 3, 400):
        (folder / f"backup_{today - timedelta(days=days):%Y%m%d}.log").write_text("{}\n")
    (folder / "backup_notes.log").write_text("mine")
    assert project.run("files").returncode == 0
    assert len(list(folder.iterdir())) == 4 and (folder / "backup_notes.log").exists()


def test_a_log_that_cannot_be_written_stops_nothing(project: Project) -> None:
    (project.folder / "data/backups").mkdir(parents=True)
    (project.folder / "data/backups/logs").write_text("in the way")
    ended = project.run("files")
    assert ended.returncode == 0 and ended.stderr.count("cannot be written") == 1


def test_progress_is_json_lines_without_a_terminal_and_the_answer_stays_clean(project: Project) -> None:
    ended = project.run("-o", "json", "files")
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {"progress"} == {each["event"] for each in lines} and {"Running", "Verifying"} <= {
        each["phase"] for each in lines
    }
    assert json.loads(ended.stdout)["backup_type"] == "files"


def test_progress_is_a_bar_on_a_terminal(project: Project) -> None:
    (project.folder / "data/in/large").write_bytes(os.urandom(30_000_000))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "files"],
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    shown = b""
    while process.poll() is None or select.select([ours], [], [], 0)[0]:
        if select.select([ours], [], [], 0.1)[0]:
            shown += os.read(ours, 65536)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 0
    assert b"\r\x1b[KRunning files [" in shown and b"] " in shown and shown.endswith(b"\r\x1b[K")
    assert b'"event"' not in shown


def test_a_failed_run_and_the_first_good_one_after_it_are_mailed_once_each(
    project: Project, server: Mail
) -> None:
    with_mail(project, server)
    content = (project.folder / "data/in/file").read_text()
    (project.folder / "data/in/file").unlink()
    assert project.run("files").returncode == 11
    (project.folder / "data/in/file").write_text(content)
    for _ in range(2):
        assert project.run("files").returncode == 0
    subjects = [message["Subject"] for _, _, message in server.received]
    assert (
        len(subjects) == 2
        and "files backup failed: SourceEmpty" in subjects[0]
        and "works again" in subjects[1]
    )
    assert "[avalanche] files backup" in subjects[1] and "SourceEmpty" not in subjects[1]


def test_a_run_that_cannot_even_begin_is_mailed_and_so_is_the_first_that_can(
    project: Project, server: Mail
) -> None:
    with_mail(project, server)
    assert project.run("database", DB_TYPE="postgresql").returncode == 14
    assert "database backup failed: CredentialsMissing" in server.received[0][2]["Subject"]
    assert project.run("database").returncode == 0
    assert "database backup works again" in server.received[1][2]["Subject"]


def test_damage_of_many_backups_is_one_mail_and_no_other_until_more_is_damaged(
    project: Project, server: Mail
) -> None:
    made = [project.json("files") for _ in range(3)]
    with_mail(project, server)

    def damage(backup: Any) -> None:
        os.truncate(project.folder / "data/backups/files" / backup["artifacts"][0]["file"], 20)

    damage(made[0])
    damage(made[1])
    for _ in range(2):
        assert project.run("verify", "--all").returncode == 15
    damage(made[2])
    assert project.run("verify", "--recent", "1").returncode == 15
    (_, _, first), (_, _, second) = server.received
    assert "2 backups failed verification: Artifact" in first["Subject"]
    assert made[0]["backup_id"] in first.get_content() and made[1]["backup_id"] in first.get_content()
    assert f"backup {made[2]['backup_id']} failed verification" in second["Subject"]


def test_the_password_is_nowhere_but_in_the_file_that_says_it(project: Project, server: Mail) -> None:
    with_mail(project, server)
    (project.folder / "data/in/file").unlink()
    good = project.run("files")
    forget(project)
    bad = project.run("files", SMTP_PASSWORD="another mail-canary")
    assert set(server.logins) == {"backup"} and len(server.received) == 1
    assert "refuses the user or the password" in bad.stderr and bad.returncode == 11
    texts = [good.stdout, good.stderr, bad.stdout, bad.stderr, server.received[0][2].as_string()]
    texts += [path.read_text() for path in (project.folder / "data/backups").rglob("*") if path.is_file()]
    assert "mail-canary" not in "".join(texts)
    assert any("not notified" in text and "535" in text for text in texts)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"email": {"smtp_hots": "x"}}, "unknown key backup.notifications.email.smtp_hots; did you mean backup.notifications.email.smtp_host?"),
        ({"email": {"smtp_host": "h", "from_email": "a@b"}}, "to_emails is missing"),
        ({"email": {"smtp_password": 4711}}, "backup.notifications.email.smtp_password: input should be a valid string"),
        ({"email": {"smtp_host": "h", "from_email": "a@b\nBcc: c@d", "to_emails": ["e@f"]}}, "from_email"),
        ({"email": {"smtp_host": "h", "smtp_user": "u", "tls": "none", "from_email": "a@b", "to_emails": ["e@f"]}}, "sends no password"),
        ({"urls": "json://canary"}, "backup.notifications.urls"),
    ],
)  # fmt: skip
def test_a_wrong_section_is_refused_by_its_key_and_without_its_secret(
    project: Project, section: Any, sentence: str
) -> None:
    configure(project, notifications=section)
    ended = project.run("files")
    assert ended.returncode == 2 and sentence in ended.stderr
    assert "4711" not in ended.stderr and "canary" not in ended.stderr


def test_urls_of_the_file_and_of_the_environment_are_told(project: Project) -> None:
    (project.folder / "data/in/file").unlink()
    with mail.webhook() as (port, arrived):
        configure(project, notifications={"urls": [f"json://127.0.0.1:{port}/"]})
        assert project.run("files").returncode == 11 and len(arrived) == 1
        forget(project)
        assert project.run("files", NOTIFICATION_URLS=f"json://127.0.0.1:{port}/other").returncode == 11
        forget(project)
        configure(project, notifications={"urls": [f"json://127.0.0.1:{port}/"], "enabled": False})
        assert project.run("files").returncode == 11
    assert len(arrived) == 2


def test_what_is_scheduled_runs_when_it_is_due_until_it_is_told_to_stop(project: Project) -> None:
    at = datetime.now(UTC) + timedelta(seconds=4)
    configure(project, scheduler={"runs": [{"run": "files", "at": f"{at:%H:%M:%S}"}]})
    assert f"files  {at:%Y-%m-%d %H:%M:%S}" in project.run("run-scheduled", "--dry-run").stdout
    process = subprocess.Popen(
        [PROGRAM, "run-scheduled"],
        cwd=project.folder,
        env=project.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "waiting for 1 runs" in process.stderr.readline()
    deadline = time.monotonic() + 60
    while (
        not list((project.folder / "data/backups").rglob("*_metadata.json")) and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    while (
        not any(each["event"] == "scheduled run ended" for each in log_of(project))
        and time.monotonic() < deadline
    ):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143 and len(project.json("list")) == 1
    ended = next(each for each in log_of(project) if each["event"] == "scheduled run ended")
    assert (ended["command"], ended["exit_code"]) == ("files", 0)


def test_a_schedule_that_is_wrong_is_named(project: Project) -> None:
    configure(project, scheduler={"runs": [{"run": "files", "at": "25:00"}]})
    assert "backup.scheduler.runs.0.at" in project.run("run-scheduled").stderr
    configure(project, scheduler={"time_zone": "Europe/Atlantis"})
    ended = project.run("run-scheduled")
    assert ended.returncode == 2 and "Europe/Berlin" in ended.stderr
