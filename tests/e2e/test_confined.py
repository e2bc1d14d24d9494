"""An operator that is confined to a namespace: it has rights there alone, and they are enough."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.cluster import Cluster
from tests.cluster.layout import PROJECT
from tests.cluster.processes import run
from tests.e2e.kubectl import Kubectl, has_condition
from tests.e2e.scene import Scene

NAME = "confined"
ACCOUNT = f"{NAME}-operator"


def _grant(cluster: Cluster, kubectl: Kubectl) -> None:
    """Apply the chart's rights for this one namespace."""
    rights = run(
        cluster.helm, "template", NAME, PROJECT / "charts/avalanche-backup", f"--namespace={kubectl.namespace}",
        "--show-only=templates/rbac.yaml", f"--set=namespaces={{{kubectl.namespace}}}", "--set=rbac.aggregate=false",
    )  # fmt: skip
    kubectl.run("apply", "--server-side", "--filename=-", stdin=rights)


def _kubeconfig(cluster: Cluster, kubectl: Kubectl, path: Path) -> Path:
    """Write a kubeconfig of the account that was granted them."""
    document = yaml.safe_load(cluster.kubeconfig.read_text())
    token = kubectl.run("create", "token", ACCOUNT, "--duration=10m").strip()
    document["users"] = [{"name": each["name"], "user": {"token": token}} for each in document["users"]]
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def _instead_of_the_installed_one(
    kubectl: Kubectl, kubeconfig: Path, log: Path, image: str
) -> Iterator[None]:
    """Run an operator of this checkout, with that account, while the installed one is away."""
    system = kubectl.within("avalanche-system")
    environment = {
        **os.environ, "KUBECONFIG": str(kubeconfig), "AVALANCHE_NAMESPACES": kubectl.namespace,
        "AVALANCHE_BACKUP_IMAGE": image, "AVALANCHE_LIVENESS": "http://127.0.0.1:0/healthz",
    }  # fmt: skip
    system.run("scale", "deployment", "--all", "--replicas=0")
    try:
        system.run("wait", "pod", "--all", "--for=delete", "--timeout=120s")
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "avalanche_operator"], env=environment, stdout=output, stderr=output
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(timeout=30)
    finally:
        system.run("scale", "deployment", "--all", "--replicas=1")
        kubectl.run("delete", "clusterrole,clusterrolebinding", ACCOUNT)


@pytest.mark.alone
def test_confined_to_a_namespace_its_rights_there_are_enough(
    scene: Scene, cluster: Cluster, tmp_path: Path
) -> None:
    kubectl, log = scene.kubectl, tmp_path / "operator.log"
    (deployment,) = kubectl.within("avalanche-system").list("deployment")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    image = next(each["value"] for each in environment if each["name"] == "AVALANCHE_BACKUP_IMAGE")
    _grant(cluster, kubectl)
    kubeconfig = _kubeconfig(cluster, kubectl, tmp_path / "kubeconfig")
    with _instead_of_the_installed_one(kubectl, kubeconfig, log, image):
        scene.apply_storages()
        kubectl.apply(scene.database_policy())
        kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
        assert scene.back_up("first", "database")["status"]["phase"] == "Succeeded"
    assert "orbidden" not in log.read_text() and "403" not in log.read_text()
