"""Two small documents beside the backups: the lock of a target that is being restored, and the hold on a backup.

A lock is create-only and expires, so that a restore that was killed stops no backup for ever.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.errors import Failure, ObjectExists, RestoreRefused, TargetLocked
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time

LIFE = timedelta(minutes=2)
"""How long a lock holds without being renewed."""
RENEW_SECONDS = 20
WAIT_SECONDS = 2


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


def take_lock(store: Store, prefix: str, holder: str, now: datetime) -> Lock | None:
    """Take the lock, where it is free, expired or ours already; else give the one that stands in the way."""
    key, document = f"{prefix}{layout.LOCK_FILE}", _document(holder, now)
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder != holder and lock.expires > now:
        return lock
    try:
        store.put(key, document, overwrite=lock is not None)
    except ObjectExists:
        return read_lock(store, prefix)
    return None


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


class KeptLocks:
    """The locks of one restore, in every place of its targets: taken together, renewed by a thread, let go of at the end."""

    def __init__(self, places: list[tuple[Store, str]], holder: str, now: Callable[[], datetime]) -> None:
        self._places, self._holder, self._now = places, holder, now
        self._taken: list[tuple[Store, str]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="locks", daemon=True)

    def __enter__(self) -> KeptLocks:
        try:
            for store, prefix in self._places:
                self._take(store, prefix)
                self._taken.append((store, prefix))
        except BaseException:
            self._release()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._release()

    def _take(self, store: Store, prefix: str) -> None:
        """Wait for a lock that nobody renews, which a killed restore left; refuse one that is renewed."""
        first = take_lock(store, prefix, self._holder, self._now())
        other = first
        while first is not None and other is not None:
            if (other.holder, other.expires) != (first.holder, first.expires):
                raise RestoreRefused(
                    f"restore {other.holder or 'of the command line'} works on this target: wait for it, then ask again",
                    reason="TargetLocked",
                )
            self._ended.wait(WAIT_SECONDS)
            other = take_lock(store, prefix, self._holder, self._now())

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            for store, prefix in self._taken:
                with suppress(Failure):
                    renew_lock(store, prefix, self._holder, self._now())

    def _release(self) -> None:
        for store, prefix in self._taken:
            with suppress(Failure):
                release_lock(store, prefix, self._holder)
