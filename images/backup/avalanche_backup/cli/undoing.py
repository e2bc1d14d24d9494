"""`undo`: take back a restore that kept what it replaced."""

from __future__ import annotations

import click

from avalanche_backup.cli.output import as_json, plan_text
from avalanche_backup.cli.settings import Settings, confirm
from avalanche_backup.errors import RestoreRefused
from avalanche_contract.names import BACKUP_TYPES, BackupType


@click.command()
@click.argument("what", type=click.Choice(list(BACKUP_TYPES)))
@click.option("--force", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and stop there.")
@click.pass_obj
def undo(settings: Settings, what: BackupType, force: bool, dry_run: bool) -> None:
    """Take back a restore that was given --keep-previous: of the database, the files, or both (full).

    What was there before takes its place again, without reading any backup; what was restored, and what was written
    since, goes. One undo: a restore that is taken back keeps nothing.
    """
    from avalanche_backup.cli import restoring  # noqa: PLC0415

    request, plan = restoring.plan_undo(settings.configuration, what)
    shown = as_json(plan.model_dump(mode="json", by_alias=True)) if settings.json else plan_text(plan)
    click.echo(shown, err=settings.json and not dry_run)
    if dry_run:
        return
    if not force:
        confirm("undo", RestoreRefused, "the target is untouched")
    result = restoring.execute_undo(settings.configuration, request, plan)
    click.echo(
        as_json(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        if settings.json
        else result.message
    )
