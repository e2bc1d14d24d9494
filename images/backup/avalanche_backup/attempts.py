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
    """One failed run: how often it was tried, and whether people were told."""

    backup_id: str
    run_identity: str
    time: datetime
    reason: str
    message: str
    attempts: int = 1
    told: bool = False


def record(store: Store, prefix: str, attempt: Attempt) -> None:
    """Write the document of a failed run; another try of the same run counts up."""
    key = layout.attempt_key(prefix, attempt.backup_id)
    before = read_json(store, key) or {}
    same = before.get("run_identity") == attempt.run_identity
    count, told = before.get("attempts"), before.get("told") is True
    document = {
        "backup_id": attempt.backup_id,
        "run_identity": attempt.run_identity,
        "time": format_time(attempt.time),
        "reason": attempt.reason,
        "message": attempt.message,
        "attempts": count + 1 if same and isinstance(count, int) else attempt.attempts,
        "told": attempt.told or (same and told),
    }
    store.put(key, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode(), overwrite=True)


@dataclass(frozen=True)
class History:
    """What lies in the folder of one type: the IDs of failed runs, and of the backups."""

    failed: tuple[str, ...]
    committed: tuple[str, ...]

    def since_last_commit(self, own: str) -> tuple[str, ...]:
        """Give the failed runs since the newest backup before this one, the newest first."""
        earlier = [_moment(each) for each in self.committed if each != own]
        last = max(earlier, default=None)
        return tuple(
            sorted((each for each in self.failed if last is None or _moment(each) > last), reverse=True)
        )


def history(store: Store, prefix: str, backup_type: BackupType) -> History:
    """Look at what there is; reads no document."""
    failed, committed = [], []
    for found in store.list(layout.folder(prefix, backup_type)):
        if (attempt := layout.split_attempt_key(found.key)) is not None:
            failed.append(attempt)
        elif (place := layout.split_metadata_key(found.key)) is not None:
            committed.append(place[1])
    return History(tuple(failed), tuple(committed))


def were_told(store: Store, prefix: str, failed: Iterable[str]) -> bool:
    """Say whether people know of one of these failures."""
    return any(
        (read_json(store, layout.attempt_key(prefix, each)) or {}).get("told") is True for each in failed
    )


def forget(store: Store, prefix: str, failed: Iterable[str]) -> None:
    """Remove the documents of failed runs."""
    for each in failed:
        store.delete(layout.attempt_key(prefix, each))


def _moment(backup_id: str) -> datetime:
    return parse_backup_id(backup_id)[1]
