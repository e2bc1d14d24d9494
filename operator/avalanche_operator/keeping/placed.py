"""Finding where a pod must run that mounts some storages and nothing else. Reads only."""

from __future__ import annotations

from avalanche_operator.jobs.build import Placement
from avalanche_operator.jobs.placement import place
from avalanche_operator.keeping.build import Storages, mounts_of
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.settings import Surroundings


async def placed(storages: Storages, namespace: str, around: Surroundings) -> Placement | Verdict:
    """Give the placement for the claims of some storages, or why there is none."""
    mounts = mounts_of(storages)
    if not mounts.claims:
        return Placement()
    claims = await around.gateway.list("PersistentVolumeClaim", namespace)
    return place(mounts, claims, await around.gateway.list("Pod", namespace))
