"""Where copies lie: what each place holds, what is missing where, and copying it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from avalanche_backup.cli.actions import nonce, prepare, run_request
from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.errors import BackupMissing, Failure
from avalanche_backup.metadata import BackupMetadata
from avalanche_contract.names import BACKUP_TYPES, BackupType, parse_backup_id
from avalanche_contract.request import CopyRequest
from avalanche_contract.storage import Place

Action = Literal["Upload", "Download"]


@dataclass(frozen=True)
class Listed:
    """One backup, and the names of the places that hold a copy."""

    metadata: BackupMetadata
    places: tuple[str, ...]
    anomaly_accepted: bool = False
    """A suspect one, and a person said that it is right as it is."""


@dataclass(frozen=True)
class Listing:
    """What all places hold together, the newest first."""

    backups: tuple[Listed, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    """(backup ID, message) of each metadata file that cannot be read."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """By the name of a place that could not be read."""


@dataclass(frozen=True)
class Step:
    """One copy that is made, or would be."""

    backup_id: str
    action: Action
    status: Literal["Copied", "AlreadyThere", "Planned", "Failed"]
    message: str = ""
    failure: Failure | None = None


def list_places(places: Sequence[Place], backup_type: BackupType | None) -> Listing:
    """Read every place; one that cannot be read does not hide what the others hold.

    :raises Failure: none can be read: the folder is not there, or its disk is not mounted.
    """
    known: dict[str, list[str]] = {}
    accepted: set[str] = set()
    metadata: dict[str, BackupMetadata] = {}
    damaged: list[tuple[str, str]] = []
    failures: dict[str, Failure] = {}
    for place in places:
        try:
            good, bad = _read(place, backup_type)
            accepted |= _accepted(place, good)
        except Failure as failure:
            failures[place.storage.name] = failure
            continue
        damaged += bad
        for each in good:
            metadata.setdefault(each.backup_id, each)
            known.setdefault(each.backup_id, []).append(place.storage.name)
    if len(failures) == len(places):
        raise next(iter(failures.values()))
    order = sorted(metadata.values(), key=lambda each: (each.timestamp, each.backup_id), reverse=True)
    listed = tuple(Listed(each, tuple(known[each.backup_id]), each.backup_id in accepted) for each in order)
    return Listing(listed, tuple(damaged), failures)


def transfer(configuration: Configuration, backup_ids: Sequence[str], action: Action) -> list[Step]:
    """Copy backups to the bucket, or from it; each that fails is told, and the others are copied all the same.

    :raises Failure: the target cannot be written to at all.
    """
    prepare(_target(configuration, action))
    return [_copy(configuration, each, action) for each in backup_ids]


def missing(configuration: Configuration) -> list[tuple[str, Action]]:
    """Say what is missing on either side, the oldest first.

    :raises Failure: a side cannot be read: what is missing there is not known.
    """
    local, cloud = configuration.local, configuration.cloud
    found = list_places((local, cloud), None)
    unread = {name: each for name, each in found.failures.items() if not _is_new(name, each, configuration)}
    if unread:
        raise next(iter(unread.values()))
    return [
        (each.metadata.backup_id, "Upload" if local.storage.name in each.places else "Download")
        for each in reversed(found.backups)
        if len(each.places) == 1
    ]


def find(
    configuration: Configuration, backup_id: str, *, from_cloud: bool = False
) -> tuple[Place, BackupMetadata]:
    """Give the place that a backup is read from, and its metadata: the folder where it lies there, else the bucket.

    A copy that was found damaged is taken only where there is no other.

    :raises BackupMissing: it is in neither. :raises Failure: a place that may have it cannot be read.
    """
    places = (configuration.cloud,) if from_cloud else configuration.places
    failures: list[Failure] = []
    damaged: list[tuple[Place, BackupMetadata]] = []
    for place in places:
        try:
            metadata, good = _find(place, backup_id)
        except Failure as failure:
            failures.append(failure)
            continue
        if good:
            return place, metadata
        damaged.append((place, metadata))
    if damaged:
        return damaged[0]
    unclear = [each for each in failures if not isinstance(each, BackupMissing)]
    raise (unclear or failures)[0]


def _find(place: Place, backup_id: str) -> tuple[BackupMetadata, bool]:
    """Give a backup's metadata, and whether nobody has found it damaged there."""
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    found = catalog.find(open_store(place.storage), place.prefix, backup_id)
    return found.metadata, catalog.verification_of(found) != "VerificationFailed"


def _read(place: Place, backup_type: BackupType | None) -> tuple[list[BackupMetadata], list[tuple[str, str]]]:
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    types = (backup_type,) if backup_type else BACKUP_TYPES
    found = catalog.backups(open_store(place.storage), place.prefix, types)
    good = [each.metadata for each in found if isinstance(each, catalog.Found)]
    damaged = [each for each in found if isinstance(each, catalog.Damaged)]
    named = [(each.key.rpartition("/")[2].removesuffix("_metadata.json"), each.message) for each in damaged]
    return good, named


def _accepted(place: Place, backups: Sequence[BackupMetadata]) -> set[str]:
    """Name the suspect ones that a person accepted; of the others nothing is asked."""
    from avalanche_backup.holds import read_hold  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    suspect = [each.backup_id for each in backups if each.status == "suspect"]
    store = open_store(place.storage) if suspect else None
    return {each for each in suspect if store and read_hold(store, place.prefix, each).anomaly_accepted}


def _is_new(name: str, failure: Failure, configuration: Configuration) -> bool:
    """Say whether the folder was never made: of a fresh machine, into which everything is downloaded."""
    return name == configuration.local.storage.name and failure.reason == "StorageMissing"


def _target(configuration: Configuration, action: Action) -> Place:
    return configuration.cloud if action == "Upload" else configuration.local


def _copy(configuration: Configuration, backup_id: str, action: Action) -> Step:
    target = _target(configuration, action)
    source = configuration.local if action == "Upload" else configuration.cloud
    try:
        kind, _ = parse_backup_id(backup_id)
        request = CopyRequest(
            nonce=nonce(), backup_type=kind, backup_id=backup_id, sources=(source,), target=target
        )
        result, _ = run_request(request)
    except ValueError as error:
        missing_backup = BackupMissing(str(error))
        return Step(backup_id, action, "Failed", missing_backup.message, missing_backup)
    except Failure as failure:
        return Step(backup_id, action, "Failed", failure.message, failure)
    return Step(backup_id, action, "Copied" if result.reason == "Copied" else "AlreadyThere", result.message)
