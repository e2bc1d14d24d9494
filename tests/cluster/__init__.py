"""A real single-node Kubernetes for tests and the demo, built from upstream's Go modules.

``ensure(name)`` gives a running cluster, whatever state it finds; ``down(name)`` leaves nothing behind but the
cache. Every cluster lives in a network namespace of its own, so that two of them, their iptables rules and
their ports never meet, and that removing the namespace removes it all.
"""

from tests.cluster.lifecycle import Cluster, down, ensure, load_image, status

__all__ = ["Cluster", "down", "ensure", "load_image", "status"]
