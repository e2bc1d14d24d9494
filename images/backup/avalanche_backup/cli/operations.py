"""Commands for who looks after a machine: `logs`, and `run-scheduled` where there is no cron."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click
import structlog

from avalanche_backup.cli import logfile, schedule
from avalanche_backup.cli.output import as_json, size, table
from avalanche_backup.cli.settings import Settings
from avalanche_backup.errors import BackupMissing, UsageInvalid

STOP_SECONDS = 60
_LOG = structlog.get_logger()
_WORDS = {"verify": ("verify", "--recent", "7")}
"""What a scheduled command is given besides its name."""
_ORDER = ("time", "level", "command", "event")


@click.command()
@click.argument("what", type=click.Choice(["list", "show"]), default="list")
@click.option(
    "--date",
    "day",
    type=click.DateTime(["%Y-%m-%d", "%Y%m%d"]),
    help="The day (UTC) to show; default: the newest.",
)
@click.pass_obj
def logs(settings: Settings, what: str, day: datetime | None) -> None:
    """List the days of the log, or show one: `logs show --date 2026-11-24`.

    The files are <root_dir>/logs/backup_YYYYMMDD.log, one JSON object a line; logs.keep_days says how long they stay.
    """
    found = logfile.days(settings.configuration.root_dir / logfile.FOLDER)
    if what == "list" and day is None:
        _list(settings, found)
        return
    wanted = [each for each in found if day is None or each.date == day.date()][:1]
    if not wanted:
        raise BackupMissing(
            f"there is no log of {day.date() if day else 'any day'}; see `avalanche-backup logs`",
            reason="LogNotFound",
        )
    _show(settings, wanted[0])


def _list(settings: Settings, found: list[logfile.Day]) -> None:
    if settings.json:
        click.echo(as_json([{"date": str(each.date), "file": str(each.path)} for each in found]))
        return
    rows = [(str(each.date), size(each.path.stat().st_size), str(each.path)) for each in found]
    click.echo(table(("DATE (UTC)", "SIZE", "FILE"), rows))


def _show(settings: Settings, day: logfile.Day) -> None:
    lines = logfile.read(day.path)
    if settings.json:
        click.echo(as_json(lines))
        return
    for line in lines:
        rest = " ".join(f"{name}={value}" for name, value in line.items() if name not in _ORDER)
        click.echo(
            " ".join(str(line[name]) for name in _ORDER if line.get(name)) + (f"  {rest}" if rest else "")
        )


@click.command("run-scheduled")
@click.option("--dry-run", is_flag=True, help="Say when each run comes next, and stop there.")
@click.pass_obj
def run_scheduled(settings: Settings, dry_run: bool) -> None:
    """Stay, and run what `scheduler` in the configuration says, when it is due: for containers without cron.

    Runs come one after the other; one whose time passed meanwhile runs once, late. SIGTERM stops the run under way, and
    ends this with 143.
    """
    configuration = settings.configuration
    runs, zone = configuration.scheduled, configuration.schedule_zone
    if not runs:
        raise UsageInvalid("backup.scheduler.runs is empty: there is nothing to wait for")
    if dry_run:
        _plan(settings, runs, zone)
        return
    logfile.begin(configuration.root_dir, configuration.keep_days)
    click.echo(f"waiting for {len(runs)} runs, times in {zone.key}", err=True)
    options = ("--config", str(settings.config)) if settings.config else ()
    schedule.keep_running(runs, zone, now=_now, wait=time.sleep, execute=lambda run: _execute(options, run))


def _plan(settings: Settings, runs: tuple[schedule.Run, ...], zone: ZoneInfo) -> None:
    now = _now()
    coming = sorted((schedule.next_time(run, zone, now), run.command) for run in runs)
    if settings.json:
        click.echo(
            as_json([{"run": name, "next_time": f"{when:%Y-%m-%dT%H:%M:%SZ}"} for when, name in coming])
        )
        return
    rows = [
        (name, f"{when:%Y-%m-%d %H:%M:%S}", f"{when.astimezone(zone):%a %H:%M:%S}") for when, name in coming
    ]
    click.echo(table(("RUN", "NEXT (UTC)", zone.key), rows))


def _execute(options: tuple[str, ...], run: schedule.Run) -> None:
    """Run one command as a process of its own: what it leaks or breaks ends with it."""
    words = _WORDS.get(run.command, (run.command,))
    process = subprocess.Popen([sys.executable, "-m", "avalanche_backup", *options, *words])
    try:
        code = process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    _LOG.info("scheduled run ended", command=run.command, exit_code=code)


def _now() -> datetime:
    return datetime.now(UTC)
