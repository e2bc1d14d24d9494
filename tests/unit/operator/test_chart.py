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
