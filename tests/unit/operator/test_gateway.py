"""The gateway in memory keeps the contract that the real one keeps (tests/e2e/test_gateway.py)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from avalanche_operator.kube.gateway import Gateway
from tests.fakes.contract import CONTRACT
from tests.fakes.gateway import FakeGateway
from tests.fakes.world import finished


@pytest.mark.parametrize("sentence", CONTRACT, ids=lambda each: str(each.__name__))
def test_the_gateway_in_memory(sentence: Callable[[Gateway, str], Awaitable[None]]) -> None:
    finished(sentence(FakeGateway(lambda: datetime(2026, 1, 1, tzinfo=UTC)), "contract"))
