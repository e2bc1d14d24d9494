"""Which backup a drill is of: the newest that is known to be good, in whichever place has it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from avalanche_backup import catalog, layout, ownership, removal
from avalanche_backup.catalog import Found
from avalanche_backup.errors import BackupMissing, Failure
from avalanche_backup.storage.base import Store
from avalanche_backup.verbs.destinations import open_destination
from avalanche_contract.names import BackupType, parse_backup_id
from avalanche_contract.request import Newest


def newest(wanted: Newest, now: datetime) -> tuple[Store, Found]:
    """Give the newest good backup and its store; of two places with the same one, the first.

    :raises BackupMissing: there is none. :raises Failure: a place could not be looked into, and no other has one.
    """
    found: list[tuple[Store, Found]] = []
    failures: list[Failure] = []
    for place in wanted.places:
        opened = open_destination(place)
        try:
            if opened.failure is not None:
                raise opened.failure
            ownership.check_owner(opened.store, opened.prefix, wanted.writer, claim=False, adopting=True)
            good = next(_good(opened.store, opened.prefix, wanted.backup_types, now), None)
        except Failure as failure:
            failures.append(failure)
            continue
        if good is not None:
            found.append((opened.store, good))
    if found:
        return max(found, key=lambda one: _moment(one[1].metadata.backup_id))
    if failures:
        raise failures[0]
    types = ", ".join(wanted.backup_types)
    raise BackupMissing(
        f"there is no good backup yet ({types}): nothing can be drilled", reason="NoGoodBackup"
    )


def _good(store: Store, prefix: str, types: tuple[BackupType, ...], now: datetime) -> Iterator[Found]:
    """Give the good backups, the newest first; metadata is read only as far as it is asked for."""
    keys = catalog.metadata_keys(store, prefix, types)
    named = [(_moment(split[1]), split[1], key) for key in keys if (split := layout.split_metadata_key(key))]
    for moment, backup_id, key in sorted(named, reverse=True):
        if moment > now or removal.is_being_removed(store, prefix, backup_id):
            continue  # from a clock that is wrong, or being removed
        found = catalog.read_one(store, key)
        if isinstance(found, Found) and _is_good(found):
            yield found


def _is_good(found: Found) -> bool:
    return found.metadata.status == "succeeded" and catalog.verification_of(found) == "Verified"


def _moment(backup_id: str) -> datetime:
    return parse_backup_id(backup_id)[1]
