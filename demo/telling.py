"""What the chapters share: the cluster, what was there before, and what was compared and timed so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from demo.comparison import Comparison
from demo.steps import Steps
from tests.cluster import Cluster
from tests.e2e.kubectl import Kubectl

POLICIES = ("database", "files", "full", "observations")
RESTORED = ("database", "files", "observations")
Fingerprint = dict[str, str]


@dataclass
class Demo:
    """One run of the demo: what later chapters need of earlier ones."""

    cluster: Cluster
    kubectl: Kubectl
    scale: float
    steps: Steps
    begun: datetime
    before: dict[str, Fingerprint] = field(default_factory=dict)
    comparisons: list[Comparison] = field(default_factory=list)
    taken: list[tuple[str, float]] = field(default_factory=list)
    last_observation: str = ""

    @property
    def values(self) -> dict[str, str]:
        """What stands for ``${RUN}`` in the examples: a second demo makes objects of its own."""
        return {"RUN": f"{self.begun:%m%d-%H%M%S}"}

    def object_name(self, what: str) -> str:
        """Give the name of a manual Backup, or of a RestoreRequest."""
        return f"demo-{what}-{self.values['RUN']}"
