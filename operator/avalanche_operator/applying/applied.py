"""Bringing a policy together with its storages and claims. Reads only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import Applied
from avalanche_operator.applying.copies import choose
from avalanche_operator.applying.together import together
from avalanche_operator.jobs.placement import place, seen_identity
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


async def apply_to(policy: Object, around: Surroundings) -> tuple[Applied | None, Verdict | None]:
    """Give what Jobs of a policy are built from, and what stands in the way; with both, building is still right."""
    spec = BackupPolicySpec.model_validate(policy["spec"])
    namespace = policy["metadata"]["namespace"]
    names = [each.storage_ref.name for each in spec.destinations]
    storages = {name: await around.gateway.get("BackupStorage", namespace, name) for name in names}
    chosen = choose(storages, spec.min_copies)
    obstacle = chosen.obstacle
    if not chosen.written:
        return None, obstacle
    first, *others = [
        (str(each["metadata"]["name"]), BackupStorageSpec.model_validate(each["spec"]))
        for each in chosen.written
    ]
    applied = Applied(
        policy,
        spec,
        *first,
        around.settings,
        others=tuple(others),
        copies=chosen.complete,
        unusable=chosen.unusable,
    )
    _, mounts = applied.sources()
    claims = await around.gateway.list("PersistentVolumeClaim", namespace) if mounts.claims else []
    pods = await around.gateway.list("Pod", namespace) if mounts.claims else []
    applied = together(applied, claims, pods)
    _, mounts = applied.sources()
    if not mounts.claims:
        return applied, obstacle
    known = BackupPolicyStatus.model_validate(policy.get("status") or {}).identity
    placement = place(mounts, claims, pods, known=known)
    if isinstance(placement, Verdict):
        return replace(applied, unplaceable=True, identity=known), obstacle or placement
    return replace(applied, placement=placement, identity=seen_identity(mounts, pods) or known), obstacle
