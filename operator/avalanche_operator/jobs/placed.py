"""Finding where a pod must run, and as whom, from what is in the namespace now. Reads only."""

from __future__ import annotations

from avalanche_operator.api.policy import Identity
from avalanche_operator.jobs.build import Placement
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.jobs.placement import place
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.kube.gateway import Gateway


async def placed(
    mounts: Mounts, namespace: str, gateway: Gateway, *, known: Identity | None = None
) -> Placement | Verdict:
    """Give the placement for some claims, or why there is none; without claims, nothing is asked."""
    if not mounts.claims:
        return Placement()
    claims = await gateway.list("PersistentVolumeClaim", namespace)
    return place(mounts, claims, await gateway.list("Pod", namespace), known=known)
