"""What the commands do: requests from the configuration, run by the same verbs as in a cluster."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from avalanche_backup.cli.configuration import DATABASE, FILES, Configuration
from avalanche_backup.cli.output import ConsoleReport
from avalanche_backup.cli.recording import recorded, tell_of_refusal
from avalanche_backup.cli.runlock import exclusive
from avalanche_backup.errors import (
    BackupMissing,
    Failure,
    IdentityMissing,
    RestoreRefused,
    StorageInvalid,
    VerificationFailed,
)
from avalanche_backup.layout import STORAGE_FILE
from avalanche_backup.metadata import BackupMetadata
from avalanche_contract.names import BACKUP_TYPES, BackupType, parse_backup_id
from avalanche_contract.request import (
    BackupReference,
    BackupRequest,
    DirectoryStorage,
    Place,
    ProbeRequest,
    Request,
    RestoreRequest,
    RestoreTarget,
    VerifyRequest,
)
from avalanche_contract.result import Plan, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avalanche_backup.catalog import Damaged
    from avalanche_backup.verbs.context import Context


@contextmanager
def _context(report: ConsoleReport) -> Iterator[Context]:
    from avalanche_backup.verbs.context import Context  # noqa: PLC0415 - `--help` needs none of it

    with tempfile.TemporaryDirectory(prefix="avalanche-") as scratch:
        try:
            yield Context(report=report, scratch=Path(scratch))
        finally:
            report.close()


def _run(request: Request) -> tuple[Result, ConsoleReport]:
    from avalanche_backup.verbs.dispatch import run  # noqa: PLC0415

    report = ConsoleReport()
    with _context(report) as context:
        return run(request, context), report


def _nonce() -> str:
    return secrets.token_hex(16)


def back_up(configuration: Configuration, backup_type: BackupType) -> BackupMetadata:
    """Make one backup, alone, and give its metadata.

    :raises RunUnderWay: another run works here; nothing was done.
    """
    with recorded(configuration, backup_type), ExitStack() as held:
        try:
            held.enter_context(exclusive(configuration.root_dir))
            request = _backup_request(configuration, backup_type)
        except Failure as failure:
            tell_of_refusal(configuration, backup_type, failure)
            raise
        result, _ = _run(request)
        return metadata_of(configuration, result.backup_id or "")


def _backup_request(configuration: Configuration, backup_type: BackupType) -> BackupRequest:
    place = configuration.place
    _prepare(place)
    return BackupRequest(
        nonce=_nonce(),
        backup_type=backup_type,
        sources=configuration.sources(backup_type),
        destinations=(place,),
        compression=configuration.compression,
        encryption=configuration.encryption,
        notifications=configuration.notifications,
    )


def _prepare(place: Place) -> None:
    """Make the folder of the first backup, or see once that a bucket is fit to be written to.

    :raises StorageInvalid: it is not.
    """
    from avalanche_backup.catalog import read_json  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    if isinstance(place.storage, DirectoryStorage):
        try:
            Path(place.storage.root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageInvalid(
                f"backup.root_dir {place.storage.root} cannot be made: {error.strerror}",
                reason="PermissionDenied",
            ) from None
    elif read_json(open_store(place.storage), STORAGE_FILE) is None:
        _run(ProbeRequest(nonce=_nonce(), storage=place.storage))


def metadata_of(configuration: Configuration, backup_id: str) -> BackupMetadata:
    """Give the metadata of one backup.

    :raises BackupMissing: there is none of this ID.
    """
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    place = configuration.place
    return catalog.find(open_store(place.storage), place.prefix, backup_id).metadata


def list_backups(
    configuration: Configuration, backup_type: BackupType | None
) -> tuple[list[BackupMetadata], list[Damaged]]:
    """Give all backups, the newest first, and each metadata file that cannot be read.

    :raises StorageInvalid: the folder is not there: no backup was made yet, or its disk is not mounted.
    """
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    place = configuration.place
    types = (backup_type,) if backup_type else BACKUP_TYPES
    found = catalog.backups(open_store(place.storage), place.prefix, types)
    good = [each.metadata for each in found if isinstance(each, catalog.Found)]
    damaged = [each for each in found if isinstance(each, catalog.Damaged)]
    return sorted(good, key=lambda each: (each.timestamp, each.backup_id), reverse=True), damaged


def verify(configuration: Configuration, backup_id: str) -> tuple[str, str, str]:
    """Verify one backup, and give (status, reason, message); ``NotVerified`` where what opens it is not at hand."""
    request = VerifyRequest(nonce=_nonce(), backup=_reference(configuration, backup_id))
    try:
        with recorded(configuration, f"verify {backup_id}"):
            result, _ = _run(request)
    except VerificationFailed as failure:
        return "VerificationFailed", failure.reason, failure.message
    except IdentityMissing as missing:
        return "NotVerified", missing.reason, missing.message
    return "Verified", result.reason, result.message


def plan_restore(
    configuration: Configuration, backup_id: str, part: BackupType, jobs: int = 1
) -> tuple[RestoreRequest, Plan]:
    """Look at what a restore would do, and touch nothing. ``jobs`` above 1: of a database, not in one transaction."""
    metadata = metadata_of(configuration, backup_id)
    request = RestoreRequest(
        nonce=_nonce(),
        mode="Plan",
        request_uid=f"command-line-{secrets.token_hex(8)}",
        backup=_reference(configuration, backup_id),
        targets=_targets(configuration, metadata, part, jobs),
        locks=(configuration.place,),
    )
    _, report = _run(request)
    return request, report.plans[-1]


def execute_restore(configuration: Configuration, request: RestoreRequest, plan: Plan) -> Result:
    """Carry out a plan that was approved.

    :raises RestoreRefused: the target changed since; nothing was touched.
    """
    with recorded(configuration, f"restore {plan.backup_id}"):
        result, _ = _run(request.model_copy(update={"mode": "Execute", "approved_plan": plan.digest}))
    return result


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
    configuration: Configuration, metadata: BackupMetadata, part: BackupType, jobs: int
) -> tuple[RestoreTarget, ...]:
    """Match the artifacts of a backup with what is configured here, by their family."""
    families: Sequence[str] = {"database": (DATABASE,), "files": (FILES,), "full": (DATABASE, FILES)}[part]
    targets = []
    for artifact in metadata.artifacts:
        family = FILES if artifact.kind == "files" else DATABASE
        if artifact.role == "data" and family in families:
            changes = {"name": artifact.source} | ({"jobs": jobs} if artifact.kind == "postgresql" else {})
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


def _reference(configuration: Configuration, backup_id: str) -> BackupReference:
    try:
        backup_type, _ = parse_backup_id(backup_id)
    except ValueError as error:
        raise BackupMissing(str(error)) from None
    return BackupReference(
        place=configuration.place,
        backup_type=backup_type,
        backup_id=backup_id,
        identity=configuration.identity,
    )
