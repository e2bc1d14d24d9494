"""The commands that copy backups between the folder and the bucket: upload, download, sync."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from avalanche_backup.cli.output import as_json, table
from avalanche_backup.cli.settings import Settings
from avalanche_backup.errors import UsageInvalid

if TYPE_CHECKING:
    from avalanche_backup.cli.places import Action, Step


@click.command()
@click.option("--backup-id", metavar="ID", help="This one.")
@click.option("--all", "every", is_flag=True, help="All that are not in the bucket yet.")
@click.pass_obj
def upload(settings: Settings, backup_id: str | None, every: bool) -> None:
    """Copy backups from the folder to the bucket.

    Every byte is compared with what was written when the backup was made, on the way and again where it arrives; what is
    there already is left as it is. The bucket of backup.cloud is used even where cloud.enabled is false.
    """
    _transfer(settings, backup_id, "Upload", every=every)


@click.command()
@click.option("--backup-id", metavar="ID", help="This one.")
@click.option("--all", "every", is_flag=True, help="All that are not in the folder yet.")
@click.pass_obj
def download(settings: Settings, backup_id: str | None, every: bool) -> None:
    """Copy backups from the bucket to the folder, compared like those of `upload`. What is encrypted stays so."""
    _transfer(settings, backup_id, "Download", every=every)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be copied where; copy nothing.")
@click.pass_obj
def sync(settings: Settings, dry_run: bool) -> None:
    """Copy to either side what only the other one has. Nothing is removed or overwritten."""
    from avalanche_backup.cli import places  # noqa: PLC0415

    configuration = settings.configuration
    wanted = places.missing(configuration)
    if dry_run:
        _show([places.Step(named, action, "Planned") for named, action in wanted], settings)
        return
    steps = []
    for action in ("Upload", "Download"):
        named = [each for each, needed in wanted if needed == action]
        steps += places.transfer(configuration, named, action) if named else []
    _show(steps, settings)


def _transfer(settings: Settings, backup_id: str | None, action: Action, *, every: bool) -> None:
    from avalanche_backup.cli import places  # noqa: PLC0415

    if (backup_id is not None) is every:
        raise UsageInvalid("say which: --backup-id ID or --all")
    configuration = settings.configuration
    wanted = [backup_id] if backup_id else [
        named for named, needed in places.missing(configuration) if needed == action
    ]  # fmt: skip
    _show(places.transfer(configuration, wanted, action), settings)


def _show(steps: Sequence[Step], settings: Settings) -> None:
    """Show what was done; the first failure's exit code is that of the command."""
    names = ("backup_id", "action", "status", "message")
    rows = [(each.backup_id, each.action, each.status, each.message) for each in steps]
    if settings.json:
        click.echo(as_json([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        click.echo(table(("BACKUP-ID", "ACTION", "STATUS", "MESSAGE"), rows))
    failed = [each.failure for each in steps if each.failure is not None]
    if failed:
        sys.exit(failed[0].exit_code)


COMMANDS = (upload, download, sync)
