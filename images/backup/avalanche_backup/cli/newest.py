"""The backup that a restore means which names none: the newest good one, in every place that it may be read from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.errors import BackupMissing, Failure
from avalanche_contract.names import BackupType
from avalanche_contract.storage import Place

TYPES: dict[BackupType, tuple[BackupType, ...]] = {
    "database": ("database", "full"),
    "files": ("files", "full"),
    "full": ("full",),
}
"""By what is asked back: the types of backups that hold it."""


def newest(
    configuration: Configuration, part: BackupType, *, as_of: datetime | None, from_cloud: bool
) -> str:
    """Give the ID of the newest good backup, by the time of its data; with ``as_of``, of what is not newer than that.

    :raises BackupMissing: there is none. :raises Failure: a place cannot be read, which may hold a newer one.
    """
    places = (configuration.cloud,) if from_cloud else configuration.places
    found: list[tuple[datetime, str]] = []
    for place in places:
        try:
            found += _good(place, TYPES[part])
        except Failure as failure:
            if failure.reason != "StorageMissing" or len(places) == 1:  # the folder of a fresh machine
                raise
    fitting = [each for each in found if as_of is None or each[0] <= as_of]
    if not fitting:
        until = f" with data of {as_of:%Y-%m-%d %H:%M:%S} UTC or before" if as_of else ""
        where = " and ".join(each.storage.name for each in places)
        raise BackupMissing(
            f"{where} holds no good backup of type {' or '.join(TYPES[part])}{until}: see `avalanche-backup list`"
        )
    return max(fitting)[1]


def _good(place: Place, types: Sequence[BackupType]) -> list[tuple[datetime, str]]:
    from avalanche_backup import catalog  # noqa: PLC0415 - `--help` needs none of it
    from avalanche_backup.holds import read_hold  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    store = open_store(place.storage)
    found = catalog.backups(store, place.prefix, tuple(types))
    return [
        (each.metadata.snapshot_time, each.metadata.backup_id)
        for each in found
        if isinstance(each, catalog.Found)
        and catalog.verification_of(each) != "VerificationFailed"
        and (
            each.metadata.status == "succeeded"
            or read_hold(store, place.prefix, each.metadata.backup_id).anomaly_accepted
        )
    ]
