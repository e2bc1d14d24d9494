"""Write beside one backup what a person says of it: keep it, until when it stays, that it is no anomaly."""

from __future__ import annotations

from avalanche_backup import layout, ownership
from avalanche_backup.errors import BackupMissing
from avalanche_backup.holds import Hold, read_hold, write_hold
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_contract.request import HoldRequest
from avalanche_contract.result import Mark, Result


def run(request: HoldRequest, context: Context) -> Result:
    """Change what the request says wherever a copy lies, leave the rest as it is, and give what is written now.

    :raises BackupMissing: there is none of this ID in any place, or it is being removed just now.
    """
    backup_id = request.backup.backup_id
    opened = [(open_store(each.storage), each.prefix) for each in (request.backup.place, *request.others)]
    for store, prefix in opened:
        ownership.check_owner(store, prefix, request.writer, claim=False)
    there = [
        (store, prefix)
        for store, prefix in opened
        if store.head(layout.metadata_key(prefix, backup_id)) is not None
    ]
    if not there:
        raise BackupMissing(f"there is no backup {backup_id} in {opened[0][0].locate(opened[0][1])}")
    before = Hold()
    for store, prefix in there:
        before = before.together(read_hold(store, prefix, backup_id))
    after = changed(before, request)
    for store, prefix in there:
        write_hold(store, prefix, backup_id, after, context.now())
    return Result(
        nonce=request.nonce,
        verb="hold",
        verdict="Succeeded",
        reason="Written",
        message=f"{backup_id} {sentence(after)}",
        backup_id=backup_id,
        mark=Mark(held=after.held, expiration_time=after.expiration, anomaly_accepted=after.anomaly_accepted),
    )


def changed(before: Hold, request: HoldRequest) -> Hold:
    """Give what a request makes of what was said before."""
    expiration = None if request.never_expires else request.expiration_time or before.expiration
    return Hold(
        held=before.held if request.held is None else request.held,
        expiration=expiration,
        anomaly_accepted=before.anomaly_accepted
        if request.accept_anomaly is None
        else request.accept_anomaly,
    )


def sentence(said: Hold) -> str:
    """Say it to a person."""
    parts = ["is held, whatever retention says" if said.held else "is not held"]
    if said.expiration is not None:
        parts.append(f"stays until {said.expiration:%Y-%m-%d %H:%M:%S} UTC and goes afterwards")
    if said.anomaly_accepted:
        parts.append("counts although it looks unlike those before it")
    return ", ".join(parts)
