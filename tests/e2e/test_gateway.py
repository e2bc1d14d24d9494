"""The real gateway keeps the contract that the one in memory keeps (tests/unit/operator/test_gateway.py)."""

from __future__ import annotations

import asyncio

from kubernetes.aio import client, config

from avalanche_operator.kube.gateway import ClusterGateway
from tests.e2e.scene import Scene
from tests.fakes.contract import CONTRACT


def test_the_gateway_to_a_cluster(scene: Scene) -> None:
    async def keep() -> None:
        await config.load_kube_config(str(scene.kubectl.kubeconfig))  # type: ignore[no-untyped-call]
        async with client.ApiClient() as api:
            for sentence in CONTRACT:
                await sentence(ClusterGateway(api), scene.name)

    asyncio.run(keep())
