"""Owners of files, restored by a Job that runs as root: only where the operator allows it, and the namespace admits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e import objects
from tests.e2e.kubectl import Kubectl, in_phase
from tests.e2e.scene import Scene

OWNERS = {"preserve": {"ownership": True}}
LOOK = "cd /data/files && stat -c '%n %u:%g %a' mine"


@contextmanager
def _allowed(kubectl: Kubectl) -> Iterator[None]:
    """Let the installed operator allow it, as the chart's value does."""
    system = kubectl.within("avalanche-system")
    (deployment,) = system.list("deployment")
    named = f"deployment/{deployment['metadata']['name']}"
    try:
        system.run("set", "env", named, "AVALANCHE_ALLOW_OWNERSHIP=true")
        system.run("rollout", "status", named, "--timeout=120s")
        yield
    finally:
        system.run("set", "env", named, "AVALANCHE_ALLOW_OWNERSHIP=false")
        system.run("rollout", "status", named, "--timeout=120s")


@pytest.mark.alone
def test_owners_come_back_where_the_operator_allows_it_and_the_namespace_admits_it(stage: Scene) -> None:
    kubectl = stage.kubectl
    stage.shell("mkdir -p /data/files && echo 1 > /data/files/mine && chmod 640 /data/files/mine")
    before = stage.shell(LOOK)
    kubectl.apply(stage.files_policy())
    assert stage.back_up("first", "files")["status"]["phase"] == "Succeeded"
    stage.shell("rm -r /data/files")

    kubectl.apply(objects.restore("unasked", "first", **OWNERS))
    refused = kubectl.wait("restorerequest", "unasked", in_phase("Failed"), what="refused")
    assert refused["status"]["failureReason"] == "OwnershipNotAllowed"
    assert "restores.allowOwnership: true" in refused["status"]["message"]

    with _allowed(kubectl):
        kubectl.apply(objects.restore("restricted", "first", **OWNERS))
        waiting = kubectl.wait(
            "restorerequest",
            "restricted",
            lambda found: "no pod yet" in found.get("status", {}).get("message", ""),
            what="kept out by Pod Security",
        )
        told = kubectl.run(
            "describe", "job", waiting["status"]["message"].split("describe job ")[1].split("`")[0]
        )
        assert 'violates PodSecurity "restricted' in told and "runAsNonRoot" in told
        kubectl.run(
            "label", "namespace", stage.name, "pod-security.kubernetes.io/enforce=baseline", "--overwrite"
        )
        kubectl.apply(objects.restore("back", "first", **OWNERS))
        back = stage.approve("back")
    assert back["status"]["phase"] == "Succeeded", back["status"]
    assert "set as the backup has them, by root" in back["status"]["plan"]["targets"][0]["action"]
    assert stage.shell(LOOK) == before
