"""What keeps a backup while restores have chosen it: a small document beside its metadata for each of them.

It is named by its holder, so that one restore never lets go of what another one needs, and it expires, so that a restore
that was killed, given up or never approved keeps nothing for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time

RESTORE_LIFE = timedelta(hours=48)
"""Longer than a plan may wait for its approval; the restore itself renews it when it begins."""


def keep_for_restore(store: Store, prefix: str, backup_id: str, holder: str, now: datetime) -> None:
    """Keep a backup that a restore has chosen."""
    document = {"backup_id": backup_id, "holder": holder, "expires": format_time(now + RESTORE_LIFE)}
    _put(store, layout.restoring_key(prefix, backup_id, holder), document)


def end_of_restore(store: Store, prefix: str, backup_id: str, holder: str) -> None:
    """Let go of a backup that was kept for this restore; what others keep stays kept."""
    store.delete(layout.restoring_key(prefix, backup_id, holder))


def is_kept_for_restore(store: Store, prefix: str, backup_id: str, now: datetime) -> bool:
    """Say whether a restore keeps a backup; a document that cannot be read keeps it."""
    found = store.list(layout.restoring_keys(prefix, backup_id))
    return any(_lasts(read_json(store, each.key), now) for each in found)


def _lasts(document: Mapping[str, Any] | None, now: datetime) -> bool:
    expires = _time((document or {}).get("expires"))
    return expires is None or expires > now


def _put(store: Store, key: str, document: Mapping[str, Any]) -> None:
    store.put(key, (json.dumps(document, indent=2) + "\n").encode(), overwrite=True)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC) if text else None
    except ValueError:
        return None
