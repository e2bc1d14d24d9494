"""The command line: ``avalanche-backup``. Thin: it parses, asks, prints; :mod:`actions` does the work."""

from __future__ import annotations

import io
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click
from click.shell_completion import get_completion_class

from avalanche_backup.cli import copies, drilling, keeping, logfile, operations, undoing
from avalanche_backup.cli.output import as_json, size, table
from avalanche_backup.cli.settings import Settings
from avalanche_backup.errors import Terminated, UsageInvalid, explain
from avalanche_backup.metadata import BackupMetadata
from avalanche_contract.exitcodes import ExitCode
from avalanche_contract.names import BACKUP_TYPES, BackupType, parse_backup_id

if TYPE_CHECKING:
    from avalanche_contract.request import Strategy

PROGRAM = "avalanche-backup"
STRATEGIES: dict[str, Strategy] = {"swap": "Swap", "in-place": "InPlace"}
_TYPE = click.Choice(list(BACKUP_TYPES))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The configuration; default: config/backup.yaml, where it exists.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="For people, or for programs.",
)
@click.version_option(package_name=PROGRAM, prog_name=PROGRAM)
@click.pass_context
def cli(context: click.Context, config: Path | None, output: str) -> None:
    """Back up PostgreSQL, SQLite and files, and prove that they can be restored.

    \b
    avalanche-backup full                         database and files, as one backup
    avalanche-backup list --type database         what there is, the newest first
    avalanche-backup verify --all                 read everything back and compare
    avalanche-backup drill                        restore the newest into something that is thrown away
    avalanche-backup sync                         what only the folder or only the bucket has, to the other one
    avalanche-backup cleanup --dry-run            what retention would remove, and why
    avalanche-backup restore database --backup-id database_20241122_020000

    Databases and keys come from the environment or .env: DB_TYPE, DB_HOST, DB_PORT, DB_NAME, DB_USER,
    DB_PASSWORD, DB_PATH, BACKUP_CLOUD_ENABLED, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
    Exit codes are listed in docs/exit-codes.md.
    """
    context.obj = Settings(config, output)


_take_over = click.option(
    "--take-over",
    metavar="CLUSTER-UID",
    help="Adopt the folder of this owner, as OwnedByAnother names it, who is lost or writes there no more.",
)


def _backup(settings: Settings, backup_type: BackupType, take_over: str | None) -> None:
    from avalanche_backup.cli.actions import back_up  # noqa: PLC0415

    made, missing = back_up(settings.configuration, backup_type, take_over)
    _show(made, settings)
    for each in missing:
        click.secho(f"warning: no copy in {each.storage}: {each.message}", fg="yellow", err=True)
    if missing:
        click.secho(f"complete it: {PROGRAM} sync", fg="yellow", err=True)
    if made.status == "suspect":
        click.secho(f"suspect: {made.error_message}", fg="yellow", err=True)
        advice = f"it counts as none; if this is right: {PROGRAM} accept-anomaly --backup-id {made.backup_id}"
        click.secho(advice, fg="yellow", err=True)
        sys.exit(ExitCode.SUSPECT)
    if missing:
        sys.exit(ExitCode.COPIES_INCOMPLETE)


@cli.command()
@_take_over
@click.pass_obj
def database(settings: Settings, take_over: str | None) -> None:
    """Back the database up."""
    _backup(settings, "database", take_over)


@cli.command()
@_take_over
@click.pass_obj
def files(settings: Settings, take_over: str | None) -> None:
    """Back the files up."""
    _backup(settings, "files", take_over)


@cli.command()
@_take_over
@click.pass_obj
def full(settings: Settings, take_over: str | None) -> None:
    """Back database and files up, as one backup."""
    _backup(settings, "full", take_over)


@cli.command("list")
@click.option("--type", "backup_type", type=_TYPE, help="Only backups of this type.")
@click.pass_obj
def list_(settings: Settings, backup_type: BackupType | None) -> None:
    """List the backups, the newest first."""
    _list(settings, backup_type)


@cli.command()
@click.option("--backup-id", help="This one.")
@click.option("--recent", type=click.IntRange(min=1), metavar="N", help="The newest N.")
@click.option(
    "--oldest", type=click.IntRange(min=1), metavar="N", help="The N that were not verified for longest."
)
@click.option("--all", "every", is_flag=True, help="All of them.")
@click.option(
    "--heal/--no-heal",
    default=True,
    help="Make copies anew that are missing or damaged, from a good one; the default with cloud.enabled.",
)
@click.pass_obj
def verify(
    settings: Settings,
    *,
    backup_id: str | None,
    recent: int | None,
    oldest: int | None,
    every: bool,
    heal: bool,
) -> None:
    """Read backups back and compare every byte with what was written. Exit code 15 where one is damaged.

    Encrypted backups are decoded where backup.encryption.identity_file is set; where it is not, the stored bytes are
    compared and the message says so. Exit code 14 where the identity does not open one of them. With cloud.enabled every
    copy is verified; exit code 24 where one is missing and could not be made anew.
    """
    from avalanche_backup.cli import actions, places, verifying  # noqa: PLC0415

    if [backup_id is not None, recent is not None, oldest is not None, every].count(True) != 1:
        raise UsageInvalid("say which: --backup-id ID, --recent N, --oldest N or --all")
    configuration = settings.configuration
    listing = places.Listing() if backup_id else places.list_places(configuration.places, None)
    wanted = [backup_id] if backup_id else [each.metadata.backup_id for each in listing.backups][:recent]
    if oldest is not None:
        wanted = verifying.oldest(configuration, (each.metadata for each in listing.backups), oldest)
    known = verifying.known_damage(configuration, wanted)
    verdicts = [(each, *actions.verify(configuration, each, heal=heal)) for each in wanted]
    if every:
        verdicts += [
            (named, "VerificationFailed", "MetadataInvalid", message)
            for named, message in listing.damaged
            if named not in wanted
        ]
    verifying.tell_of_damage(configuration, verdicts, known)
    if settings.json:
        names = ("backup_id", "status", "reason", "message")
        click.echo(as_json([dict(zip(names, verdict, strict=True)) for verdict in verdicts]))
    else:
        click.echo(table(("BACKUP-ID", "STATUS", "REASON", "MESSAGE"), verdicts))
    _exit_by({(status, reason) for _, status, reason, _ in verdicts})


def _exit_by(verdicts: set[tuple[str, str]]) -> None:
    """End with the code of the worst (status, reason)."""
    if "VerificationFailed" in {status for status, _ in verdicts}:
        sys.exit(ExitCode.VERIFICATION_FAILED)
    unverified = {reason for status, reason in verdicts if status == "NotVerified"}
    if unverified - {"CopiesIncomplete"}:
        sys.exit(ExitCode.CREDENTIALS_MISSING)
    if unverified:
        sys.exit(ExitCode.COPIES_INCOMPLETE)


@cli.command()
@click.argument("what", type=click.Choice(["list", *BACKUP_TYPES]))
@click.option("--backup-id", help="Which backup; see `restore list`.")
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"]),
    help="The newest good backup whose data is not newer than this, UTC.",
)
@click.option(
    "--type",
    "backup_type",
    type=_TYPE,
    help="Only list backups of this type; or the type that the backup must have.",
)
@click.option("--force", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and stop there.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 16),
    default=1,
    help="Of a database of format directory: faster; in place, NOT in one transaction.",
)
@click.option(
    "--strategy",
    type=click.Choice(list(STRATEGIES)),
    help="Beside the target, which then changes places with it, or into it; default: what suits, as the plan says.",
)
@click.option(
    "--keep-previous", is_flag=True, help="Leave aside what was there, for one `undo`. Needs a swap."
)
@click.option(
    "--preserve",
    metavar="WHAT,…",
    default="",
    help="Of files, set as the backup has them: ownership (as root), extended-attributes.",
)
@click.option(
    "--from-cloud",
    is_flag=True,
    help="Read the copy in the bucket, though the folder has one; without --backup-id the newest good one.",
)
@click.pass_obj
def restore(  # noqa: PLR0917 - click passes what the options say
    settings: Settings,
    what: str,
    backup_id: str | None,
    backup_type: BackupType | None,
    force: bool,
    dry_run: bool,
    jobs: int,
    strategy: str | None,
    keep_previous: bool,
    preserve: str,
    from_cloud: bool,
    as_of: datetime | None,
) -> None:
    """Put a backup back: its database, its files, or both (full).

    The plan says what is in the target now; nothing is touched before you typed yes. To test a restore, name
    another database: DB_NAME=avalanche_test avalanche-backup restore database --backup-id … --force

    On a fresh machine, from configuration alone: avalanche-backup restore full --from-cloud
    """
    if what == "list":
        _list(settings, backup_type)
        return
    part = next(each for each in BACKUP_TYPES if each == what)
    if backup_id and as_of:
        raise UsageInvalid(
            "--backup-id names one backup, --as-of asks for the newest until then: give one of them"
        )
    if not backup_id and (from_cloud or as_of):
        from avalanche_backup.cli.newest import newest  # noqa: PLC0415

        until = as_of.replace(tzinfo=UTC) if as_of else None
        backup_id = newest(settings.configuration, part, as_of=until, from_cloud=from_cloud)
    if not backup_id:
        raise UsageInvalid("--backup-id is missing; `avalanche-backup restore list` shows what there is")
    if backup_type and backup_type != _type_of(backup_id):
        raise UsageInvalid(f"{backup_id} is no {backup_type} backup")
    from avalanche_backup.cli.restoring import Way, carry_out, plan_restore, preserve_of  # noqa: PLC0415

    if keep_previous and strategy == "in-place":
        raise UsageInvalid("--keep-previous needs a swap: a restore in place leaves nothing aside")
    preserved = preserve_of(preserve, part)
    way = Way(STRATEGIES[strategy] if strategy else None, keep_previous, jobs, preserved)
    planned = plan_restore(settings.configuration, backup_id, part, way, from_cloud=from_cloud)
    carry_out(settings, planned, force=force, dry_run=dry_run)


def _type_of(backup_id: str) -> str:
    try:
        return parse_backup_id(backup_id)[0]
    except ValueError as error:
        raise UsageInvalid(str(error)) from None


for _command in (undoing.undo, *keeping.COMMANDS):
    cli.add_command(_command)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion of a shell: eval "$(avalanche-backup completion bash)"."""
    found = get_completion_class(shell)
    if found is None:
        raise UsageInvalid(f"there is no completion for {shell}")
    click.echo(found(cli, {}, PROGRAM, "_AVALANCHE_BACKUP_COMPLETE").source())


@cli.command(hidden=True)
def job() -> NoReturn:
    """Run the request of the environment: what the operator's Jobs do."""
    from avalanche_backup.job import main as run_job  # noqa: PLC0415

    sys.exit(run_job())


def _list(settings: Settings, backup_type: BackupType | None) -> None:
    from avalanche_backup.cli.places import list_places  # noqa: PLC0415

    listing = list_places(settings.configuration.places, backup_type)
    for named, message in listing.damaged:
        click.secho(f"warning: {named}: {message}", fg="yellow", err=True)
    if settings.json:
        listed = [
            each.metadata.model_dump(mode="json")
            | {"copies": each.places, "anomaly_accepted": each.anomaly_accepted}
            for each in listing.backups
        ]
        click.echo(as_json(listed))
    else:
        rows = [
            (*_cells(each.metadata, accepted=each.anomaly_accepted), ", ".join(each.places))
            for each in listing.backups
        ]
        click.echo(table((*_COLUMNS, "COPIES"), rows))
    for name, failure in listing.failures.items():
        click.secho(f"warning: {name} could not be read: {failure.message}", fg="yellow", err=True)
    if listing.failures:
        sys.exit(next(iter(listing.failures.values())).exit_code)


_COLUMNS = ("BACKUP-ID", "TYPE", "DATA-OF (UTC)", "SIZE", "STATUS", "CHECKSUM")


def _cells(each: BackupMetadata, *, accepted: bool = False) -> tuple[str, ...]:
    moment = f"{each.snapshot_time:%Y-%m-%d %H:%M:%S}"
    status = "accepted" if accepted else each.status
    return (each.backup_id, each.backup_type, moment, size(each.size_bytes), status, each.checksum[:19])


def _show(made: BackupMetadata, settings: Settings) -> None:
    click.echo(as_json(made.model_dump(mode="json")) if settings.json else table(_COLUMNS, [_cells(made)]))


for _command in (*copies.COMMANDS, *drilling.COMMANDS):
    cli.add_command(_command)


for _command in (operations.logs, operations.run_scheduled):
    cli.add_command(_command)


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def main() -> None:
    """Run a command; every failure is one line on standard error and an exit code that scripts can trust."""
    signal.signal(signal.SIGTERM, _terminate)
    logfile.configure(io.StringIO())  # what a command does is logged from where it opens its log
    try:
        cli.main(prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.Abort:
        _fail("interrupted", ExitCode.INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(ExitCode.USAGE)
    except (Exception, KeyboardInterrupt, Terminated) as error:
        code, _, message = explain(error)
        _fail(message, code)


def _fail(message: str, code: int) -> NoReturn:
    click.secho("error: ", fg="red", err=True, nl=False)
    click.echo(message, err=True)
    sys.exit(code)
