"""The backup that a restore means which names none: the newest good one, in every place that it may be read from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.errors import BackupMissing, Failure
from avalanche_contract.names import BackupType, parse_backup_id
from avalanche_contract.storage import Place

if TYPE_CHECKING:
    from avalanche_backup.catalog import Found
    from avalanche_backup.removal import Shelf
    from avalanche_backup.storage.base import Store

TYPES: dict[BackupType, tuple[BackupType, ...]] = {
    "database": ("database", "full"),
    "files": ("files", "full"),
    "full": ("full",),
}
"""By what is asked back: the types of backups that hold it."""


@dataclass(frozen=True, order=True)
class Seen:
    """One backup in one place: the time of its data, and why it is not restored from there; empty where it may be."""

    moment: datetime
    backup_id: str
    flaw: str = ""


def newest(
    configuration: Configuration, part: BackupType, *, as_of: datetime | None, from_cloud: bool
) -> str:
    """Give the ID of the newest good backup, by the time of its data; with ``as_of``, of what is not newer than that.

    Newer ones that are passed over, and newer ones of a part alone, are told.

    :raises BackupMissing: there is none. :raises Failure: a place cannot be read, which may hold a newer one.
    """
    places = (configuration.cloud,) if from_cloud else configuration.places
    found: list[Seen] = []
    for place in places:
        try:
            found += _seen(place)
        except Failure as failure:
            if failure.reason != "StorageMissing" or len(places) == 1:  # the folder of a fresh machine
                raise
    fitting = [each for each in found if as_of is None or each.moment <= as_of]
    good = [each for each in fitting if not each.flaw and _type(each) in TYPES[part]]
    for each in _passed_over(fitting, part, max(good, default=None)):
        click.secho(f"warning: {each}", fg="yellow", err=True)
    if not good:
        until = f" with data of {as_of:%Y-%m-%d %H:%M:%S} UTC or before" if as_of else ""
        where = " and ".join(each.storage.name for each in places)
        raise BackupMissing(
            f"{where} holds no good backup of type {' or '.join(TYPES[part])}{until}: see `avalanche-backup list`"
        )
    return max(good).backup_id


def _passed_over(fitting: Iterable[Seen], part: BackupType, chosen: Seen | None) -> Iterator[str]:
    """Say of each newer backup why it is not the one: no place has it whole, or it holds a part of what is asked."""
    newer = [each for each in fitting if chosen is None or each.moment > chosen.moment]
    whole = {each.backup_id for each in newer if not each.flaw}
    for backup_id, flaw in {each.backup_id: each.flaw for each in sorted(newer)}.items():
        kind = parse_backup_id(backup_id)[0]
        if kind in TYPES[part] and backup_id not in whole:
            yield f"{backup_id} is newer, and is not restored: {flaw}"
        elif part == "full" and chosen is not None and kind != "full":
            told = "and" if backup_id in whole else f"{flaw}; it"
            yield f"{backup_id} is newer than {chosen.backup_id}, {told} holds {kind} alone: it is not restored"


def _type(each: Seen) -> BackupType:
    return parse_backup_id(each.backup_id)[0]


def _seen(place: Place) -> list[Seen]:
    from avalanche_backup import layout, removal  # noqa: PLC0415 - `--help` needs none of it
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    store = open_store(place.storage)
    shelf = removal.survey(store, place.prefix)
    found = [
        Seen(each.metadata.snapshot_time, each.metadata.backup_id, _flaw(store, shelf, each))
        for each in shelf.backups
    ]
    split = ((each, layout.split_metadata_key(each.key)) for each in shelf.damaged)
    damaged = ((each, named[1]) for each, named in split if named)
    return found + [Seen(parse_backup_id(named)[1], named, each.message) for each, named in damaged]


def _flaw(store: Store, shelf: Shelf, found: Found) -> str:
    """Say why a backup is not restored unless it is named; empty where it is good."""
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.holds import read_hold  # noqa: PLC0415

    metadata = found.metadata
    if catalog.verification_of(found) == "VerificationFailed":
        return "it was found damaged"
    if not shelf.is_complete(found):
        return "objects of it are missing, or not in their size"
    if metadata.status == "succeeded" or read_hold(store, shelf.prefix, metadata.backup_id).anomaly_accepted:
        return ""
    return f"it is suspect: {metadata.error_message}"
