"""Which destinations of a policy one pod can write to at once: a pod runs as one account, on one node. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.build import Applied
from avalanche_operator.jobs.build import IdentitiesDiffer, service_account
from avalanche_operator.jobs.placement import place
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
Storages = tuple[tuple[str, BackupStorageSpec], ...]


def together(applied: Applied, claims: Sequence[Object], pods: Sequence[Object]) -> Applied:
    """Leave out each destination that no pod can write to beside those before it, where ``minCopies`` are left all the same.

    Where too few would be left it stays as it is, and says so as ever.
    """
    needed = applied.min_copies
    if needed is None or _obstacle(applied, applied.storages, claims, pods) is None:
        return applied
    kept: Storages = ()
    left: list[tuple[str, Verdict]] = []
    for each in applied.storages:
        obstacle = _obstacle(applied, (*kept, each), claims, pods)
        if obstacle is None:
            kept = (*kept, each)
        else:
            left.append((each[0], obstacle))
    return _writing_to(applied, kept, _told(applied.copies, left)) if len(kept) >= needed else applied


def _obstacle(
    applied: Applied, storages: Storages, claims: Sequence[Object], pods: Sequence[Object]
) -> Verdict | None:
    """Say why no pod can read the sources and write to some storages at once."""
    _, mounts = _writing_to(applied, storages, None).sources()
    try:
        service_account(mounts)
    except IdentitiesDiffer as differ:
        return Verdict("CopiesComplete", "False", differ.reason, str(differ))
    found = place(mounts, claims, pods) if mounts.claims else None
    return found if isinstance(found, Verdict) else None


def _writing_to(applied: Applied, storages: Storages, copies: Verdict | None) -> Applied:
    (name, spec), *others = storages
    return replace(applied, storage_name=name, storage_spec=spec, others=tuple(others), copies=copies)


def _told(before: Verdict | None, left: Sequence[tuple[str, Verdict]]) -> Verdict:
    """Say which destinations get no copy, and why; what was said before comes first."""
    parts = [f"no copy is made in {name}: {why.message}" for name, why in left]
    if before is not None and before.status == "False":
        return replace(before, message="; ".join([before.message, *parts]))
    return Verdict("CopiesComplete", "False", left[0][1].reason, "; ".join(parts))
