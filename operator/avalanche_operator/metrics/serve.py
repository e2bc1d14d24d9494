"""``/metrics`` over HTTP. Who asks within a few seconds is answered from one listing, so that asking costs the API server little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from avalanche_operator.kube.gateway import ApiError
from avalanche_operator.metrics.build import exposition, told_of
from avalanche_operator.settings import Surroundings

FRESH_SECONDS = 5.0
"""Much less than Prometheus lets pass between two scrapes."""
SHUTDOWN_SECONDS = 2.0
"""A scrape that waits for the API server does not keep the operator from ending."""
EVERYWHERE = "0.0.0.0"  # noqa: S104 - a pod is scraped by its own address
_LOG = structlog.get_logger()


class Scrapes:
    """The answer to a scrape: what the objects say now."""

    def __init__(self, around: Surroundings, clock: Callable[[], float] = time.monotonic) -> None:
        self._around, self._clock = around, clock
        self._text, self._fresh_until = b"", float("-inf")
        self._turn = asyncio.Lock()

    async def text(self) -> bytes:
        """Give the metrics of every policy that is watched.

        :raises ApiError: they could not be listed; there is no answer in part.
        """
        async with self._turn:
            if self._clock() >= self._fresh_until:
                policies = [
                    told_of(found)
                    for namespace in self._around.settings.namespaces or (None,)
                    async for found in self._around.gateway.iterate("BackupPolicy", namespace)
                ]
                self._text = await asyncio.to_thread(exposition, policies)
                self._fresh_until = self._clock() + FRESH_SECONDS
            return self._text


def application(scrapes: Scrapes) -> web.Application:
    """Give the application with its one page."""

    async def metrics(_: web.Request) -> web.Response:
        try:
            body = await scrapes.text()
        except ApiError as error:
            _LOG.warning("a scrape could not list policies", error=str(error)[:500])
            raise web.HTTPServiceUnavailable(text="the API server did not list the policies\n") from None
        answer = web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        answer.enable_compression()
        return answer

    made = web.Application()
    made.router.add_get("/metrics", metrics)
    return made


async def serve(scrapes: Scrapes, port: int) -> web.AppRunner:
    """Listen until the runner is cleaned up.

    :raises OSError: the port is taken.
    """
    runner = web.AppRunner(application(scrapes), access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, EVERYWHERE, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner
