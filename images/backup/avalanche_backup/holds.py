"""What keeps a backup from being removed, or says until when it stays: small documents beside its metadata.

What a person says is ``…_hold.json``. Each restore that has chosen the backup leaves ``…_restoring_<holder>.json``: named
by its holder, so that one restore never lets go of what another one needs, and it expires, so that a restore that was
killed, given up or never approved keeps nothing for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.errors import BackupMissing, Failure
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time, parse_time

RESTORE_LIFE = timedelta(hours=48)
"""Longer than a plan may wait for its approval; the restore itself renews it when it begins."""
REMOVAL_LIFE = timedelta(minutes=10)
"""A tombstone that is older, with the metadata still there, is of a cleanup that died before it removed anything."""


@dataclass(frozen=True)
class Hold:
    """What a person said of a backup: keep it whatever retention says; until when it stays; that it is no anomaly."""

    held: bool = False
    expiration: datetime | None = None
    anomaly_accepted: bool = False

    def together(self, other: Hold) -> Hold:
        """Give what was said in two places: what keeps a backup longer holds."""
        times = [each for each in (self.expiration, other.expiration) if each is not None]
        return Hold(
            held=self.held or other.held,
            expiration=max(times, default=None),
            anomaly_accepted=self.anomaly_accepted or other.anomaly_accepted,
        )


def read_hold(store: Store, prefix: str, backup_id: str) -> Hold:
    """Give what a person said; nothing where there is no document, a hold where it cannot be read."""
    document = read_json(store, layout.hold_key(prefix, backup_id))
    if document is None:
        return Hold()
    until = document.get("expiration_time")
    expiration = parse_time(until) if until else None
    unreadable = not isinstance(document.get("held"), bool) or (until is not None and expiration is None)
    return Hold(
        held=unreadable or document["held"],
        expiration=expiration,
        anomaly_accepted=document.get("anomaly_accepted") is True,
    )


def write_hold(store: Store, prefix: str, backup_id: str, hold: Hold, now: datetime) -> None:
    """Write what a person says.

    :raises BackupMissing: it is being removed just now, or is gone.
    """
    document = {
        "backup_id": backup_id,
        "held": hold.held,
        "expiration_time": format_time(hold.expiration) if hold.expiration else None,
        "anomaly_accepted": hold.anomaly_accepted,
        "time": format_time(now),
    }
    _put(store, layout.hold_key(prefix, backup_id), document)
    _refuse_if_being_removed(store, prefix, backup_id, now)


def keep_for_restore(store: Store, prefix: str, backup_id: str, holder: str, now: datetime) -> None:
    """Keep a backup that a restore has chosen.

    :raises BackupMissing: it is being removed just now, or is gone.
    """
    document = {"backup_id": backup_id, "holder": holder, "expires": format_time(now + RESTORE_LIFE)}
    _put(store, layout.restoring_key(prefix, backup_id, holder), document)
    try:
        _refuse_if_being_removed(store, prefix, backup_id, now)
    except BackupMissing:
        with suppress(Failure):  # it expires by itself
            end_of_restore(store, prefix, backup_id, holder)
        raise


def _refuse_if_being_removed(store: Store, prefix: str, backup_id: str, now: datetime) -> None:
    """Look after the hold was written: a removal that came first has left its tombstone, or has taken the metadata
    away already; one that comes later sees the hold.
    """  # fmt: skip
    tombstone = read_json(store, layout.tombstone_key(prefix, backup_id))
    if tombstone is not None and is_young(tombstone, now):
        raise BackupMissing(f"{backup_id} is being removed: choose another backup", reason="BeingRemoved")
    if store.head(layout.metadata_key(prefix, backup_id)) is None:
        raise BackupMissing(
            f"{backup_id} was removed meanwhile: choose another backup", reason="BeingRemoved"
        )


def is_young(tombstone: Mapping[str, Any], now: datetime) -> bool:
    """Say whether somebody may be removing the backup just now."""
    begun = parse_time(tombstone.get("time"))
    return begun is not None and abs(now - begun) < REMOVAL_LIFE


def end_of_restore(store: Store, prefix: str, backup_id: str, holder: str) -> None:
    """Let go of a backup that was kept for this restore; what others keep stays kept."""
    store.delete(layout.restoring_key(prefix, backup_id, holder))


def is_kept(store: Store, prefix: str, backup_id: str, now: datetime) -> bool:
    """Say whether a person or a restore keeps a backup."""
    return read_hold(store, prefix, backup_id).held or is_kept_for_restore(store, prefix, backup_id, now)


def is_kept_for_restore(store: Store, prefix: str, backup_id: str, now: datetime) -> bool:
    """Say whether a restore keeps a backup; a document that cannot be read keeps it."""
    found = (read_json(store, each.key) for each in store.list(layout.restoring_keys(prefix, backup_id)))
    return any(document is not None and _lasts(document, now) for document in found)


def _lasts(document: Mapping[str, Any], now: datetime) -> bool:
    expires = parse_time(document.get("expires"))
    return expires is None or expires > now


def _put(store: Store, key: str, document: Mapping[str, Any]) -> None:
    store.put(key, (json.dumps(document, indent=2) + "\n").encode(), overwrite=True)
