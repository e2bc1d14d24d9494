"""Two operators at once, as a rolling update or a partition makes them: one is overtaken by the other before one of its writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

from avalanche_operator.app import LOOKS
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.kube.queue import Key
from tests.fakes.world import NAMESPACE, World, finished

WRITING = frozenset({"create", "apply", "replace_spec", "apply_status", "patch", "delete"})


class Overtaken:
    """A gateway before whose write of number ``number`` somebody else does something; later ones are as ever."""

    def __init__(self, gateway: Any, number: int, meanwhile: Callable[[], None]) -> None:
        self._gateway, self._number, self._meanwhile = gateway, number, meanwhile
        self.count, self.overtaken = 0, False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._gateway, name)
        if name not in WRITING:
            return method

        def write(*words: Any, **more: Any) -> Awaitable[Any]:
            self.count += 1
            if self.count == self._number:
                self._meanwhile()
                self.overtaken = True
            return cast("Awaitable[Any]", method(*words, **more))

        return write


def two_operators(world: World, number: int) -> Overtaken:
    """Let a second operator look at everything, twice, before write ``number`` of the first one, which then goes on with what it knew."""
    second = world.around

    def look_at_everything() -> None:
        for _ in range(2):
            for kind, _, name in [key for key in sorted(world.gateway.objects) if key[0] in LOOKS]:
                finished(LOOKS[kind](Key(kind, NAMESPACE, name), second))

    overtaken = Overtaken(world.gateway, number, look_at_everything)
    world.around = replace(second, gateway=cast("Gateway", overtaken))
    return overtaken
