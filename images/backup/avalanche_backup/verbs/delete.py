"""Erase one backup on request: the same removal as a cleanup's, told by a person instead of by retention."""

from __future__ import annotations

from datetime import datetime

from avalanche_backup import layout, ownership, removal
from avalanche_backup.errors import BackupMissing, RemovalRefused
from avalanche_backup.holds import is_kept_for_restore, read_hold
from avalanche_backup.removal import Shelf
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import signer_of
from avalanche_contract.request import DeleteRequest, Writer
from avalanche_contract.result import Result
from avalanche_contract.storage import Place

REASONS = ("delete-requested",)


def run(request: DeleteRequest, context: Context) -> Result:
    """Erase every copy of one backup, or bring an erasure to its end that was broken off.

    :raises BackupMissing: nothing of this ID is left in any place.
    :raises RemovalRefused: it is held, a restore has chosen it, or another backup needs it.
    :raises StorageInvalid: a storage does not let it be deleted.
    """
    backup_id, now = request.backup.backup_id, context.now()
    places = [_look(each, request.writer) for each in (request.backup.place, *request.others)]
    there = [each for each in places if _is_there(each[1], backup_id)]
    for store, shelf in there:  # in every place first: nothing is removed where one of them says no
        _refuse_if_kept(store, shelf, backup_id, now)
    ended = [_resume(*each, backup_id, now) for each in places if not _is_there(each[1], backup_id)]
    if not there and not any(ended):
        store, shelf = places[0]
        raise BackupMissing(f"there is no backup {backup_id} in {store.locate(shelf.prefix)}")
    for store, shelf in there:
        keys = _keys(shelf, backup_id)
        signer = signer_of(request.signing_key)
        if not removal.remove(store, shelf, backup_id, keys=keys, reasons=REASONS, now=now, signer=signer):
            raise RemovalRefused(f"{backup_id} was held meanwhile: release it first", reason="BackupHeld")
    return _result(request, "its data is gone" if there else "its removal was brought to its end")


def _look(place: Place, writer: Writer) -> tuple[Store, Shelf]:
    store = open_store(place.storage)
    ownership.check_owner(store, place.prefix, writer, claim=False)
    return store, removal.survey(store, place.prefix)


def _is_there(shelf: Shelf, backup_id: str) -> bool:
    return backup_id in shelf.named or backup_id in shelf.damaged_ids


def _resume(store: Store, shelf: Shelf, backup_id: str, now: datetime) -> bool:
    return backup_id in shelf.tombstones and removal.resume(store, shelf, backup_id, now) is not None


def _refuse_if_kept(store: Store, shelf: Shelf, backup_id: str, now: datetime) -> None:
    if read_hold(store, shelf.prefix, backup_id).held:
        raise RemovalRefused(f"{backup_id} is held: release it first", reason="BackupHeld")
    if is_kept_for_restore(store, shelf.prefix, backup_id, now):
        raise RemovalRefused(f"a restore has chosen {backup_id}: let it end first", reason="BackupInUse")
    needed = [each.metadata.backup_id for each in shelf.backups if backup_id in each.metadata.depends_on]
    if needed:
        raise RemovalRefused(
            f"{needed[0]} depends on {backup_id}: erase that one first", reason="BackupNeeded"
        )


def _keys(shelf: Shelf, backup_id: str) -> list[str]:
    """Give what goes: what the metadata names, or what carries the ID where it cannot be read."""
    if backup_id in shelf.named:
        return sorted(shelf.named[backup_id])
    split = ((each.key, layout.split_object_key(each.key)) for each in shelf.objects)
    return [key for key, found in split if found and found[0] == backup_id and not found[1].endswith(".json")]


def _result(request: DeleteRequest, message: str) -> Result:
    backup_id = request.backup.backup_id
    return Result(
        nonce=request.nonce,
        verb="delete",
        verdict="Succeeded",
        reason="Erased",
        message=f"{backup_id}: {message}",
        backup_id=backup_id,
    )
