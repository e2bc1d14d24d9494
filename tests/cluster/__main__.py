"""The cluster by hand: ``python -m tests.cluster up``."""

from __future__ import annotations

import argparse
import sys

from tests.cluster import images, lifecycle
from tests.cluster.build import ensure_built
from tests.cluster.layout import ClusterFailed


def main() -> int:
    """Run one command, and give 0, 1 for a cluster that is not up, or 2 for one that cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description=sys.modules["tests.cluster"].__doc__
    )
    parser.add_argument(
        "command", choices=["up", "down", "status", "build", "images", "image-contexts", "kubeconfig"]
    )
    parser.add_argument(
        "--name", default="avalanche", help="which cluster; several may be up (default: %(default)s)"
    )
    arguments = parser.parse_args()
    try:
        return _run(arguments.command, arguments.name)
    except ClusterFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2


def _run(command: str, name: str) -> int:
    if command == "up":
        cluster = lifecycle.ensure(name)
        print(f"export KUBECONFIG={cluster.kubeconfig}\nalias kubectl={cluster.kubectl}")
    elif command == "down":
        lifecycle.down(name)
    elif command == "build":
        print(ensure_built(lambda text: print(text, file=sys.stderr)))
    elif command == "kubeconfig":
        print(lifecycle.ensure(name).kubeconfig)
    elif command == "images":
        for image in images.build_product(lambda text: print(text, file=sys.stderr)):
            print(image.name)
    elif command == "image-contexts":
        images.stage_contexts(lambda text: print(text, file=sys.stderr))
    return _status(name) if command == "status" else 0


def _status(name: str) -> int:
    components = lifecycle.status(name)
    if components is None:
        print(f"cluster {name} is not up")
        return 1
    for component, pid in components.items():
        print(f"{component:26} {'pid ' + str(pid) if pid else 'not running'}")
    return 0 if all(components.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
