"""What the operator tells Prometheus, scraped through its Service by kubectl."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.installation import NAMESPACE, RELEASE
from tests.e2e.kubectl import ticks
from tests.e2e.scene import Scene

PAGE = f"/api/v1/namespaces/{NAMESPACE}/services/{RELEASE}-metrics:metrics/proxy/metrics"


def wait(stage: Scene, metric: str, policy: str, value: float) -> None:
    """Scrape until a metric of a policy has a value; an answer may be some seconds old.

    :raises AssertionError: it did not get it; the text says what it had.
    """
    last: dict[str, float] = {}
    for _ in ticks(30):
        last = _of(stage, policy)
        if last.get(metric) == value:
            return
    raise AssertionError(f"{metric} of {policy} is not {value} in {last}")


def _of(stage: Scene, policy: str) -> dict[str, float]:
    """Give the metrics of a policy that have no labels besides its name."""
    wanted = {"namespace": stage.name, "policy": policy}
    families = text_string_to_metric_families(stage.kubectl.run("get", "--raw", PAGE))
    return {
        sample.name.removeprefix("avalanche_policy_"): sample.value
        for family in families
        for sample in family.samples
        if sample.labels == wanted
    }
