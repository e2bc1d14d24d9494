"""A pod runs beside those that use its claims, and as they do."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_operator.jobs.build import Placement
from avalanche_operator.jobs.mounts import ClaimMount, Mounts
from avalanche_operator.jobs.placement import place, seen_identity
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
MOUNTS = Mounts(claims=(ClaimMount("data", "/a", read_only=True), ClaimMount("state", "/b", read_only=False)))


def _claim(name: str, mode: str = "ReadWriteOnce") -> Object:
    return {"metadata": {"name": name}, "spec": {"accessModes": [mode]}}


def _pod(
    claim: str, node: str = "node-a", *, phase: str = "Running", labels: Object | None = None, **context: Any
) -> Object:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    spec = {
        "nodeName": node,
        "volumes": volumes,
        "securityContext": context,
        "containers": [{"name": "main"}],
    }
    return {
        "metadata": {"name": f"{claim}-{node}", "labels": labels or {}},
        "spec": spec,
        "status": {"phase": phase},
    }


def _reason(*pods: Object, claims: tuple[Object, ...] = (_claim("data"), _claim("state"))) -> str:
    found = place(MOUNTS, claims, pods)
    assert isinstance(found, Verdict)
    return found.reason


def test_it_goes_where_a_claim_is_attached_and_takes_that_users_identity() -> None:
    pods = [_pod("data", runAsUser=1000, runAsGroup=1001, fsGroup=1002, supplementalGroups=[1003])]
    found = place(MOUNTS, [_claim("data"), _claim("state")], pods)
    assert found == Placement(("node-a",), 1000, 1001, (1002, 1003))


def test_a_claim_that_nobody_uses_binds_to_no_node() -> None:
    assert place(MOUNTS, [_claim("data"), _claim("state")], []) == Placement()


def test_a_claim_for_many_binds_to_no_node() -> None:
    many = [_claim("data", "ReadWriteMany"), _claim("state", "ReadWriteMany")]
    assert place(MOUNTS, many, [_pod("data"), _pod("state", "node-b")]) == Placement()


@pytest.mark.parametrize("pod", [
    _pod("data", labels={"app.kubernetes.io/managed-by": "avalanche-operator"}),
    _pod("data", phase="Succeeded"),
    _pod("another"),
], ids=["ours", "ended", "of another claim"])  # fmt: skip
def test_a_pod_that_does_not_hold_the_claim_is_nothing_to_go_by(pod: Object) -> None:
    assert place(MOUNTS, [_claim("data"), _claim("state")], [pod]) == Placement()


def test_claims_on_two_nodes_cannot_be_backed_up_together() -> None:
    assert _reason(_pod("data"), _pod("state", "node-b")) == "ClaimsOnTwoNodes"


def test_a_missing_claim_is_named() -> None:
    assert _reason(claims=(_claim("data"),)) == "ClaimNotFound"


def test_a_claim_for_one_pod_that_a_pod_uses_is_refused() -> None:
    assert _reason(_pod("data"), claims=(_claim("data", "ReadWriteOncePod"), _claim("state"))) == "ClaimInUse"


def test_a_run_is_who_the_application_was_while_it_is_scaled_to_zero() -> None:
    claims, both = [_claim("data"), _claim("state")], [_pod("state"), _pod("data", runAsUser=1000, fsGroup=7)]
    known = seen_identity(MOUNTS, both)
    assert known is not None and known.claims == ("data",)
    assert place(MOUNTS, claims, [], known=known) == Placement((), 1000, None, (7,))
    again = place(MOUNTS, claims, [_pod("data", runAsUser=2000)], known=known)
    assert isinstance(again, Placement) and again.run_as_user == 2000


def test_who_used_one_claim_is_nobody_to_another() -> None:
    known = seen_identity(MOUNTS, [_pod("data", runAsUser=1000)])
    other = Mounts(claims=(ClaimMount("state", "/b", read_only=True),))
    assert place(other, [_claim("state")], [], known=known) == Placement()
    assert seen_identity(MOUNTS, [_pod("data")]) is None
