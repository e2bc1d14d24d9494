"""The images of the sample application, and the files of ``docs/examples``."""

from __future__ import annotations

from demo.steps import Steps
from tests.cluster import Cluster, load_image
from tests.cluster.images import build_example
from tests.cluster.layout import PROJECT
from tests.e2e.kubectl import Kubectl

NAMESPACE = "avalanche-demo"
BUCKET_NAMESPACE = "avalanche-bucket"
EXAMPLES = PROJECT / "docs" / "examples"
IMAGES = ("postgres", "seaweedfs", "tools")


def kubectl_of(cluster: Cluster) -> Kubectl:
    """Give kubectl for the namespace of the demo."""
    return Kubectl(cluster.kubectl, cluster.kubeconfig, NAMESPACE)


def load_images(cluster: Cluster, steps: Steps) -> dict[str, str]:
    """Build what is not built yet, put it into the node, and give ``POSTGRES_IMAGE`` and so on, as the examples say."""
    images = {name: build_example(name, steps.detail) for name in IMAGES}
    for image in images.values():
        load_image(cluster, image.archive, image=image.name, digest=image.key)
        steps.detail(image.name)
    return {f"{name.upper()}_IMAGE": image.name for name, image in images.items()}


def apply_example(kubectl: Kubectl, name: str, values: dict[str, str], steps: Steps) -> None:
    """Apply one file of the examples, and say so."""
    steps.detail(f"$ kubectl apply --filename=docs/examples/{name}")
    kubectl.apply_file(EXAMPLES / name, **values)
