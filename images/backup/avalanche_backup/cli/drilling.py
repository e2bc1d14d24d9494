"""The command `drill`: restore into something that is thrown away, look at it, and say how long that took."""

from __future__ import annotations

import shutil
import socket
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from avalanche_backup.cli.actions import nonce, reference, run_request
from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.output import ConsoleReport, as_json, table
from avalanche_backup.cli.recording import recorded
from avalanche_backup.cli.settings import Settings
from avalanche_backup.errors import Failure, UsageInvalid
from avalanche_contract.base import parse_time
from avalanche_contract.expectation import check_expectation
from avalanche_contract.names import BACKUP_TYPES, BackupType
from avalanche_contract.notification import Event
from avalanche_contract.request import BackupReference, DrillRequest, Newest, Query
from avalanche_contract.result import Drilled

_COLUMNS = (
    "BACKUP-ID",
    "RESULT",
    "SECONDS",
    "RESTORE",
    "CHECKED",
    "STARTED",
    "RESTORED",
    "COMPARED",
    "ASKED",
)
_STEPS = ("Checking", "Starting", "Restoring", "Comparing", "Asking")


@click.command()
@click.option("--backup-id", metavar="ID", help="This one; default: the newest that is known to be good.")
@click.option("--recent", is_flag=True, help="The newest that is known to be good: the default.")
@click.option(
    "--type",
    "backup_type",
    type=click.Choice(list(BACKUP_TYPES)),
    help="The newest good one of this type; default: of any, and where there is something to ask, one with a database.",
)
@click.option(
    "--query", "queries", multiple=True, metavar="SQL", help="Ask this instead of backup.drill.queries."
)
@click.option(
    "--expect",
    "expects",
    multiple=True,
    metavar="TEXT",
    help="What its single value must be: 1200, '> 0', '<= 10', '!= x'. One for each --query, or none: then answers are shown.",
)
@click.option(
    "--superuser", is_flag=True, help="Restore as superuser of the throwaway server; see docs/drills.md."
)
@click.option(
    "--keep",
    is_flag=True,
    help="Leave what was restored, and say how to look into it and how to be rid of it.",
)
@click.pass_obj
def drill(  # noqa: PLR0917 - click passes what the options say
    settings: Settings,
    backup_id: str | None,
    recent: bool,
    backup_type: BackupType | None,
    queries: tuple[str, ...],
    expects: tuple[str, ...],
    superuser: bool,
    keep: bool,
) -> None:
    """Prove that a backup can be restored: into a throwaway PostgreSQL server, SQLite file or folder.

    What came back is compared with what the metadata counts, and backup.drill.queries are asked; the times are measured.
    Afterwards nothing is left, unless --keep says so. Needs PostgreSQL's server programs for a PostgreSQL backup (the
    package postgresql). Exit code 25 where the drill failed.
    """
    if backup_id and (recent or backup_type):
        raise UsageInvalid("say which: --backup-id ID, or --recent and --type")
    configuration = settings.configuration
    section = configuration.drill
    asked = _queries(queries, expects) if queries or expects else section_queries(configuration)
    kept = tempfile.mkdtemp(prefix="avalanche-kept-") if keep else None
    request = DrillRequest(
        nonce=nonce(),
        backup=_which(configuration, backup_id, backup_type, asking=bool(asked)),
        queries=asked,
        query_seconds=section.query_seconds,
        superuser=superuser or section.superuser,
        keep=kept,
    )
    report, before = ConsoleReport(), _last(configuration)
    try:
        with recorded(configuration, "drill"):
            result, _ = run_request(request, report)
    except BaseException as error:
        if kept is not None and not (isinstance(error, Failure) and error.reason == "AssertionFailed"):
            shutil.rmtree(kept, ignore_errors=True)
        if isinstance(error, Failure):
            _show(settings, report)
            _tell(configuration, report, before, error)
        raise
    _show(settings, report)
    _tell(configuration, report, before, None)
    click.echo(result.message, err=settings.json)


def section_queries(configuration: Configuration) -> tuple[Query, ...]:
    """Give the questions of the configuration."""
    return tuple(Query(sql=each.sql, expect=each.expect) for each in configuration.drill.queries)


def _queries(queries: tuple[str, ...], expects: tuple[str, ...]) -> tuple[Query, ...]:
    if expects and len(expects) != len(queries):
        raise UsageInvalid(
            f"{len(queries)} --query and {len(expects)} --expect: give one for each, or no --expect"
        )
    try:
        wanted: list[str | None] = [check_expectation(each) for each in expects]
    except ValueError as error:
        raise UsageInvalid(f"--expect: {error}") from None
    return tuple(
        Query(sql=sql, expect=expect)
        for sql, expect in zip(queries, wanted or [None] * len(queries), strict=True)
    )


def _which(
    configuration: Configuration, backup_id: str | None, backup_type: BackupType | None, *, asking: bool
) -> BackupReference | Newest:
    from avalanche_backup.cli.places import find  # noqa: PLC0415 - `--help` needs none of it

    if backup_id:
        return reference(find(configuration, backup_id)[0], configuration, backup_id)
    types: tuple[BackupType, ...] = ("database", "full") if asking else BACKUP_TYPES
    return Newest(
        places=configuration.places,
        backup_types=(backup_type,) if backup_type else types,
        identity=configuration.identity,
    )


def _show(settings: Settings, report: ConsoleReport) -> None:
    for each in report.drills:
        if settings.json:
            click.echo(as_json(each.model_dump(mode="json")))
        else:
            click.echo(table(_COLUMNS, [_cells(each)]))


def _cells(each: Drilled) -> tuple[str, ...]:
    steps = (f"{each.steps[name]:.1f}" if name in each.steps else "-" for name in _STEPS)
    verdict = "succeeded" if each.succeeded else "failed"
    return (each.backup_id, verdict, f"{each.duration_seconds:.1f}", f"{each.restore_seconds:.1f}", *steps)


def _last(configuration: Configuration) -> dict[str, Any]:
    """Give what the last drill before came to, as it lies beside its backup."""
    from avalanche_backup import catalog, layout  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    found: list[dict[str, Any]] = []
    for place in configuration.places:
        with suppress(Failure):
            store = open_store(place.storage)
            keys = [
                each.key
                for folder in layout.folders(place.prefix)
                for each in store.list(folder)
                if each.key.endswith(layout.DRILL)
            ]
            found += [document for key in keys if (document := catalog.read_json(store, key))]
    return max(found, key=lambda one: str(one.get("time")), default={})


def _tell(
    configuration: Configuration, report: ConsoleReport, before: dict[str, Any], failure: Failure | None
) -> None:
    """Tell of a failure, and of the first success after one."""
    from avalanche_backup.notifications.decide import told_lately  # noqa: PLC0415
    from avalanche_backup.notifications.message import Occurrence  # noqa: PLC0415
    from avalanche_backup.notifications.send import tell  # noqa: PLC0415

    now, failed_before = datetime.now(UTC), before.get("succeeded") is False
    if failure is None and not failed_before:
        return
    outcome = report.drills[-1] if report.drills else None
    known = parse_time(before.get("told_time")) if failed_before else None
    known_reason = str(before.get("told_reason")) if failed_before else ""
    if failure is not None and told_lately(failure.reason, known_reason, known, now):
        _note(configuration, outcome, known, known_reason)
        return
    event: Event = "DrillFailed" if failure is not None else "Recovered"
    happened = Occurrence(
        event=event,
        subject=f"backup {outcome.backup_id}" if failure is not None and outcome else "drill",
        where=socket.gethostname(),
        reason=failure.reason if failure is not None else "Drilled",
        message=failure.message if failure is not None else (outcome.message if outcome else ""),
        time=now,
        backup_id=outcome.backup_id if outcome else "",
    )
    told = tell(configuration.notifications, happened)
    if told is not None:
        report.told(told)
    if failure is not None and told is not None and told.sent:
        _note(configuration, outcome, now, failure.reason)


def _note(configuration: Configuration, outcome: Drilled | None, told: datetime | None, reason: str) -> None:
    """Write beside the backup when people were told, and of what: the next drill goes by that."""
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415
    from avalanche_backup.verbs.drill import write_outcome  # noqa: PLC0415

    place = next(
        (each for each in configuration.places if outcome and each.storage.name == outcome.storage), None
    )
    if outcome is None or place is None:
        return
    with suppress(Failure):
        outcome = outcome.model_copy(update={"told_time": told, "told_reason": reason})
        write_outcome(open_store(place.storage), place.prefix, outcome)


COMMANDS = (drill,)
