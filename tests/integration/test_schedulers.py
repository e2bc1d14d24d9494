"""The ready-made files for schedulers say what their page says, and what they run really runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
import yaml
from cronsim import CronSim

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.main import cli
from avalanche_backup.cli.parsing import parse
from avalanche_backup.cli.schedule import Command
from tests.cluster.packages import ensure_packages
from tests.integration.test_command_line import PROGRAM, Project

FILES = Path(__file__).parents[2] / "docs" / "standalone"
WEEK = {
    "database": ("0 2 * * *", "*-*-* 02:00:00"),
    "files": ("0 3 * * 0", "Sun *-*-* 03:00:00"),
    "full": ("0 4 1 * *", "*-*-01 04:00:00"),
    "cleanup": ("0 5 * * 0", "Sun *-*-* 05:00:00"),
    "verify": ("0 6 * * *", "*-*-* 06:00:00"),
}
"""Every scheduler has the same five runs: for cron, and for systemd."""
TASK = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
PARTS = ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def crontab() -> dict[str, tuple[str, str]]:
    """Give schedule and command of each line, by what it runs."""
    lines = [line for line in (FILES / "crontab").read_text().splitlines() if re.match(r"\d", line)]
    found = [(" ".join(line.split()[:5]), line.split(None, 5)[5]) for line in lines]
    return {shlex.split(command)[4]: (schedule, command) for schedule, command in found}


def test_the_crontab_has_the_five_runs() -> None:
    assert {name: schedule for name, (schedule, _) in crontab().items()} == {
        name: each[0] for name, each in WEEK.items()
    }
    sunday = datetime(2026, 3, 1, tzinfo=UTC)
    first = {name: next(CronSim(schedule, sunday)) for name, (schedule, _) in crontab().items()}
    assert [f"{first[name]:%a %d %H:%M}" for name in WEEK] == [
        "Sun 01 02:00",
        "Sun 01 03:00",
        "Sun 01 04:00",
        "Sun 01 05:00",
        "Sun 01 06:00",
    ]


@pytest.mark.parametrize("name", [each for each in WEEK if each in cli.commands])
def test_a_line_of_the_crontab_runs(project: Project, name: str) -> None:
    """As cron does it: by sh, in an almost empty environment."""
    if name in ("cleanup", "verify"):
        assert project.run("database").returncode == 0
    command = crontab()[name][1].replace("/srv/avalanche", shlex.quote(str(project.folder)))
    environment = {"HOME": str(project.folder), "PATH": f"{PROGRAM.parent}:/usr/bin:/bin", "SHELL": "/bin/sh"}
    ended = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def _units(folder: Path, project: Project) -> list[Path]:
    """Copy the units, with a program and a folder that are here."""
    for path in (FILES / "systemd").iterdir():
        text = path.read_text().replace("/opt/avalanche/bin/avalanche-backup", str(PROGRAM))
        text = text.replace("/srv/avalanche", str(project.folder)).replace("User=avalanche", "User=root")
        (folder / path.name).write_text(text)
    instances = [folder / f"avalanche-backup@{name}.service" for name in WEEK if name != "verify"]
    for each in instances:
        shutil.copy(folder / "avalanche-backup@.service", each)
    return sorted([*folder.glob("*.timer"), *instances, folder / "avalanche-backup-verify.service"])


def test_systemd_finds_nothing_wrong_with_the_units(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ensure_packages({"systemd-analyze": "systemd"}, print)
    units = _units(tmp_path_factory.mktemp("units"), project)
    assert len(units) == 10
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in ended.stderr.splitlines() if "avalanche" in line]
    assert ended.returncode == 0 and ours == [], ended.stderr


def test_systemd_calls_each_timer_when_it_should() -> None:
    ensure_packages({"systemd-analyze": "systemd"}, print)
    for name, (_, calendar) in WEEK.items():
        text = (FILES / "systemd" / f"avalanche-backup-{name}.timer").read_text()
        assert f"OnCalendar={calendar}\n" in text and "Persistent=true" in text
        unit = "avalanche-backup-verify.service" if name == "verify" else f"avalanche-backup@{name}.service"
        assert f"Unit={unit}\n" in text
        said = subprocess.run(
            ["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=True
        )
        assert f"Normalized form: {calendar}" in said.stdout


def test_the_sample_configuration_is_the_documented_week() -> None:
    runs = Configuration(parse(yaml.safe_load((FILES / "backup.yaml").read_text())), {}).scheduled
    assert runs == Configuration(parse({}), {}).scheduled and [each.command for each in runs] == list(WEEK)


def test_the_compose_file_runs_our_scheduler_where_its_configuration_lies() -> None:
    document: Any = yaml.safe_load((FILES / "compose.yaml").read_text())
    service = document["services"]["backup"]
    assert service["command"] == ["run-scheduled"] and "run-scheduled" in cli.commands
    mounts = dict(each.split(":")[:2][::-1] for each in service["volumes"])
    configuration = Configuration(parse(yaml.safe_load((FILES / "backup.yaml").read_text())), {})
    assert f"{service['working_dir']}/config" in mounts
    assert f"{service['working_dir']}/{configuration.root_dir}" in mounts
    told = {"DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD", "SMTP_PASSWORD"}
    assert service["environment"].keys() == told and service["read_only"] is True
    assert not [
        each for each in document["services"].values() if "PASSWORD" in str(each) and "${" not in str(each)
    ]


@pytest.mark.parametrize("path", sorted((FILES / "windows").iterdir()), ids=lambda path: path.stem)
def test_a_windows_task_is_one_that_the_scheduler_takes(path: Path) -> None:
    """The order of the parts is that of the schema (Task Scheduler Schema, taskType and settingsType)."""
    task = ElementTree.fromstring(path.read_text())  # noqa: S314 - our own file
    assert [each.tag for each in task] == [f"{TASK}{name}" for name in PARTS]

    def text(name: str) -> str:
        found = task.find(f".//{TASK}{name}")
        return "" if found is None else found.text or ""

    start = datetime.fromisoformat(text("StartBoundary"))
    minute, hour, _, _, weekday = WEEK[path.stem][0].split()
    assert (start.minute, start.hour) == (int(minute), int(hour))
    assert (task.find(f".//{TASK}Sunday") is not None) == (weekday == "0")
    assert text("MultipleInstancesPolicy") == "IgnoreNew" and text("StartWhenAvailable") == "true"
    assert re.fullmatch(r"PT\d+H", text("ExecutionTimeLimit")) and text("Arguments").split()[0] == path.stem
    assert text("Command").endswith("avalanche-backup.exe") and text("UserId") == "S-1-5-18"


def test_what_is_scheduled_is_a_command() -> None:
    assert set(WEEK) <= set(get_args(Command)) <= cli.commands.keys()
