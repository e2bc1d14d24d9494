"""The queue: one look at a key at a time, the earlier of two moments, and patience with what fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from avalanche_operator.kube import queue
from avalanche_operator.kube.queue import Key, KeyedQueue

A, B = Key("Backup", "edna", "a"), Key("Backup", "edna", "b")


def _run(
    reconcile: Callable[[Key], Awaitable[float | None]], until: Callable[[], bool], *keys: tuple[Key, float]
) -> None:
    async def play() -> None:
        waiting = KeyedQueue(reconcile)
        workers = [asyncio.create_task(waiting.work()) for _ in range(3)]
        for key, delay in keys:
            await waiting.add(key, delay)
        async with asyncio.timeout(5):
            while not until():
                await asyncio.sleep(0)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    asyncio.run(play())


def test_one_key_is_never_looked_at_twice_at_once() -> None:
    at_work: list[Key] = []
    overlaps: list[Key] = []
    looks: list[Key] = []

    async def look(key: Key) -> float | None:
        overlaps.extend(each for each in at_work if each == key)
        at_work.append(key)
        await asyncio.sleep(0.001)
        at_work.remove(key)
        looks.append(key)
        return 0.0

    _run(look, lambda: looks.count(A) >= 10 and looks.count(B) >= 10, (A, 0), (B, 0), (A, 0))
    assert overlaps == []


def test_a_key_that_is_added_during_its_look_is_looked_at_again() -> None:
    looks = 0

    async def play() -> None:
        async def look(key: Key) -> float | None:
            nonlocal looks
            looks += 1
            if looks == 1:
                await waiting.add(key)
            return None

        waiting = KeyedQueue(look)
        worker = asyncio.create_task(waiting.work())
        await waiting.add(A)
        async with asyncio.timeout(5):
            while looks < 2:
                await asyncio.sleep(0)
        worker.cancel()

    asyncio.run(play())
    assert looks == 2


def test_the_earlier_of_two_moments_counts() -> None:
    order: list[Key] = []

    async def look(key: Key) -> float | None:
        order.append(key)
        return None

    _run(look, lambda: len(order) == 2, (A, 3600), (B, 0.01), (A, 0))
    assert order == [A, B]


def test_what_fails_is_looked_at_again_and_the_others_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "FIRST_RETRY_SECONDS", 0.02)
    looks: list[Key] = []

    async def look(key: Key) -> float | None:
        looks.append(key)
        if looks.count(A) == 1 and key == A:
            raise RuntimeError("the API server does not answer")
        return None

    _run(look, lambda: looks.count(A) == 2, (A, 0), (B, 0))
    assert looks == [A, B, A]


def test_what_fails_for_days_costs_no_worker() -> None:
    """2.0 ** 1024 is no float: the delay's exponent is bounded."""

    async def look(key: Key) -> float | None:
        if key == A:
            raise RuntimeError("still refused")
        return None

    async def play() -> None:
        waiting = KeyedQueue(look)
        waiting._failures[A] = 5000
        worker = asyncio.create_task(waiting.work())
        await waiting.add(A)
        await waiting.add(B, 0.001)
        async with asyncio.timeout(5):
            while A not in waiting._due or B in waiting._due:
                await asyncio.sleep(0)
        assert not worker.done()
        worker.cancel()

    asyncio.run(play())
