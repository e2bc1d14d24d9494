"""Restores and undos as the command line asks for them: planned, then carried out as approved."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from avalanche_backup.cli.actions import existing_places, nonce, reference, run_request
from avalanche_backup.cli.configuration import DATABASE, FILES, Configuration
from avalanche_backup.cli.output import as_json, plan_text
from avalanche_backup.cli.places import find
from avalanche_backup.cli.recording import recorded
from avalanche_backup.cli.settings import Settings, confirm
from avalanche_backup.errors import Failure, RestoreRefused, UsageInvalid
from avalanche_backup.metadata import BackupMetadata
from avalanche_contract.names import BackupType
from avalanche_contract.request import RestoreRequest, RestoreTarget, Strategy, UndoRequest
from avalanche_contract.result import Plan, Result
from avalanche_contract.source import Preserve
from avalanche_contract.storage import Place

PRESERVED = {"ownership": "ownership", "extended-attributes": "extended_attributes"}


@dataclass(frozen=True)
class Way:
    """How a person wants a restore done: by which strategy (absent: what suits), keeping what was there, by how many jobs.

    ``preserve`` is what of files is set besides contents, modes and times.
    """

    strategy: Strategy | None = None
    keep_previous: bool = False
    jobs: int = 1
    preserve: Preserve = field(default_factory=Preserve)


def preserve_of(text: str, part: BackupType) -> Preserve:
    """Read what of files is set: names with commas between them.

    :raises UsageInvalid: an unknown name, or no files are restored, or owners are asked for and a database is restored as well.
    """
    words = [each.strip() for each in text.split(",") if each.strip()]
    unknown = [each for each in words if each not in PRESERVED]
    if unknown:
        raise UsageInvalid(
            f"--preserve knows no {unknown[0]!r}: write {' or '.join(PRESERVED)}, or both with a comma between"
        )
    if words and part == "database":
        raise UsageInvalid("--preserve is about files, and a database is restored: leave it out")
    if "ownership" in words and part == "full":
        raise UsageInvalid(
            "--preserve ownership needs root, who would own the database as well: restore them one by one, "
            "`restore files --preserve ownership` as root, and `restore database` as the user whose it is"
        )
    return Preserve.model_validate({PRESERVED[each]: True for each in words})


def plan_restore(
    configuration: Configuration, backup_id: str, part: BackupType, way: Way, *, from_cloud: bool = False
) -> tuple[RestoreRequest, Plan]:
    """Look at what a restore would do, and touch nothing. The copy in the folder is read, else that in the bucket."""
    place, metadata = find(configuration, backup_id, from_cloud=from_cloud)
    request = RestoreRequest(
        nonce=nonce(),
        mode="Plan",
        request_uid=f"command-line-{secrets.token_hex(8)}",
        backup=reference(place, configuration, backup_id),
        targets=_targets(configuration, metadata, part, way),
        strategy=way.strategy,
        keep_previous=way.keep_previous,
        locks=_locks(configuration, place),
    )
    _, report = run_request(request)
    return request, report.plans[-1]


def execute_restore(configuration: Configuration, request: RestoreRequest, plan: Plan) -> Result:
    """Carry out a plan that was approved.

    :raises RestoreRefused: the target changed since; nothing was touched.
    """
    with recorded(configuration, f"restore {plan.backup_id}"):
        result, _ = run_request(request.model_copy(update={"mode": "Execute", "approved_plan": plan.digest}))
    return result


def plan_undo(configuration: Configuration, part: BackupType) -> tuple[UndoRequest, Plan]:
    """Look at what an undo would do, and touch nothing.

    :raises RestoreRefused: no restore kept anything.
    """
    families: Sequence[str] = {"database": (DATABASE,), "files": (FILES,), "full": (DATABASE, FILES)}[part]
    request = UndoRequest(
        nonce=nonce(),
        mode="Plan",
        request_uid=f"command-line-{secrets.token_hex(8)}",
        targets=tuple(configuration.source(each) for each in families),
        locks=existing_places(configuration),
    )
    _, report = run_request(request)
    return request, report.plans[-1]


def execute_undo(configuration: Configuration, request: UndoRequest, plan: Plan) -> Result:
    """Carry out an undo that was approved.

    :raises RestoreRefused: the target changed since; nothing was touched.
    """
    with recorded(configuration, "undo"):
        result, _ = run_request(request.model_copy(update={"mode": "Execute", "approved_plan": plan.digest}))
    return result


def carry_out(
    settings: Settings, planned: tuple[RestoreRequest, Plan], *, force: bool, dry_run: bool
) -> None:
    """Show a plan, ask, and carry it out."""
    request, plan = planned
    shown = as_json(plan.model_dump(mode="json", by_alias=True)) if settings.json else plan_text(plan)
    click.echo(shown, err=settings.json and not dry_run)
    if dry_run:
        give_up(request)
        return
    if not force:
        try:
            confirm("restore", RestoreRefused, "the target is untouched")
        except BaseException:
            give_up(request)
            raise
    result = execute_restore(settings.configuration, request, plan)
    click.echo(
        as_json(result.model_dump(mode="json", by_alias=True, exclude_none=True))
        if settings.json
        else result.message
    )


def give_up(request: RestoreRequest) -> None:
    """Let go of the hold of a plan that nobody carries out."""
    from avalanche_backup.holds import end_of_restore  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    place = request.backup.place
    try:
        end_of_restore(open_store(place.storage), place.prefix, request.backup.backup_id, request.request_uid)
    except Failure:
        return  # a hold that stays harms nothing: it only keeps a backup


def _targets(
    configuration: Configuration, metadata: BackupMetadata, part: BackupType, way: Way
) -> tuple[RestoreTarget, ...]:
    """Match the artifacts of a backup with what is configured here, by their family."""
    families: Sequence[str] = {"database": (DATABASE,), "files": (FILES,), "full": (DATABASE, FILES)}[part]
    targets = []
    for artifact in metadata.artifacts:
        family = FILES if artifact.kind == "files" else DATABASE
        if artifact.role == "data" and family in families:
            known: dict[str, dict[str, Any]] = {
                "postgresql": {"jobs": way.jobs},
                "files": {"preserve": way.preserve},
            }
            changes = {"name": artifact.source, **known.get(artifact.kind, {})}
            here = configuration.source(family).model_copy(update=changes)
            targets.append(RestoreTarget(artifact=artifact.source, target=here))
    names = [each.artifact for each in targets if each.target.kind != "files"]
    if len(names) > 1:  # one after the other into the same database: the last would be all that is left
        raise RestoreRefused(
            f"backup {metadata.backup_id} holds {len(names)} databases ({', '.join(names)}), and one is configured here: "
            "restore them in the cluster, or by hand as their metadata says",
            reason="SeveralDatabases",
        )
    if not targets:
        raise RestoreRefused(f"backup {metadata.backup_id} holds no {part}", reason="SourceNotInBackup")
    return tuple(targets)


def _locks(configuration: Configuration, place: Place) -> tuple[Place, ...]:
    """Give where a lock is taken: wherever backups of this target go, and where this one is read from."""
    return configuration.places if place in configuration.places else (*configuration.places, place)
