"""One stream to several stores: each is written by a thread of its own, and left out once it fails or stands still.

Between the stream and each thread stand a few pieces at most. A slow store therefore slows the others down, and no longer
than :data:`STALL_SECONDS` without any progress, or :data:`HELD_UP_SECONDS` in all; then it is given up, as a dead one is
at once. What it has missed is copied from a good copy later. A store that is alone is waited for as long as it takes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from avalanche_backup.errors import (
    Failure,
    ObjectExists,
    StorageInvalid,
    StorageUnavailable,
    describe_defect,
)
from avalanche_backup.storage.base import Store

PIECE = 1024 * 1024
WAITING = 4
"""Pieces that wait for a thread: the stores share their bytes, so that memory grows with the slowest one alone."""
STALL_SECONDS = 300.0
"""Above what an SDK takes to say that there is no answer, and a large part takes on a slow line."""
HELD_UP_SECONDS = 1800.0
ABORT_SECONDS = 15.0
"""How long an end waits for threads: a store that does not answer is left behind, and its parts to a cleanup."""
_TICK = 1.0

Check = Callable[[Iterator[bytes], bool], Generator[bytes]]
"""Reads an object back; with True, decodes it as well. Raises where it is not what was written."""


@dataclass
class Destination:
    """One folder of a store that a run writes to, until it fails; then ``failure`` says why."""

    store: Store
    prefix: str = ""
    failure: Failure | None = None

    def key(self, name: str) -> str:
        """Give the key of a name beneath the folder."""
        return f"{self.prefix}{name}"


def living(destinations: Sequence[Destination]) -> list[Destination]:
    """Give those that are still written to.

    :raises Failure: there is none left: the only failure, or one that tells of all; it may pass if any of them may.
    """
    found = [each for each in destinations if each.failure is None]
    if found:
        return found
    failures = [each.failure for each in destinations if each.failure is not None]
    if len(failures) == 1:
        raise failures[0]
    passing = any(isinstance(each, StorageUnavailable) for each in failures)
    kind = StorageUnavailable if passing else StorageInvalid
    told = "; ".join(each.message for each in failures)
    raise kind(f"no destination can be written to: {told}", reason="NoDestination")


class Fanout:
    """One object under way in every destination. It exists nowhere before :meth:`commit`."""

    def __init__(self, destinations: Sequence[Destination], name: str) -> None:
        self._destinations = destinations
        self._branches = [_Branch(each, each.key(name)) for each in living(destinations)]

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, and give them to every thread.

        :raises Failure: no destination is left.
        """
        view = memoryview(data)
        for start in range(0, len(view), PIECE):
            piece = (
                data if isinstance(data, bytes) and len(data) <= PIECE else bytes(view[start : start + PIECE])
            )
            for branch in self._branches:
                branch.put(piece, patient=self._alone)
            self._sweep()

    def commit(self, check: Check) -> None:
        """Make the object exist, whole, and read every copy back; one of them is decoded, for they are the same bytes.

        The first that is left commits first, alone: of two attempts with the same name, one gets it everywhere.

        :raises ObjectExists: the name was taken meanwhile; nothing of ours is left.
        :raises Failure: no destination is left.
        """
        try:
            self._commit(check)
        except ObjectExists:
            for branch in self._branches:
                branch.undo()
            raise

    def _commit(self, check: Check) -> None:
        committed = False
        while not committed:
            first = self._branches[0]
            first.finish(check, decode=True)
            first.wait_for(lambda: first.committed, patient=self._alone)  # noqa: B023 - called at once
            committed = first.failure is None
            self._sweep()
        for branch in self._branches[1:]:
            branch.finish(check, decode=False)
        for branch in self._branches:
            branch.wait_for(lambda: branch.ended, patient=self._alone)  # noqa: B023 - called at once
        self._sweep()
        while not any(branch.decoded for branch in self._branches):
            self._branches[0].read_back(check, decode=True)
            self._sweep()

    def off(self) -> None:
        """Wait for no store any more, and commit to none."""
        for branch in self._branches:
            branch.off()

    def abandon(self) -> None:
        """Give up whatever is not committed. Never raises, and never waits for long."""
        self.off()
        until = time.monotonic() + ABORT_SECONDS
        for branch in self._branches:
            branch.join(max(0.0, until - time.monotonic()))

    @property
    def _alone(self) -> bool:
        return len(self._branches) == 1

    def _sweep(self) -> None:
        """Leave out what failed, here or under another object; a name that was taken is no fault of the store."""
        for branch in self._branches:
            if isinstance(branch.failure, ObjectExists):
                raise branch.failure
            branch.destination.failure = branch.destination.failure or branch.failure
            if branch.destination.failure is not None:
                branch.off()
        self._branches = [each for each in self._branches if each.destination.failure is None]
        living(self._destinations)


class _Branch:
    """The object in one store, and the thread that writes it."""

    def __init__(self, destination: Destination, key: str) -> None:
        self.destination, self._store, self._key = destination, destination.store, key
        self.failure: Failure | None = None
        self.committed = self.decoded = self.ended = False
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._check: tuple[Check, bool] | None = None
        self._off = False
        self._moved, self._held_up = time.monotonic(), 0.0
        self._thread = threading.Thread(target=self._run, name=f"upload-{self._store.name}", daemon=True)
        self._thread.start()

    def put(self, piece: bytes, *, patient: bool) -> None:
        """Give the next piece, waiting for room."""
        began = time.monotonic()
        with self._changed:
            while len(self._pieces) >= WAITING and not self._over():
                self._changed.wait(_TICK)
                if not patient:
                    self._give_up_if_stalled(self._held_up + time.monotonic() - began)
            if not self._over():
                self._pieces.append(piece)
                self._changed.notify_all()
        self._held_up += time.monotonic() - began

    def finish(self, check: Check, *, decode: bool) -> None:
        """Let the thread commit and read back."""
        with self._changed:
            self._check = (check, decode)
            self._moved = time.monotonic()  # until now it may have had nothing to do
            self._changed.notify_all()

    def wait_for(self, reached: Callable[[], bool], *, patient: bool) -> None:
        """Wait until the thread has got there, or is over."""
        with self._changed:
            while not (reached() or self._over()):
                self._changed.wait(_TICK)
                if not patient:
                    self._give_up_if_stalled(0.0)

    def off(self) -> None:
        """Tell the thread to stop."""
        with self._changed:
            self._off = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(seconds)

    def undo(self) -> None:
        """Remove the object where it was committed."""
        self.off()
        self.join(ABORT_SECONDS)
        if self.committed:
            with suppress(Failure):
                self._store.delete(self._key)

    def read_back(self, check: Check, *, decode: bool) -> None:
        """Read the object; one that is not what was written is removed."""
        try:
            with self._store.read(self._key) as chunks, closing(check(chunks, decode)) as checked:
                for _ in checked:
                    self._moved = time.monotonic()
                    if self._off:
                        return
        except BaseException as error:
            with suppress(Failure):
                self._store.delete(self._key)
            self._note(error)
            return
        self.decoded = self.decoded or decode

    def _over(self) -> bool:
        return self._off or self.failure is not None or self.ended

    def _give_up_if_stalled(self, held_up: float) -> None:
        still = time.monotonic() - self._moved
        if still < STALL_SECONDS and held_up < HELD_UP_SECONDS:
            return
        why = (
            f"did not go on for {still:.0f} s"
            if still >= STALL_SECONDS
            else f"held the others up for {held_up:.0f} s"
        )
        self.failure = StorageUnavailable(
            f"storage {self._store.name} {why}, and was left out", reason="TooSlow"
        )
        self._off = True

    def _run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self._note(error)
        finally:
            with self._changed:
                self.ended, self._check = True, None  # which holds the whole upload
                self._changed.notify_all()

    def _write(self) -> None:
        writer = self._store.create(self._key)
        try:
            while (piece := self._next()) is not None:
                writer.write(piece)
                self._moved = time.monotonic()
            if self._off or self._check is None:
                return
            writer.commit()
            self._moved = time.monotonic()
        finally:
            writer.abort()
        if self._off:  # it was given up while it committed: nobody will ever name it
            self._store.delete(self._key)
            return
        with self._changed:
            self.committed = True
            self._changed.notify_all()
        self.read_back(self._check[0], decode=self._check[1])

    def _next(self) -> bytes | None:
        """Give the next piece; ``None`` at the end of the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._pieces or self._check is not None or self._off)
            if self._off or not self._pieces:
                return None
            piece = self._pieces.popleft()
            self._moved = time.monotonic()  # what follows is the store's time
            self._changed.notify_all()
            return piece

    def _note(self, error: BaseException) -> None:
        """Keep why it ended; a defect in one store is no reason to stop the others."""
        if self.failure is not None:
            return
        if isinstance(error, Failure):
            self.failure = error
        else:
            self.failure = StorageUnavailable(describe_defect(error), reason="Unexpected")
