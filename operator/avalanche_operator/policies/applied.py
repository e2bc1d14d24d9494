"""Bringing a policy together with its storage and claims. Reads only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.placement import place, seen_identity
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.policies.build import Applied
from avalanche_operator.policies.decide import storage_verdict
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


async def apply_to(policy: Object, around: Surroundings) -> tuple[Applied | None, Verdict | None]:
    """Give what Jobs of a policy are built from, and what stands in the way; with both, building is still right."""
    spec = BackupPolicySpec.model_validate(policy["spec"])
    namespace = policy["metadata"]["namespace"]
    storage_name = spec.destinations[0].storage_ref.name
    storage = await around.gateway.get("BackupStorage", namespace, storage_name)
    obstacle = storage_verdict(storage, storage_name)
    if storage is None:
        return None, obstacle
    storage_spec = BackupStorageSpec.model_validate(storage["spec"])
    applied = Applied(policy, spec, storage_name, storage_spec, around.settings)
    _, mounts = applied.sources()
    if not mounts.claims:
        return applied, obstacle
    claims = await around.gateway.list("PersistentVolumeClaim", namespace)
    pods = await around.gateway.list("Pod", namespace)
    known = BackupPolicyStatus.model_validate(policy.get("status") or {}).identity
    placement = place(mounts, claims, pods, known=known)
    if isinstance(placement, Verdict):
        return replace(applied, unplaceable=True, identity=known), obstacle or placement
    return replace(applied, placement=placement, identity=seen_identity(mounts, pods) or known), obstacle
