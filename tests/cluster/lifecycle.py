"""Up, down and status: which cluster is taken, in which order, and under one lock a name."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import built, ensure_built, locked
from tests.cluster.layout import (
    NODE_NAME,
    ClusterFailed,
    Layout,
    Network,
    cache_root,
    checked_name,
    first_free,
    state_root,
)
from tests.cluster.node import Node
from tests.cluster.packages import NODE, ensure_packages
from tests.cluster.processes import program, run

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers, and the programs to speak to it."""

    name: str
    kubeconfig: Path
    kubectl: Path
    helm: Path
    node_name: str
    layout: Layout | None
    """Absent for a cluster that is not ours."""


def ensure(name: str = "avalanche", say: Say | None = None) -> Cluster:
    """Give a running cluster: of ``KUBECONFIG``, or one of our own, mended or started or built.

    :raises ClusterFailed: there is none to be had, and why.
    """
    say = say or _say
    named = os.environ.get("KUBECONFIG")
    if named:
        say(f"using the cluster of KUBECONFIG={named}")
        return _foreign(Path(named), say)
    if os.environ.get("CLUSTER") == "kind":
        return _kind(name, say)
    return _own(checked_name(name), say)


def down(name: str = "avalanche", say: Say | None = None) -> None:
    """Stop a cluster of ours, and leave nothing behind but the cache."""
    say = say or _say
    with locked(cache_root() / "clusters.lock"):
        indexes = _indexes()
        if name not in indexes:
            say(f"no cluster {name} is up")
            return
        Node(_layout(name, indexes[name]), built() or Path("/nonexistent")).stop()
        _record({each: index for each, index in indexes.items() if each != name})
        _tidy_up()
    say(f"cluster {name} is down")


def status(name: str = "avalanche") -> dict[str, int | None] | None:
    """Give the pid of every component of a cluster of ours, or ``None`` where there is none."""
    indexes = _indexes()
    binaries = built()
    if name not in indexes or binaries is None:
        return None
    return Node(_layout(name, indexes[name]), binaries).running()


def load_image(cluster: Cluster, archive: Path, *, image: str, digest: str) -> None:
    """Put an image archive into the cluster's nodes, unless the very same is there."""
    if cluster.layout is None:
        _load_into_kind(cluster, archive)
        return
    stamp = cluster.layout.file("images", image.replace("/", "_"))
    node = Node(cluster.layout, built() or Path("/nonexistent"))
    if stamp.exists() and stamp.read_text() == digest and image in node.images():
        return
    node.import_image(archive)
    stamp.write_text(digest)


def _own(name: str, say: Say) -> Cluster:
    if os.geteuid() != 0:
        raise ClusterFailed(
            "a node of our own needs root: run as root, or set KUBECONFIG to a cluster that you have"
        )
    ensure_packages(NODE, say)
    before = built()
    binaries = ensure_built(say)
    with locked(cache_root() / "clusters.lock"):
        indexes = _indexes()
        indexes[name] = first_free(indexes, name)
        _record(indexes)
        layout = _layout(name, indexes[name])
        node = Node(layout, binaries)
        if node.healthy():
            say(f"using the running cluster {name}")
        else:
            say(f"starting cluster {name} from {'the cached' if before else 'the fresh'} build")
            node.start(say)
    return Cluster(name, layout.kubeconfig, binaries / "kubectl", binaries / "helm", NODE_NAME, layout)


def _foreign(kubeconfig: Path, say: Say) -> Cluster:
    kubectl, helm = program("kubectl"), program("helm")
    if kubectl is None or helm is None:
        binaries = ensure_built(say)
        kubectl, helm = kubectl or binaries / "kubectl", helm or binaries / "helm"
    node = run(
        kubectl, f"--kubeconfig={kubeconfig}", "get", "nodes", "--output=jsonpath={.items[0].metadata.name}"
    )
    return Cluster("foreign", kubeconfig, kubectl, helm, node, None)


def _kind(name: str, say: Say) -> Cluster:
    kind = program("kind")
    if kind is None or program("docker") is None:
        raise ClusterFailed("CLUSTER=kind needs kind and docker on the path")
    say(f"using kind, cluster {name}")
    if name not in run(kind, "get", "clusters").split():
        run(kind, "create", "cluster", f"--name={name}")
    kubeconfig = state_root() / f"kind-{name}.kubeconfig"
    kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    kubeconfig.write_text(run(kind, "get", "kubeconfig", f"--name={name}"))
    return _foreign(kubeconfig, say)


def _load_into_kind(cluster: Cluster, archive: Path) -> None:
    kind = program("kind")
    if kind is None or os.environ.get("CLUSTER") != "kind":
        raise ClusterFailed(
            f"the images must be where the nodes of {cluster.kubeconfig} find them: push {archive} to their registry"
        )
    run(kind, "load", "image-archive", archive)


def _layout(name: str, index: int) -> Layout:
    return Layout(name, state_root() / "clusters" / name, Network(index))


def _indexes() -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((state_root() / "clusters.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _record(indexes: dict[str, int]) -> None:
    path = state_root() / "clusters.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(indexes))
    unfinished.rename(path)


def _tidy_up() -> None:
    """Remove the folders of what runs, once nothing does."""
    if _indexes():
        return
    (state_root() / "clusters.json").unlink(missing_ok=True)
    for folder in (state_root() / "clusters", state_root()):
        with suppress(OSError):  # somebody keeps something of his own in it
            folder.rmdir()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
