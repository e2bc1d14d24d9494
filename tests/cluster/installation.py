"""The product in a cluster: images built and loaded, the chart installed by Helm, the operator ready."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cluster.images import Image, build_product
from tests.cluster.layout import PROJECT
from tests.cluster.lifecycle import Cluster, load_image
from tests.cluster.processes import run

NAMESPACE = "avalanche-system"
RELEASE = "avalanche-backup"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def load_product(cluster: Cluster, say: Callable[[str], None]) -> dict[str, Image]:
    """Build the product's images and put them into the cluster; give them by name."""
    images = build_product(say)
    for image in images:
        load_image(cluster, image.archive, image=image.name, digest=image.key)
    return {image.name.rpartition("/")[2].partition(":")[0]: image for image in images}


def install(cluster: Cluster, say: Callable[[str], None]) -> None:
    """Install or upgrade; harmless when everything is as it should be."""
    built = load_product(cluster, say)
    kubectl = [str(cluster.kubectl), f"--kubeconfig={cluster.kubeconfig}"]
    document = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": RESTRICTED},
    }
    manifest = cluster.kubeconfig.with_name("namespace.json")
    manifest.write_text(json.dumps(document))
    run(*kubectl, "apply", "--server-side", f"--filename={manifest}")
    operator, backup, drill = (built[f"avalanche-{name}"] for name in ("operator", "backup", "drill"))
    say(f"helm upgrade --install {RELEASE} charts/avalanche-backup --namespace {NAMESPACE}")
    run(
        str(cluster.helm), "upgrade", "--install", RELEASE, str(PROJECT / "charts/avalanche-backup"),
        f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}", "--wait", "--timeout=90s", "--take-ownership", "--force-conflicts",
        f"--set=operator.image={operator.name}", f"--set=backup.image={backup.name}",
        f"--set=drill.image={drill.name}",
        f"--set=operator.podAnnotations.image-key={operator.key}",
    )  # fmt: skip
