"""Progress that a person can follow: what is being done, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Say = Callable[[str], None]


class DemoFailed(RuntimeError):
    """The demo cannot go on; the text says why."""


@dataclass
class Steps:
    """The steps of one run, timed. ``taken`` has every finished one with its seconds."""

    say: Say
    clock: Callable[[], float] = time.monotonic
    taken: list[tuple[str, float]] = field(default_factory=list)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce a step, and say how long it took."""
        begun = self.clock()
        self.say(f"\n[{minutes(begun - self.started)}] {title}")
        yield
        seconds = self.clock() - begun
        self.taken.append((title, seconds))
        self.say(f"        done in {seconds:.1f} s")

    def detail(self, text: str) -> None:
        """Say something within a step."""
        for line in text.splitlines():
            self.say(f"        {line}")


def minutes(seconds: float) -> str:
    """Give a time as ``1:05``, right-aligned for an hour."""
    return f"{int(seconds) // 60:2}:{int(seconds) % 60:02}"
