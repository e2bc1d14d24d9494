"""What failed runs leave beside the backups, so that the next success knows that it is a recovery.

One small document a run, where its metadata would be. It is no backup and nothing depends on it: a document that
cannot be written or read changes no outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time
from avalanche_contract.names import BackupType, parse_backup_id


@dataclass(frozen=True)
class Attempt:
    """One failed run; ``told`` is what people know of the row of failures that it belongs to."""

    backup_id: str
    run_identity: str
    time: datetime
    reason: str
    message: str
    attempts: int = 1
    """How often this run was tried."""
    told_time: datetime | None = None
    """When people were last told of a failure of this row; ``None``: they know of none."""
    told_reason: str = ""


@dataclass(frozen=True)
class History:
    """What lies in the folder of one type: the IDs of failed runs, and of the backups."""

    failed: tuple[str, ...]
    committed: tuple[str, ...]

    def last_failure(self, own: str = "") -> str | None:
        """Give the newest failed run, where no backup is newer than it; ``own`` is not counted."""
        newest = max(self.failed, key=_moment, default=None)
        backups = [_moment(each) for each in self.committed if each != own]
        return None if newest is None or max(backups, default=_moment(newest)) > _moment(newest) else newest


def history(store: Store, prefix: str, backup_type: BackupType) -> History:
    """Look at what there is; reads no document."""
    failed, committed = [], []
    for found in store.list(layout.folder(prefix, backup_type)):
        if (attempt := layout.split_attempt_key(found.key)) is not None:
            failed.append(attempt)
        elif (place := layout.split_metadata_key(found.key)) is not None:
            committed.append(place[1])
    return History(tuple(failed), tuple(committed))


def read(store: Store, prefix: str, backup_id: str | None) -> Attempt | None:
    """Read the document of a failed run; ``None`` where there is none that can be read."""
    found = read_json(store, layout.attempt_key(prefix, backup_id)) if backup_id is not None else None
    if backup_id is None or found is None:
        return None
    try:
        return Attempt(
            backup_id=backup_id,
            run_identity=str(found["run_identity"]),
            time=datetime.fromisoformat(found["time"]),
            reason=str(found["reason"]),
            message=str(found["message"]),
            attempts=int(found["attempts"]),
            told_time=datetime.fromisoformat(found["told_time"]) if found.get("told_time") else None,
            told_reason=str(found.get("told_reason", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def record(store: Store, prefix: str, attempt: Attempt) -> None:
    """Write the document of a failed run; another try of the same run counts up."""
    before = read(store, prefix, attempt.backup_id)
    again = before is not None and before.run_identity == attempt.run_identity
    document = {
        "backup_id": attempt.backup_id,
        "run_identity": attempt.run_identity,
        "time": format_time(attempt.time),
        "reason": attempt.reason,
        "message": attempt.message,
        "attempts": before.attempts + 1 if before is not None and again else attempt.attempts,
        "told_time": format_time(attempt.told_time) if attempt.told_time is not None else None,
        "told_reason": attempt.told_reason,
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    store.put(layout.attempt_key(prefix, attempt.backup_id), text.encode(), overwrite=True)


def forget(store: Store, prefix: str, failed: Iterable[str]) -> None:
    """Remove the documents of failed runs."""
    for each in failed:
        store.delete(layout.attempt_key(prefix, each))


def _moment(backup_id: str) -> datetime:
    return parse_backup_id(backup_id)[1]
