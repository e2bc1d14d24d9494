"""What the commands do: requests from the configuration, run by the same verbs as in a cluster."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.output import ConsoleReport
from avalanche_backup.cli.recording import recorded, tell_of_refusal
from avalanche_backup.cli.runlock import exclusive
from avalanche_backup.errors import (
    BackupMissing,
    Failure,
    IdentityMissing,
    StorageInvalid,
    UsageInvalid,
    VerificationFailed,
)
from avalanche_backup.layout import STORAGE_FILE
from avalanche_backup.metadata import BackupMetadata
from avalanche_contract.exitcodes import ExitCode
from avalanche_contract.names import BackupType, parse_backup_id
from avalanche_contract.request import (
    BackupReference,
    BackupRequest,
    CleanupRequest,
    DeleteRequest,
    HoldRequest,
    ProbeRequest,
    Request,
    VerifyRequest,
    Writer,
)
from avalanche_contract.result import Copy, Decision, Result
from avalanche_contract.storage import DirectoryStorage, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from avalanche_backup.verbs.context import Context


@contextmanager
def _context(report: ConsoleReport) -> Iterator[Context]:
    from avalanche_backup.verbs.context import Context  # noqa: PLC0415 - `--help` needs none of it

    with tempfile.TemporaryDirectory(prefix="avalanche-") as scratch:
        try:
            yield Context(report=report, scratch=Path(scratch))
        finally:
            report.close()


def run_request(request: Request, report: ConsoleReport | None = None) -> tuple[Result, ConsoleReport]:
    """Carry a request out as a Job would, reporting to a person."""
    from avalanche_backup.verbs.dispatch import run  # noqa: PLC0415

    report = report or ConsoleReport()
    with _context(report) as context:
        return run(request, context), report


def nonce() -> str:
    """Give the mark of one request."""
    return secrets.token_hex(16)


def back_up(
    configuration: Configuration, backup_type: BackupType, take_over: str | None = None
) -> tuple[BackupMetadata, list[Copy]]:
    """Make one backup, alone, in every place; give its metadata, and each copy that could not be made.

    One copy is enough: what could not be reached is told, and `upload` or the next `verify` completes it. A folder of
    the owner ``take_over`` becomes ours.

    :raises RunUnderWay: another run works here; nothing was done.
    """
    with recorded(configuration, backup_type) as ended, ExitStack() as held:
        try:
            held.enter_context(_alone(configuration))
            places, refused = _usable(configuration.places)
            request = _backup_request(configuration, backup_type, places, Writer(take_over=take_over))
        except Failure as failure:
            tell_of_refusal(configuration, backup_type, failure)
            raise
        result, report = run_request(request)
        told = [each for entry in report.entries for each in entry.copies if each.status != "Verified"]
        if result.verdict == "Suspect":
            structlog.get_logger().warning("suspect", reason=result.reason, message=result.message)
            ended.exit_code = ExitCode.SUSPECT
        elif refused or told:
            ended.exit_code = ExitCode.COPIES_INCOMPLETE
        return metadata_of(configuration, result.backup_id or ""), [*refused, *told]


@contextmanager
def _alone(configuration: Configuration) -> Iterator[None]:
    """Hold the lock of the folder; where that cannot be written to, a copy in the bucket is worth more than the lock.

    :raises RunUnderWay: another run works here. :raises UsageInvalid: there is no bucket either.
    """
    with ExitStack() as held:
        try:
            held.enter_context(exclusive(configuration.root_dir))
        except UsageInvalid:
            if len(configuration.places) < 2:
                raise
        yield


def _backup_request(
    configuration: Configuration, backup_type: BackupType, places: Sequence[Place], writer: Writer
) -> BackupRequest:
    return BackupRequest(
        nonce=nonce(),
        writer=writer,
        backup_type=backup_type,
        sources=configuration.sources(backup_type),
        destinations=tuple(places),
        min_copies=1,
        compression=configuration.compression,
        encryption=configuration.encryption,
        anomaly=configuration.anomaly,
        signing_key=configuration.signing_key,
        notifications=configuration.notifications,
    )


def _usable(places: Sequence[Place]) -> tuple[list[Place], list[Copy]]:
    """Prepare every place; a bucket that is not fit to be written to costs its own copy alone.

    :raises Failure: no place can be used.
    """
    usable: list[Place] = []
    refused: list[Copy] = []
    first: Failure | None = None
    for place in places:
        try:
            prepare(place)
            usable.append(place)
        except Failure as failure:
            first = first or failure
            told = {"reason": failure.reason, "message": failure.message}
            refused.append(Copy(storage=place.storage.name, status="NotVerified", **told))
    if not usable and first is not None:
        raise first
    return usable, refused


def prepare(place: Place) -> None:
    """Make the folder of the first backup, or see once that a bucket is fit to be written to.

    :raises Failure: it is not.
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
        run_request(ProbeRequest(nonce=nonce(), storage=place.storage))


def metadata_of(configuration: Configuration, backup_id: str) -> BackupMetadata:
    """Give the metadata of one backup.

    :raises BackupMissing: there is none of this ID.
    """
    from avalanche_backup.cli.places import find  # noqa: PLC0415

    return find(configuration, backup_id)[1]


def verify(configuration: Configuration, backup_id: str, *, heal: bool = True) -> tuple[str, str, str]:
    """Verify every copy of one backup, and give (status, reason, message).

    ``NotVerified`` where what opens it is not at hand, or where a copy is missing and could not be made anew.
    """
    first, *others = configuration.places
    named = reference(first, configuration, backup_id)
    request = VerifyRequest(nonce=nonce(), backup=named, others=tuple(others), heal=heal and bool(others))
    try:
        with recorded(configuration, f"verify {backup_id}") as ended:
            result, _ = run_request(request)
            states = {each.status for each in result.copies}
            if "VerificationFailed" in states:
                ended.exit_code = ExitCode.VERIFICATION_FAILED
            elif "NotVerified" in states:
                ended.exit_code = ExitCode.COPIES_INCOMPLETE
    except VerificationFailed as failure:
        return "VerificationFailed", failure.reason, failure.message
    except IdentityMissing as missing:
        return "NotVerified", missing.reason, missing.message
    if "VerificationFailed" in states:
        return "VerificationFailed", "CopyDamaged", result.message
    if "NotVerified" in states:
        return "NotVerified", "CopiesIncomplete", result.message
    return "Verified", result.reason, result.message


def clean_up(configuration: Configuration, *, dry_run: bool, force: bool) -> tuple[list[Decision], str]:
    """Remove what retention does not keep; give the verdict on every backup, and what was done in one sentence.

    :raises RemovalRefused: too much would go at once, and ``force`` was not given; nothing was removed.
    :raises RunUnderWay: a backup is being made: what it has written so far is named by no metadata yet.
    """
    places = existing_places(configuration)
    if not places:
        return [], "there are no backups"
    request = CleanupRequest(
        nonce=nonce(),
        place=places[0],
        others=places[1:],
        retention=configuration.retention.rules,
        time_zone=configuration.retention.time_zone,
        max_delete_percent=100 if force else configuration.retention.max_delete_percent,
        signing_key=configuration.signing_key,
        dry_run=dry_run,
    )
    with ExitStack() as held:
        if not dry_run:
            held.enter_context(recorded(configuration, "cleanup"))
            held.enter_context(_alone(configuration))
        result, report = run_request(request)
    return [each for each in report.decisions if not each.removed], result.message


def existing_places(configuration: Configuration) -> tuple[Place, ...]:
    """Give the places but for a folder that was never made."""
    return tuple(
        each
        for each in configuration.places
        if not isinstance(each.storage, DirectoryStorage) or Path(each.storage.root).is_dir()
    )


def mark(configuration: Configuration, backup_id: str, **changes: Any) -> Result:
    """Say something of a backup, by the fields of :class:`HoldRequest`; what is not given is as it was.

    :raises BackupMissing: there is none of this ID, or it is being removed.
    """
    first, *others = existing_places(configuration) or configuration.places
    named = reference(first, configuration, backup_id)
    result, _ = run_request(HoldRequest(nonce=nonce(), backup=named, others=tuple(others), **changes))
    return result


def describe(configuration: Configuration, backup_id: str) -> BackupMetadata | None:
    """Give the metadata of one backup; ``None`` where it cannot be read, or is gone already."""
    try:
        return metadata_of(configuration, backup_id)
    except BackupMissing:
        return None


def erase(configuration: Configuration, backup_id: str) -> Result:
    """Erase one backup.

    :raises BackupMissing: there is none of this ID.
    :raises RemovalRefused: it is held or needed.
    """
    first, *others = existing_places(configuration) or configuration.places
    named = reference(first, configuration, backup_id)
    with recorded(configuration, f"delete {backup_id}"):
        key = configuration.signing_key
        asked = DeleteRequest(nonce=nonce(), backup=named, others=tuple(others), signing_key=key)
        result, _ = run_request(asked)
    return result


def reference(place: Place, configuration: Configuration, backup_id: str) -> BackupReference:
    """Name a backup in one place.

    :raises BackupMissing: that is no backup's ID.
    """
    try:
        backup_type, _ = parse_backup_id(backup_id)
    except ValueError as error:
        raise BackupMissing(str(error)) from None
    return BackupReference(
        place=place,
        backup_type=backup_type,
        backup_id=backup_id,
        identity=configuration.identity,
    )
