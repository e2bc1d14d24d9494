"""Steps of a stream in threads of their own, so that reading, hashing, coding and writing happen at the same time.

The work is C code that lets other threads run meanwhile. Between two steps stand a few pieces at most, so that memory does
not grow with the stream.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

WAITING = 4
"""Pieces between two steps; each is a chunk, about a MiB."""
END_SECONDS = 15.0
"""How long the end of a step waits for its thread."""
HANDED_OVER = 256 * 1024
"""Less than that is not worth waking a thread for: small pieces are collected first."""


def ahead(chunks: Iterator[bytes]) -> Generator[bytes]:
    """Give the chunks of an iterator that runs ahead in a thread. Close this where it is not read to its end.

    What the iterator raises is raised here, after all that it gave before. The thread closes the iterator. Once this is
    closed nothing runs any more, but for a read of a store that does not answer: that is left behind.
    """
    handed: queue.Queue[bytes | None] = queue.Queue(WAITING)
    stopped, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            for chunk in chunks:
                handed.put(chunk)
                if stopped.is_set():
                    break
        except BaseException as error:
            failures.append(error)
        finally:
            close(chunks)
            handed.put(None)

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        while (chunk := handed.get()) is not None:
            yield chunk
    finally:
        stopped.set()
        until = time.monotonic() + END_SECONDS
        while thread.is_alive() and time.monotonic() < until:
            with suppress(queue.Empty):  # whoever waits for room goes on, and sees that it is over
                handed.get(timeout=0.01)
    if failures:
        raise failures[0]


def close(chunks: Iterator[bytes]) -> None:
    """Close a generator, unless a thread that was left behind still runs it."""
    if isinstance(chunks, Generator):
        with suppress(ValueError):
            chunks.close()


class Gathered:
    """Passes small pieces on together: each that goes through the pipeline alone costs as much as a large one."""

    def __init__(self, output: Callable[[bytes], None]) -> None:
        self._output = output
        self._held: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._held.append(data if isinstance(data, bytes) else bytes(data))
        self._size += len(data)
        if self._size >= HANDED_OVER:
            self.flush()

    def flush(self) -> None:
        """Pass on what is held."""
        if held := self._held:
            self._held, self._size = [], 0
            self._output(held[0] if len(held) == 1 else b"".join(held))


class Hashing:
    """The SHA-256 of a stream, computed in a thread beside it once there is enough to hash."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._held: list[bytes] = []
        self._size = 0
        self._handed: queue.Queue[list[bytes] | None] | None = None
        self._thread: threading.Thread | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes, waiting while more than a few pieces are to be hashed."""
        self._held.append(data if isinstance(data, bytes) else bytes(data))
        self._size += len(data)
        if self._size >= HANDED_OVER:
            self._hand_over()

    def hexdigest(self) -> str:
        """Give the hash of all that came; nothing comes afterwards."""
        self.close()
        for piece in self._held:
            self._hash.update(piece)
        self._held = []
        return self._hash.hexdigest()

    def close(self) -> None:
        """Let the thread end. Harmless when repeated."""
        if self._handed is not None and self._thread is not None:
            self._handed.put(None)
            self._thread.join()
        self._handed = self._thread = None

    def _hand_over(self) -> None:
        if self._handed is None:
            self._handed = queue.Queue(WAITING)
            self._thread = threading.Thread(target=self._run, args=(self._handed,), name="hash", daemon=True)
            self._thread.start()
        self._handed.put(self._held)
        self._held, self._size = [], 0

    def _run(self, handed: queue.Queue[list[bytes] | None]) -> None:
        while (pieces := handed.get()) is not None:
            for piece in pieces:
                self._hash.update(piece)
