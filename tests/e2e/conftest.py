"""Fixtures: one cluster with the product and two services for the whole run, a restricted namespace for each test.

Two workers share the cluster. A test that takes away what others use is marked ``alone``, and runs after them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo import bucket
from tests.cluster import Cluster, ensure, load_image
from tests.cluster.build import locked
from tests.cluster.images import build_example
from tests.cluster.installation import RESTRICTED, install
from tests.e2e import objects
from tests.e2e.kubectl import Kubectl, has_condition
from tests.e2e.scene import BUCKET, PASSWORD, SECRET_KEY, SERVICES, Scene

_NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that mostly wait: others run beside them, and none of them is the last one that all wait for."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a lock of all workers: what they share, one of them brings up while the others wait."""
    return tmp_path_factory.getbasetemp().parent / "e2e.lock"


@pytest.fixture(scope="session")
def cluster(turn: Path) -> Cluster:
    """Give the tests' own cluster, with the product in it; it stays for the next run."""
    with locked(turn):
        found = ensure("avalanche-test", print)
        install(found, print)
    return found


@pytest.fixture(scope="session")
def images(cluster: Cluster, turn: Path) -> dict[str, str]:
    """Give the images of the services, loaded."""
    with locked(turn):
        built = {name: build_example(name, print) for name in ("postgres", "seaweedfs", "tools")}
        for image in built.values():
            load_image(cluster, image.archive, image=image.name, digest=image.key)
    return {name: image.name for name, image in built.items()}


@pytest.fixture(scope="session")
def services(cluster: Cluster, images: dict[str, str], turn: Path) -> Kubectl:
    """Run PostgreSQL and SeaweedFS in a namespace of their own."""
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, SERVICES)
    folder = Path(__file__).parent / "manifests"
    values = {f"{name.upper()}_IMAGE": image for name, image in images.items()}
    with locked(turn):
        kubectl.apply(objects.namespace(SERVICES, RESTRICTED))
        for path in sorted(folder.glob("*.yaml")):
            kubectl.apply_file(path, **values)
    for name in ("postgres", "seaweedfs"):
        kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=120s")
    return kubectl


@pytest.fixture(scope="module")
def bare(cluster: Cluster, worker_id: str) -> Iterator[Kubectl]:
    """Give a namespace with nothing in it to the tests of a module that need no more."""
    with _namespace(cluster, worker_id) as kubectl:
        yield kubectl


@pytest.fixture
def scene(cluster: Cluster, services: Kubectl, images: dict[str, str], worker_id: str) -> Iterator[Scene]:
    """Give a namespace with Secrets, claims, a pod that uses them, a database and storages of this test's own."""
    with _namespace(cluster, worker_id) as kubectl, _scene(kubectl, services, images) as made:
        yield made


@pytest.fixture
def rebuilt(cluster: Cluster, services: Kubectl, images: dict[str, str], worker_id: str) -> Iterator[Scene]:
    """Give another such namespace: it stands for what was built anew after the first one was lost."""
    with _namespace(cluster, worker_id) as kubectl, _scene(kubectl, services, images) as made:
        yield made


@contextmanager
def _namespace(cluster: Cluster, worker: str) -> Iterator[Kubectl]:
    name = f"scene-{worker}-{next(_NUMBERS)}"
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, name)
    kubectl.run("delete", "namespace", name, "--ignore-not-found", "--wait=true", "--timeout=120s")
    kubectl.apply(objects.namespace(name, RESTRICTED))
    yield kubectl
    kubectl.run("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@contextmanager
def _scene(kubectl: Kubectl, services: Kubectl, images: dict[str, str]) -> Iterator[Scene]:
    made = Scene(kubectl, services, images["tools"])
    kubectl.apply(
        objects.secret("database", username="avalanche", password=PASSWORD),
        objects.secret("object-storage", AWS_ACCESS_KEY_ID="tester", AWS_SECRET_ACCESS_KEY=SECRET_KEY),
        objects.claim("data"),
        objects.claim("volume"),
        made.toolbox(),
    )
    made.create_database()
    made.empty_bucket()
    yield made
    made.drop_database()


@pytest.fixture
def stage(scene: Scene) -> Scene:
    """Give a scene whose two storages are known to be usable."""
    scene.apply_storages()
    for name in ("s3", "volume"):
        scene.kubectl.wait("backupstorage", name, has_condition("Ready", "True"), what="Ready")
    _empty(scene)
    return scene


def _empty(scene: Scene) -> None:
    """Take away what an earlier run of the tests left: the bucket outlives the namespace, whose name comes again."""
    with bucket.client_with(scene.services, "tester", SECRET_KEY) as s3:
        for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{scene.name}/").get("Contents", ()):
            s3.delete_object(Bucket=BUCKET, Key=each["Key"])
