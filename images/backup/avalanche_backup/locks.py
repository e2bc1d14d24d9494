"""The lock of a target that is being restored: a small document in the place of every policy that reads the target.

A lock is create-only and expires, so that a restore that was killed stops no backup for ever. It is never removed, only
marked as let go of: a backup that began before a restore, and ends after it, finds at its end that the document is not as it
was, and commits nothing. No clock is asked for that, so that nodes whose clocks differ agree.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.errors import (
    Failure,
    ObjectExists,
    RestoreFailed,
    RestoreRefused,
    StorageInvalid,
    StorageUnavailable,
    TargetLocked,
)
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time, parse_time

LIFE = timedelta(minutes=2)
"""How long a lock holds without being renewed."""
RENEW_SECONDS = 20
WAIT_SECONDS = 2
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Lock:
    """Who restores, and until when nobody else may read the target; ``released`` is the moment of its end, or empty."""

    holder: str
    expires: datetime
    released: str = ""


def read_lock(store: Store, prefix: str) -> Lock | None:
    """Give the lock of a policy's target, expired, let go of or neither; ``None`` where there never was one."""
    document = read_json(store, f"{prefix}{layout.LOCK_FILE}")
    if document is None:
        return None
    expires = parse_time(document.get("expires")) or _NEVER
    return Lock(str(document.get("holder", "")), expires, str(document.get("released", "")))


def refuse_if_locked(store: Store, prefix: str, now: datetime) -> Lock | None:
    """Stop a backup whose target is being restored; else give the lock as it is, for :func:`refuse_if_restored`.

    :raises TargetLocked: it is.
    """
    lock = read_lock(store, prefix)
    if lock is not None and lock.expires > now:
        raise TargetLocked(
            f"the target is being restored by {lock.holder or 'the command line'}: nothing was backed up"
        )
    return lock


def refuse_if_restored(store: Store, prefix: str, seen: Lock | None) -> None:
    """Stop a backup, before it commits, whose target a restore has worked on since ``seen`` was read.

    :raises TargetLocked: one has, whether it has ended or not.
    """
    lock = read_lock(store, prefix)
    if lock is not None and lock != seen:
        raise TargetLocked(
            f"restore {lock.holder or 'of the command line'} worked on the target while it was read: nothing was backed up"
        )


def take_lock(store: Store, prefix: str, holder: str, now: datetime) -> Lock | None:
    """Take the lock, where it is free, expired or ours already; else give the one that stands in the way."""
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder != holder and lock.expires > now:
        return lock
    try:
        _put(store, prefix, _held(holder, now), overwrite=lock is not None)
    except ObjectExists:
        return read_lock(store, prefix)
    return None


def renew_lock(store: Store, prefix: str, holder: str, now: datetime) -> Lock | None:
    """Hold the lock for another while; where another restore has taken it meanwhile, it stays theirs and is given."""
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder != holder:
        return lock
    _put(store, prefix, _held(holder, now), overwrite=lock is not None)
    return None


def release_lock(store: Store, prefix: str, holder: str, now: datetime) -> None:
    """Let go of the lock, where it is ours; what stays tells backups that began before that there was a restore."""
    lock = read_lock(store, prefix)
    if lock is not None and lock.holder == holder:
        ended = {
            "holder": holder,
            "expires": format_time(_NEVER.replace(year=1970)),
            "released": now.isoformat(),
        }
        _put(store, prefix, ended, overwrite=True)


def _held(holder: str, now: datetime) -> dict[str, str]:
    return {"holder": holder, "expires": format_time(now + LIFE)}


def _put(store: Store, prefix: str, document: dict[str, str], *, overwrite: bool) -> None:
    store.put(f"{prefix}{layout.LOCK_FILE}", json.dumps(document, indent=2).encode(), overwrite=overwrite)


class KeptLocks:
    """The locks of one restore, in every place of its targets: taken together, renewed by a thread, let go of at the end."""

    def __init__(self, places: list[tuple[Store, str]], holder: str, now: Callable[[], datetime]) -> None:
        self._places, self._holder, self._now = places, holder, now
        self._taken: list[tuple[Store, str]] = []
        self._renewed = _NEVER
        self._lost: Lock | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="locks", daemon=True)

    def __enter__(self) -> KeptLocks:
        try:
            self._take_all()
        except BaseException:
            self._release()
            raise
        self._renewed = self._now()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._release()

    def guard(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Give chunks for as long as the locks are ours: after a node stood still, another restore may have begun.

        :raises RestoreFailed: one has.
        """
        for chunk in chunks:
            if self._now() - self._renewed > LIFE / 2:
                self._renew()
            if self._lost is not None:
                raise RestoreFailed(
                    f"restore {self._lost.holder} took this target over while this one stood still",
                    reason="LockLost",
                )
            yield chunk

    def _take_all(self) -> None:
        """Take the lock in every place that answers: one that is down must not keep a restore from another's copy.

        A backup looks into every place of its own, so that one place in each folder is enough to be seen.
        """
        unreached: dict[str, Failure] = {}
        for store, prefix in self._places:
            try:
                self._take(store, prefix)
                self._taken.append((store, prefix))
            except (StorageUnavailable, StorageInvalid) as failure:
                unreached[prefix] = failure
        for prefix in unreached.keys() - {prefix for _, prefix in self._taken}:
            raise unreached[prefix]

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

    def _keep(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            self._renew()

    def _renew(self) -> None:
        now = self._now()
        for store, prefix in self._taken:
            with suppress(Failure):
                self._lost = renew_lock(store, prefix, self._holder, now) or self._lost
        self._renewed = now

    def _release(self) -> None:
        for store, prefix in self._taken:
            with suppress(Failure):
                release_lock(store, prefix, self._holder, self._now())
