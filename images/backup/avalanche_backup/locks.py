"""Two small documents beside the backups: the lock of a target that is being restored, and the hold on a backup.

A lock is create-only and expires, so that a restore that was killed stops no backup for ever.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.errors import ObjectExists, RestoreRefused, TargetLocked
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time

LIFE = timedelta(minutes=10)
"""How long a lock holds without being renewed; the restore renews it far more often."""


@dataclass(frozen=True)
class Lock:
    """Who restores, and until when nobody else may read the target."""

    holder: str
    expires: datetime


def read_lock(store: Store, prefix: str) -> Lock | None:
    """Give the lock of a policy's target, expired or not."""
    document = read_json(store, f"{prefix}{layout.LOCK_FILE}")
    if document is None:
        return None
    try:
        expires = datetime.fromisoformat(str(document.get("expires"))).astimezone(UTC)
    except ValueError:
        expires = datetime.min.replace(tzinfo=UTC)
    return Lock(str(document.get("holder", "")), expires)


def refuse_if_locked(store: Store, prefix: str, now: datetime) -> None:
    """Stop a backup whose target is being restored.

    :raises TargetLocked: it is.
    """
    lock = read_lock(store, prefix)
    if lock is not None and lock.expires > now:
        raise TargetLocked(
            f"the target is being restored by {lock.holder or 'the command line'}: nothing was backed up"
        )


def take_lock(store: Store, prefix: str, holder: str, now: datetime) -> None:
    """Take the lock; an expired one, or one of the same holder, is taken over.

    :raises RestoreRefused: another restore holds it.
    """
    key, document = f"{prefix}{layout.LOCK_FILE}", _document(holder, now)
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder != holder and lock.expires > now:
        raise RestoreRefused(
            f"restore {lock.holder} works on this target until {format_time(lock.expires)} at the latest: wait for it",
            reason="TargetLocked",
        )
    try:
        store.put(key, document, overwrite=lock is not None)
    except ObjectExists:
        raise RestoreRefused(
            "another restore has just begun on this target: wait for it", reason="TargetLocked"
        ) from None


def renew_lock(store: Store, prefix: str, holder: str, now: datetime) -> None:
    """Hold the lock for another while."""
    store.put(f"{prefix}{layout.LOCK_FILE}", _document(holder, now), overwrite=True)


def release_lock(store: Store, prefix: str, holder: str) -> None:
    """Let go of the lock, where it is ours."""
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder == holder:
        store.delete(f"{prefix}{layout.LOCK_FILE}")


def write_hold(store: Store, prefix: str, backup_id: str, holder: str, now: datetime) -> None:
    """Hold a backup that a restore has chosen, so that no cleanup takes it away meanwhile."""
    document = {"backup_id": backup_id, "holder": holder, "time": format_time(now)}
    store.put(layout.hold_key(prefix, backup_id), json.dumps(document, indent=2).encode(), overwrite=True)


def release_hold(store: Store, prefix: str, backup_id: str) -> None:
    """Let go of a backup."""
    store.delete(layout.hold_key(prefix, backup_id))


def _document(holder: str, now: datetime) -> bytes:
    return json.dumps({"holder": holder, "expires": format_time(now + LIFE)}, indent=2).encode()
