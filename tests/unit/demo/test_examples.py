"""Every manifest of docs/examples is what it should be before a cluster sees it."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from demo.examples import BUCKET_NAMESPACE, EXAMPLES, NAMESPACE
from tests.cluster.layout import PROJECT

VALUES = {
    "RUN": "1122-020000",
    "BACKUP_ID": "full_20241122_020000",
    "SCRIPTS": "0" * 16,
    "POSTGRES_IMAGE": "p:1",
    "SEAWEEDFS_IMAGE": "s:1",
    "TOOLS_IMAGE": "t:1",
}
FILES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
Object = dict[str, Any]


def _text(name: str) -> str:
    text = (EXAMPLES / name).read_text()
    for key, value in VALUES.items():
        text = text.replace(f"${{{key}}}", value)
    return text


def _objects(name: str) -> list[Object]:
    return list(yaml.safe_load_all(_text(name)))


OBJECTS = [each for name in FILES for each in _objects(name)]
CUSTOM = [each for each in OBJECTS if each["apiVersion"] == "avalanche.io/v1alpha1"]
PODS = [each["spec"]["template"]["spec"] for each in OBJECTS if each["kind"] == "Deployment"]


@cache
def _schemas() -> dict[str, Object]:
    """Read the CRDs once: YAML is slow to read."""
    found = [
        yaml.load(path.read_text(), yaml.CSafeLoader)["spec"] for path in (PROJECT / "crds").glob("*.yaml")
    ]
    return {each["names"]["kind"]: each["versions"][0]["schema"]["openAPIV3Schema"] for each in found}


def _schema(kind: str) -> Object:
    return _schemas()[kind]


def _unknown(value: Any, schema: Object, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _unknown(each, schema["items"], path)
    elif isinstance(value, dict) and "properties" in schema:
        for key, each in value.items():
            yield from _unknown(each, schema["properties"].get(key, {"missing": True}), f"{path}.{key}")
    elif schema.get("missing"):
        yield path


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_left_to_be_filled_in(name: str) -> None:
    lines = [line for line in _text(name).splitlines() if not line.startswith("#")]
    assert "${" not in "\n".join(lines)


def test_all_of_it_lives_in_the_demos_namespace_and_the_bucket_in_one_that_outlives_it() -> None:
    assert {each["metadata"].get("namespace", NAMESPACE) for each in OBJECTS} == {NAMESPACE, BUCKET_NAMESPACE}
    made = [each["metadata"]["name"] for each in OBJECTS if each["kind"] == "Namespace"]
    assert made == [NAMESPACE, BUCKET_NAMESPACE]
    assert not [each for each in CUSTOM if each["metadata"]["namespace"] != NAMESPACE]


@pytest.mark.parametrize("each", CUSTOM, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_our_kinds_use_only_fields_that_exist(each: Object) -> None:
    assert list(_unknown(each["spec"], _schema(each["kind"])["properties"]["spec"], "spec")) == []


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod["containers"][0]["name"])
def test_every_pod_meets_pod_security_restricted(pod: Object) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_everything_that_is_named_is_there() -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in OBJECTS}
    wanted = set()
    for policy in (each["spec"] for each in CUSTOM if each["kind"] == "BackupPolicy"):
        wanted |= {("BackupStorage", each["storageRef"]["name"]) for each in policy["destinations"]}
        for source in policy["sources"]:
            for kind in ("sqlite", "files"):
                wanted |= (
                    {("PersistentVolumeClaim", source[kind]["claim"]["name"])} if kind in source else set()
                )
    wanted |= {
        ("BackupPolicy", each["spec"]["policyRef"]["name"]) for each in CUSTOM if each["kind"] == "Backup"
    }
    assert wanted <= there


def test_the_standard_schedules_are_there_and_one_fires_every_minute() -> None:
    schedules = {
        each["metadata"]["name"]: each["spec"]["schedule"]
        for each in CUSTOM
        if each["kind"] == "BackupPolicy"
    }
    assert schedules == {
        "database": "0 2 * * *",
        "files": "0 3 * * 0",
        "full": "0 4 1 * *",
        "observations": "* * * * *",
    }


def test_no_restore_is_approved_from_the_start() -> None:
    requests = [each["spec"] for each in CUSTOM if each["kind"] == "RestoreRequest"]
    assert requests
    assert not any("approvedPlan" in spec for spec in requests)
