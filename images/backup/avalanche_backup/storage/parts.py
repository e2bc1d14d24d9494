"""Objects of unknown length, cut into parts: their sizes, their buffers, and the few that are in flight.

Small parts wait in memory. An object of five tebibytes in 10,000 parts needs parts of half a gibibyte on average,
which no memory of ours holds: parts above 16 MiB, which only objects above 23 GiB have, wait in unlinked files of
the temporary folder. So memory stays below ``(IN_FLIGHT + 1) * MEMORY``, twice that for a moment, at any length;
the folder needs at most ``(IN_FLIGHT + 1)`` parts: 192 MiB up to 86 GiB, 768 MiB up to 586 GiB, 3 GiB beyond.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, TypeVar

from avalanche_backup.errors import ObjectExists, StorageInvalid, StorageUnavailable
from avalanche_backup.storage.answers import DAMAGED
from avalanche_backup.storage.base import new_token

Answer = TypeVar("Answer")
MIB = 1024 * 1024
IN_FLIGHT = 2
MEMORY = 16 * MIB
STEPS = ((1000, 8 * MIB), (1000, 16 * MIB), (1000, 64 * MIB), (2000, 256 * MIB), (5000, 1024 * MIB))
"""(how many parts, of which size): 10,000 parts come to 5.45 TiB."""
PATIENCE_SECONDS = 90.0
"""How long an upload under way outlasts a store that is away, after the SDK's own tries."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 10.0
RESENT_TIMES = 3


def part_size(number: int) -> int:
    """Give the size of a part in bytes; numbers begin with 1."""
    for count, size in STEPS:
        if number <= count:
            return size
        number -= count
    return STEPS[-1][1]


class Part:
    """One part: filled, then sent as often as it takes, then closed."""

    def __init__(self, number: int, limit: int) -> None:
        self.number, self.size = number, 0
        self._limit = limit
        self._pieces: list[bytes | memoryview] = []
        self._file: IO[bytes] | None = None
        if self._limit > MEMORY:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the part

    @property
    def room(self) -> int:
        """How many bytes it still takes."""
        return self._limit - self.size

    def write(self, data: memoryview) -> None:
        """Take bytes, no more than there is room for."""
        try:
            if self._file is not None:
                self._file.write(data)
            else:  # bytes do not change; what may be written over meanwhile is copied
                self._pieces.append(data if isinstance(data.obj, bytes) else bytes(data))
        except OSError as error:
            raise StorageUnavailable(
                f"the temporary folder cannot hold a part of {self._limit // MIB} MiB: {error.strerror}",
                reason="ScratchFull",
            ) from None
        self.size += len(data)

    def body(self) -> bytes | IO[bytes]:
        """Give the whole of it, from its beginning."""
        if self._file is not None:
            self._file.seek(0)
            return self._file
        if len(self._pieces) != 1 or not isinstance(self._pieces[0], bytes):
            self._pieces = [b"".join(self._pieces)]
        return bytes(self._pieces[0])

    def close(self) -> None:
        """Forget it."""
        self._pieces = []
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class PartPlan:
    """How a store wants its parts."""

    most: int
    size: Callable[[int], int] = part_size
    in_flight: int = IN_FLIGHT


class PartUploads:
    """Fills parts and has them sent while the next is filled; gives what the store answered, in their order.

    ``begin`` is called once, before the first part is sent; ``send`` in another thread, again as long as it
    raises :class:`StorageUnavailable` and patience lasts. ``plan`` says of which size parts are, how many
    there may be, and how many are in flight. An object that ends within its first part is none of ours:
    ``single`` gives its bytes.
    """

    def __init__(self, begin: Callable[[], None], send: Callable[[Part], str], plan: PartPlan) -> None:
        self._begin, self._send, self._plan = begin, send, plan
        self._part = Part(1, plan.size(1))
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[Future[str]] = deque()
        self._answers: list[str] = []
        self._given_up = threading.Event()

    @property
    def single(self) -> bytes | None:
        """The bytes of an object that needs no parts."""
        if self._pool is not None:
            return None
        body = self._part.body()
        return body if isinstance(body, bytes) else body.read()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        rest = memoryview(data)
        while rest:
            taken = rest[: self._part.room]
            self._part.write(taken)
            rest = rest[len(taken) :]
            if not self._part.room:
                self._submit()

    def finish(self) -> list[str]:
        """Send what is left, and wait for everything."""
        if self._part.size:
            self._submit()
        return self.drain()

    @property
    def last(self) -> Part:
        """What is not sent yet: less than a part."""
        return self._part

    def drain(self) -> list[str]:
        """Wait for what is under way."""
        while self._pending:
            self._answers.append(self._pending.popleft().result())
        return self._answers

    def close(self) -> None:
        """Stop what is under way, and forget the rest. Harmless when repeated."""
        self._given_up.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pending.clear()
        self._part.close()

    def _submit(self) -> None:
        if self._given_up.is_set():
            raise StorageUnavailable("the upload is closed")
        if self._part.number > self._plan.most:
            raise StorageInvalid(
                f"the object is longer than {self._plan.most} parts hold: split the source",
                reason="ObjectTooLarge",
            )
        if self._pool is None:
            self._begin()
            self._pool = ThreadPoolExecutor(self._plan.in_flight, thread_name_prefix="upload")
        if len(self._pending) >= self._plan.in_flight:
            self._answers.append(self._pending.popleft().result())
        self._pending.append(self._pool.submit(self._send_one, self._part))
        number = self._part.number + 1
        self._part = Part(number, self._plan.size(number))

    def _send_one(self, part: Part) -> str:
        try:
            return patiently(lambda: self._send(part), self._given_up)
        finally:
            part.close()


def patiently(action: Callable[[], Answer], given_up: threading.Event | None = None) -> Answer:
    """Do what may be repeated, again while the store is away and patience lasts."""
    stop, wait = given_up or threading.Event(), FIRST_WAIT_SECONDS
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return action()
        except StorageUnavailable as failure:
            if failure.reason not in (StorageUnavailable.default_reason, DAMAGED):
                raise  # expired credentials do not come back within this process
            if time.monotonic() + wait > deadline:
                raise
            if stop.wait(wait * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                raise
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)


def resent(action: Callable[[], Answer]) -> Answer:
    """Do what may be repeated, again where the body was damaged on its way: SDKs do not."""
    for _ in range(RESENT_TIMES):
        try:
            return action()
        except StorageUnavailable as failure:
            if failure.reason != DAMAGED:
                raise
    return action()


def put_marked(put: Callable[[str], None], wrote: Callable[[str], bool]) -> None:
    """Write a small object under a mark of its own; after an answer that may be wrong, what lies there decides.

    ``put`` writes with a mark, ``wrote`` says whether the object there is what was written with it.

    :raises ObjectExists: the name is another's. :raises StorageUnavailable: nothing of ours is there.
    """
    token = new_token()
    try:
        resent(lambda: put(token))
    except (ObjectExists, StorageUnavailable):
        if not wrote(token):
            raise
