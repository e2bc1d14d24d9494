"""A keyed queue with delays: one key is never worked on twice at once, and what fails comes back later each time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 120.0
_LOG = structlog.get_logger()


@dataclass(frozen=True)
class Key:
    """One object to look at."""

    kind: str
    namespace: str
    name: str


Reconcile = Callable[[Key], Awaitable[float | None]]
"""Looks at one object; gives after how many seconds it wants to look again, or ``None``."""


class KeyedQueue:
    """Keys wait here until they are due; workers take them."""

    def __init__(self, reconcile: Reconcile) -> None:
        self._reconcile = reconcile
        self._heap: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._working: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._order = itertools.count()
        self._changed = asyncio.Condition()
        self.last_taken = time.monotonic()

    async def add(self, key: Key, delay: float = 0.0) -> None:
        """Ask for a look at a key; the earlier of two moments counts."""
        due = time.monotonic() + delay
        async with self._changed:
            if key in self._due and self._due[key] <= due:
                return
            self._due[key] = due
            heapq.heappush(self._heap, (due, next(self._order), key))
            self._changed.notify_all()

    async def work(self) -> None:
        """Take keys for ever; run several of these."""
        while True:
            key = await self._take()
            again = await self._look(key)
            async with self._changed:
                self._working.discard(key)
                self._changed.notify_all()
            if again is not None:
                await self.add(key, again)

    @property
    def overdue_seconds(self) -> float:
        """Give how long the oldest due key has waited: large means that the workers hang."""
        waiting = [due for key, due in self._due.items() if key not in self._working]
        return max(0.0, time.monotonic() - min(waiting)) if waiting else 0.0

    async def _take(self) -> Key:
        async with self._changed:
            while True:
                key, wait = self._next()
                if key is not None:
                    self._working.add(key)
                    del self._due[key]
                    self.last_taken = time.monotonic()
                    return key
                try:
                    await asyncio.wait_for(self._changed.wait(), wait)
                except TimeoutError:
                    continue

    def _next(self) -> tuple[Key | None, float | None]:
        """Give a key that is due and free, or how long to wait for one."""
        now, passed_over = time.monotonic(), []
        found, wait = None, None
        while self._heap and found is None:
            entry = heapq.heappop(self._heap)
            due, _, key = entry
            if self._due.get(key) != due:
                continue  # an entry that an earlier one replaced
            if due > now:
                passed_over.append(entry)
                wait = due - now
                break
            if key in self._working:
                passed_over.append(entry)
            else:
                found = key
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found, wait

    async def _look(self, key: Key) -> float | None:
        again: float | None
        try:
            again = await self._reconcile(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay: float = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10))
            _LOG.warning("a look failed", kind=key.kind, namespace=key.namespace, name=key.name,
                         error=f"{type(error).__name__}: {error}"[:500], again_seconds=delay)  # fmt: skip
            return delay
        else:
            self._failures.pop(key, None)
            return again
