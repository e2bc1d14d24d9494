"""The commands that say what stays and what goes: cleanup, hold, release, expire, accept-anomaly, delete."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from avalanche_backup.cli.output import as_json, size, table
from avalanche_backup.cli.settings import Settings, confirm
from avalanche_backup.errors import RemovalRefused, UsageInvalid


def _backup_id(command: Callable[..., None]) -> Callable[..., None]:
    return click.option("--backup-id", required=True, metavar="ID", help="Which backup; see `list`.")(command)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and why; remove nothing.")
@click.option("--force", is_flag=True, help="Remove more at once than retention.max_delete_percent allows.")
@click.pass_obj
def cleanup(settings: Settings, dry_run: bool, force: bool) -> None:
    """Remove the backups that retention does not keep, and what dead attempts left behind.

    Keeps the most recent days, weeks (from Sunday) and months that have a good backup, each by its first one; what is
    held, damaged, suspect or chosen by a restore stays. Exit code 21 where too much would go at once.
    """
    from avalanche_backup.cli.actions import clean_up  # noqa: PLC0415

    decisions, message = clean_up(settings.configuration, dry_run=dry_run, force=force)
    if settings.json:
        documents = [
            {"backup_id": each.backup_id, "verdict": each.verdict, "reasons": list(each.reasons)}
            for each in decisions
        ]
        click.echo(as_json(documents))
    else:
        rows = [(each.backup_id, each.verdict, ", ".join(each.reasons)) for each in reversed(decisions)]
        click.echo(table(("BACKUP-ID", "VERDICT", "REASONS"), rows))
    click.echo(message, err=True)


@click.command()
@_backup_id
@click.pass_obj
def hold(settings: Settings, backup_id: str) -> None:
    """Keep a backup, whatever retention says, until it is released."""
    _mark(settings, backup_id, held=True)


@click.command()
@_backup_id
@click.pass_obj
def release(settings: Settings, backup_id: str) -> None:
    """Let go of a backup that was held: retention decides again."""
    _mark(settings, backup_id, held=False)


@click.command()
@_backup_id
@click.option(
    "--at",
    "moment",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    help="In UTC: 2027-01-31, or 2027-01-31T12:00:00Z.",
)
@click.option("--never", is_flag=True, help="Take an expiration away that was set before.")
@click.pass_obj
def expire(settings: Settings, backup_id: str, moment: datetime | None, never: bool) -> None:
    """Say until when a backup stays: before, no cleanup removes it, afterwards the next one does.

    It stands for no day, week or month any more. The newest good backup and one that is held stay all the same.
    """
    if (moment is None) is not never:
        raise UsageInvalid("say until when: --at DATE or --never")
    expiration = moment.replace(tzinfo=UTC) if moment else None
    _mark(settings, backup_id, expiration_time=expiration, never_expires=never)


@click.command("accept-anomaly")
@_backup_id
@click.pass_obj
def accept_anomaly(settings: Settings, backup_id: str) -> None:
    """Say that a suspect backup is right as it is: retention counts it again."""
    _mark(settings, backup_id, accept_anomaly=True)


def _mark(settings: Settings, backup_id: str, **changes: Any) -> None:
    from avalanche_backup.cli.actions import mark  # noqa: PLC0415

    result = mark(settings.configuration, backup_id, **changes)
    if settings.json and result.mark is not None:
        click.echo(as_json({"backup_id": backup_id, **result.mark.model_dump(mode="json")}))
    click.echo(result.message, err=True)


@click.command()
@_backup_id
@click.option("--force", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.pass_obj
def delete(settings: Settings, backup_id: str, force: bool) -> None:
    """Erase one backup, whatever retention says. One that is held is refused, with exit code 21."""
    from avalanche_backup.cli import actions  # noqa: PLC0415

    configuration = settings.configuration
    described = actions.describe(configuration, backup_id)
    if described is not None:
        row = (backup_id, f"{described.snapshot_time:%Y-%m-%d %H:%M:%S}", size(described.size_bytes))
        click.echo(table(("BACKUP-ID", "DATA-OF (UTC)", "SIZE"), [row]), err=True)
    if not force:
        confirm("erase it for ever", RemovalRefused, "nothing was removed")
    result = actions.erase(configuration, backup_id)
    if settings.json:
        click.echo(as_json({"backup_id": backup_id, "verdict": "Remove", "reasons": ["delete-requested"]}))
    click.echo(result.message, err=True)


COMMANDS = (cleanup, hold, release, expire, accept_anomaly, delete)
