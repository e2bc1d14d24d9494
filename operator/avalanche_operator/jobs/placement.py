"""Beside whom a pod must run, and as whom: from the claims that it mounts and the pods that use them. Pure.

A ReadWriteOnce claim is attached to one node; who reads an application's files should be the user who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from avalanche_contract.names import FIELD_MANAGER, LABEL_MANAGED_BY
from avalanche_operator.api.policy import Identity
from avalanche_operator.jobs.build import Placement
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]


def place(mounts: Mounts, claims: Iterable[Object], pods: Iterable[Object]) -> Placement | Verdict:
    """Give the placement for some claims, or why there is none."""
    found = {claim["metadata"]["name"]: claim for claim in claims}
    wanted = list(dict.fromkeys(mount.claim for mount in mounts.claims))
    missing = [name for name in wanted if name not in found]
    if missing:
        return Verdict(
            "Ready", "False", "ClaimNotFound", f"PersistentVolumeClaim {missing[0]} does not exist: create it"
        )
    users = [pod for pod in pods if _uses(pod, wanted) and not _is_ours(pod) and _lives(pod)]
    nodes: set[str] = set()
    for name in wanted:
        modes = found[name].get("spec", {}).get("accessModes") or ()
        beside = {
            pod["spec"]["nodeName"] for pod in users if _uses(pod, [name]) and pod["spec"].get("nodeName")
        }
        if beside and "ReadWriteOncePod" in modes:
            return Verdict(
                "Ready",
                "False",
                "ClaimInUse",
                f"claim {name} is ReadWriteOncePod, and a pod uses it: no second pod can",
            )
        if "ReadWriteMany" not in modes and "ReadOnlyMany" not in modes:
            nodes |= beside
    if len(nodes) > 1:
        names = ", ".join(sorted(nodes))
        return Verdict(
            "Ready",
            "False",
            "ClaimsOnTwoNodes",
            f"the claims are in use on {names}: no pod can mount them all; use a policy for each",
        )
    return _identity(users, tuple(sorted(nodes)))


def seen_identity(placement: Placement, mounts: Mounts) -> Identity | None:
    """Give what is worth remembering of a placement: as whom the pods that use the claims run."""
    if placement.run_as_user is None:
        return None
    return Identity(
        claims=_claims(mounts),
        run_as_user=placement.run_as_user,
        run_as_group=placement.run_as_group,
        supplemental_groups=placement.supplemental_groups[:64],
    )


def remembering(placement: Placement, mounts: Mounts, known: Identity | None) -> Placement:
    """Run as the pods did that used these very claims last, where none of them is there to say."""
    if placement.run_as_user is not None or known is None or known.claims != _claims(mounts):
        return placement
    return replace(
        placement,
        run_as_user=known.run_as_user,
        run_as_group=known.run_as_group,
        supplemental_groups=known.supplemental_groups,
    )


def _claims(mounts: Mounts) -> tuple[str, ...]:
    return tuple(sorted({mount.claim for mount in mounts.claims}))


def _identity(users: list[Object], nodes: tuple[str, ...]) -> Placement:
    """Take user and groups from the first pod that uses a claim, by name, so that the choice is stable."""
    for pod in sorted(users, key=lambda each: str(each["metadata"]["name"])):
        context = pod["spec"].get("securityContext") or {}
        own = next((each.get("securityContext") or {} for each in pod["spec"].get("containers") or ()), {})
        user = own.get("runAsUser", context.get("runAsUser"))
        if user:
            groups = {
                *(context.get("supplementalGroups") or ()),
                *([context["fsGroup"]] if context.get("fsGroup") else ()),
            }
            group = own.get("runAsGroup", context.get("runAsGroup")) or None
            return Placement(nodes, user, group, tuple(sorted(groups)))
    return Placement(nodes)


def _uses(pod: Object, claims: list[str]) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    return any(each.get("persistentVolumeClaim", {}).get("claimName") in claims for each in volumes)


def _is_ours(pod: Object) -> bool:
    return (pod["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == FIELD_MANAGER


def _lives(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Pending", "Running", None)
