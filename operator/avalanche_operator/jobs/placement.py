"""Beside whom a pod must run, and as whom: from the claims that it mounts and the pods that use them. Pure.

A ReadWriteOnce claim is attached to one node; who reads an application's files should be the user who wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from avalanche_contract.names import FIELD_MANAGER, LABEL_MANAGED_BY
from avalanche_operator.api.policy import Identity
from avalanche_operator.jobs.build import Placement
from avalanche_operator.jobs.mounts import Mounts
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]


def place(
    mounts: Mounts, claims: Iterable[Object], pods: Iterable[Object], *, known: Identity | None = None
) -> Placement | Verdict:
    """Give the placement for some claims, or why there is none; ``known`` is who used them when last seen."""
    found = {claim["metadata"]["name"]: claim for claim in claims}
    wanted = list(dict.fromkeys(mount.claim for mount in mounts.claims))
    missing = [name for name in wanted if name not in found]
    if missing:
        return Verdict(
            "Ready", "False", "ClaimNotFound", f"PersistentVolumeClaim {missing[0]} does not exist: create it"
        )
    users = _users(wanted, pods)
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
    return _placed(nodes, mounts, users, known)


def seen_identity(mounts: Mounts, pods: Iterable[Object]) -> Identity | None:
    """Give as whom the pods that use the claims run, with the claims that this was seen of.

    It is the first pod that says so, by name, so that the choice is stable.
    """
    wanted = sorted({mount.claim for mount in mounts.claims})
    for pod in sorted(_users(wanted, pods), key=lambda each: str(each["metadata"]["name"])):
        context = pod["spec"].get("securityContext") or {}
        own = next((each.get("securityContext") or {} for each in pod["spec"].get("containers") or ()), {})
        user = own.get("runAsUser", context.get("runAsUser"))
        if user:
            groups = {
                *(context.get("supplementalGroups") or ()),
                *([context["fsGroup"]] if context.get("fsGroup") else ()),
            }
            return Identity(
                claims=tuple(claim for claim in wanted if _uses(pod, [claim])),
                run_as_user=user,
                run_as_group=own.get("runAsGroup", context.get("runAsGroup")) or None,
                supplemental_groups=tuple(sorted(groups))[:64],
            )
    return None


def _placed(nodes: set[str], mounts: Mounts, pods: list[Object], known: Identity | None) -> Placement:
    """Run as the pods do that use the claims; as they did last, where none of them is there to say."""
    who = seen_identity(mounts, pods)
    if who is None and known is not None and {mount.claim for mount in mounts.claims} & set(known.claims):
        who = known
    if who is None:
        return Placement(tuple(sorted(nodes)))
    return Placement(tuple(sorted(nodes)), who.run_as_user, who.run_as_group, who.supplemental_groups)


def _users(wanted: list[str], pods: Iterable[Object]) -> list[Object]:
    return [pod for pod in pods if _uses(pod, wanted) and not _is_ours(pod) and _lives(pod)]


def _uses(pod: Object, claims: list[str]) -> bool:
    volumes = pod["spec"].get("volumes") or ()
    return any(each.get("persistentVolumeClaim", {}).get("claimName") in claims for each in volumes)


def _is_ours(pod: Object) -> bool:
    return (pod["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == FIELD_MANAGER


def _lives(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Pending", "Running", None)
