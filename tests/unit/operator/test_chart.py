"""The chart grants the operator what it needs, where it needs it."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.layout import PROJECT, cache_root

Object = dict[str, Any]
CHART = PROJECT / "charts" / "avalanche-backup"
WIDE = {"namespaces", "customresourcedefinitions"}


def _helm() -> Path | None:
    """Give the helm that the cluster's harness built, where it did."""
    return next(iter(sorted(cache_root().glob("cluster-*/helm"))), None)


def _rendered(helm: Path, *values: str, template: str = "rbac") -> list[Object]:
    command = [
        str(helm),
        "template",
        "one",
        str(CHART),
        "--namespace=system",
        f"--show-only=templates/{template}.yaml",
    ]
    ended = subprocess.run([*command, *values], capture_output=True, text=True, check=True)
    return [each for each in yaml.safe_load_all(ended.stdout) if each]


def _resources(roles: list[Object]) -> set[str]:
    return {name for role in roles for rule in role["rules"] for name in rule["resources"]}


def _own(documents: list[Object], kind: str) -> list[Object]:
    return [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == "one-operator"]


def test_confined_to_namespaces_it_has_rights_in_them_alone() -> None:
    helm = _helm()
    if helm is None:
        source = (CHART / "templates" / "rbac.yaml").read_text()
        confined = source.partition("{{- range $namespace")[2].partition("{{- end }}")[0]
        assert (
            "kind: Role\n" in confined and "kind: RoleBinding\n" in confined and "avalanche.rules" in confined
        )
        assert '{{- if not .Values.namespaces }}\n  {{- include "avalanche.rules"' in source
        return
    documents = _rendered(helm, "--set=namespaces={edna,lab}")
    assert _resources(_own(documents, "ClusterRole")) == WIDE
    for kind in ("Role", "RoleBinding"):
        assert [each["metadata"]["namespace"] for each in _own(documents, kind)] == ["edna", "lab"]
    subjects = [each["subjects"][0] for each in _own(documents, "RoleBinding")]
    assert subjects == [{"kind": "ServiceAccount", "name": "one-operator", "namespace": "system"}] * 2


def test_everywhere_and_confined_the_rights_are_the_same() -> None:
    helm = _helm()
    if helm is None:
        assert (CHART / "templates" / "rbac.yaml").read_text().count('include "avalanche.rules"') == 2
        return
    wide, confined = _rendered(helm), _rendered(helm, "--set=namespaces={edna}")
    assert Counter(each["kind"] for each in wide)["Role"] == 0
    everywhere = [rule for rule in _own(wide, "ClusterRole")[0]["rules"] if not WIDE & set(rule["resources"])]
    assert everywhere == _own(confined, "Role")[0]["rules"] != []
    assert "secrets" not in _resources(_own(wide, "ClusterRole")) and "pods/exec" not in _resources(
        _own(wide, "ClusterRole")
    )


@pytest.mark.parametrize(("value", "told"), [(None, "false"), ("true", "true"), ("false", "false")])
def test_a_restore_may_run_as_root_only_where_the_value_says_so(value: str | None, told: str) -> None:
    helm = _helm()
    if helm is None:
        assert yaml.safe_load((CHART / "values.yaml").read_text())["restores"] == {"allowOwnership": False}
        return
    values = [f"--set=restores.allowOwnership={value}"] if value else []
    (deployment,) = _rendered(helm, *values, template="deployment")
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    given = {each["name"]: each["value"] for each in environment}
    assert given["AVALANCHE_ALLOW_OWNERSHIP"] == told


NEWER = ("drill", "restores", "metrics")
"""Values that an earlier release did not have: `helm upgrade --reuse-values` gives nothing for them."""


def test_the_values_of_an_earlier_release_leave_off_what_it_did_not_know() -> None:
    helm = _helm()
    if helm is None:
        source = (CHART / "templates" / "deployment.yaml").read_text()
        assert all(f"(.Values.{each})" in source and f".Values.{each}." not in source for each in NEWER)
        return
    values = [f"--set={each}=null" for each in NEWER]
    container = _container(helm, *values)
    given = {each["name"]: each["value"] for each in container["env"]}
    assert given["AVALANCHE_ALLOW_OWNERSHIP"] == "false"
    assert given["AVALANCHE_DRILL_IMAGE"] == given["AVALANCHE_METRICS_PORT"] == ""
    assert [each["name"] for each in container["ports"]] == ["health"]
    whole = subprocess.run(
        [str(helm), "template", "one", str(CHART), *values], capture_output=True, text=True, check=True
    )
    assert "kind: Deployment" in whole.stdout and "one-metrics" not in whole.stdout


def _metrics(helm: Path, *values: str) -> dict[str, Object]:
    return {each["kind"]: each for each in _rendered(helm, *values, template="metrics")}


def _container(helm: Path, *values: str) -> Object:
    (deployment,) = _rendered(helm, *values, template="deployment")
    container: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def test_metrics_are_served_where_the_service_leads() -> None:
    helm = _helm()
    if helm is None:
        assert yaml.safe_load((CHART / "values.yaml").read_text())["metrics"]["port"] == 8081
        return
    container, service = (
        _container(helm, "--set=metrics.port=9000"),
        _metrics(helm, "--set=metrics.port=9000")["Service"],
    )
    assert {"name": "AVALANCHE_METRICS_PORT", "value": "9000"} in container["env"]
    assert {"name": "metrics", "containerPort": 9000} in container["ports"]
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 9000, "targetPort": "metrics"}]
    (deployment,) = _rendered(helm, template="deployment")
    pod = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= pod.items()
    assert list(_metrics(helm)) == ["Service"], "a cluster need not know the kind PodMonitor"


def test_without_metrics_nothing_listens_for_them() -> None:
    helm = _helm()
    if helm is None:
        assert (
            (CHART / "templates" / "metrics.yaml")
            .read_text()
            .startswith("{{- if (.Values.metrics).enabled }}")
        )
        return
    container = _container(helm, "--set=metrics.enabled=false")
    assert {"name": "AVALANCHE_METRICS_PORT", "value": ""} in container["env"]
    assert [each["name"] for each in container["ports"]] == ["health"]
    with pytest.raises(subprocess.CalledProcessError) as nothing:
        _metrics(helm, "--set=metrics.enabled=false", "--set=metrics.podMonitor.enabled=true")
    assert "could not find template templates/metrics.yaml" in nothing.value.stderr


def test_a_pod_monitor_leaves_policies_their_namespace() -> None:
    helm = _helm()
    if helm is None:
        assert "honorLabels: true" in (CHART / "templates" / "metrics.yaml").read_text()
        return
    values = ("enabled=true", "interval=60s", "labels.release=prometheus")
    monitor = _metrics(helm, *(f"--set=metrics.podMonitor.{each}" for each in values))["PodMonitor"]
    assert monitor["spec"]["podMetricsEndpoints"] == [
        {"port": "metrics", "honorLabels": True, "interval": "60s"}
    ]
    assert monitor["spec"]["selector"]["matchLabels"] == _metrics(helm)["Service"]["spec"]["selector"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_port_of_health_is_no_port_for_metrics() -> None:
    helm = _helm()
    if helm is None:
        schema = yaml.safe_load((CHART / "values.schema.json").read_text())
        assert schema["properties"]["metrics"]["properties"]["port"]["not"] == {"const": 8080}
        return
    with pytest.raises(subprocess.CalledProcessError) as refused:
        _container(helm, "--set=metrics.port=8080")
    assert "/metrics/port" in refused.value.stderr
    with pytest.raises(subprocess.CalledProcessError) as nowhere:  # what --reuse-values makes of enabled=true
        _container(helm, "--set=metrics.port=null")
    assert "missing property 'port'" in nowhere.value.stderr
