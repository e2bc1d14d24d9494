"""What is watched, what an event leads to, and what the regular look asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import kopf
import pytest

from avalanche_operator.api.generate import crd
from avalanche_operator.api.kinds import KINDS
from avalanche_operator.app import Operator, check_crds, concerned, configure, writes_to
from avalanche_operator.kube.queue import Key
from avalanche_operator.settings import read_settings
from tests.fakes.gateway import FakeGateway
from tests.fakes.world import NAMESPACE, World, finished
from tests.unit.operator.objects import S3_SPEC, found, policy_spec

Object = dict[str, Any]
POLICY = Key("BackupPolicy", "edna", "nightly")


def _backup(phase: str | None) -> Object:
    return found("Backup", "one", {"policyRef": {"name": "nightly"}}, {"phase": phase} if phase else None)


def _cluster(change: Callable[[Object], Object] = lambda body: body) -> FakeGateway:
    gateway = FakeGateway(lambda: datetime(2026, 1, 1, tzinfo=UTC))
    for kind in KINDS:
        gateway.put(change(copy.deepcopy(crd(kind))))
    return gateway


@pytest.mark.parametrize(
    ("phase", "told"), [(None, True), ("Running", False), ("Verifying", False), ("Failed", True)]
)
def test_a_policy_hears_of_new_and_of_ended_runs_and_not_of_their_progress(
    phase: str | None, told: bool
) -> None:
    assert concerned("Backup", _backup(phase)) == ([POLICY] if told else [])
    assert concerned("Backup", _backup(phase), deleted=True) == [POLICY]


def test_a_changed_storage_has_its_policies_looked_at_and_no_others() -> None:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec())
    world.person("BackupPolicy", "other", policy_spec(destinations=[{"storageRef": {"name": "volume"}}]))
    operator = Operator(world.around)
    finished(operator.look(Key("BackupStorage", NAMESPACE, "s3")))
    assert list(operator.queue._due) == [Key("BackupPolicy", NAMESPACE, "nightly")]


def test_a_deleted_storage_has_its_policies_looked_at() -> None:
    world = World()
    policy = world.person("BackupPolicy", "nightly", policy_spec())
    operator = Operator(world.around)
    finished(operator.look(Key("BackupStorage", NAMESPACE, "s3")))
    assert writes_to(policy, "s3") and list(operator.queue._due) == [
        Key("BackupPolicy", NAMESPACE, "nightly")
    ]


def test_the_regular_look_asks_for_what_may_still_change_and_for_no_ended_backup() -> None:
    world = World()
    for name, phase in (("ended", "Succeeded"), ("running", "Running"), ("new", None)):
        body = world.person("Backup", name, {"policyRef": {"name": "nightly"}})
        body["status"] = {"phase": phase} if phase else {}
    operator = Operator(world.around)
    finished(operator.relist())
    assert sorted(key.name for key in operator.queue._due) == ["new", "running"]


def test_the_regular_look_stays_in_the_namespaces_that_it_was_given() -> None:
    world = World()
    for namespace in ("edna", "another", "third"):
        body = found("BackupStorage", "s3", S3_SPEC)
        world.gateway.put({**body, "metadata": {"name": "s3", "namespace": namespace}})
    settings = replace(world.around.settings, namespaces=("edna", "third"))
    operator = Operator(replace(world.around, settings=settings))
    finished(operator.relist())
    assert sorted(key.namespace for key in operator.queue._due) == ["edna", "third"]


def test_namespaces_are_read_from_the_environment() -> None:
    environment = {"AVALANCHE_BACKUP_IMAGE": "backup:1", "AVALANCHE_NAMESPACES": "a, b,,a"}
    assert read_settings(environment, "cluster").namespaces == ("a", "b")
    assert read_settings({"AVALANCHE_BACKUP_IMAGE": "backup:1"}, "cluster").namespaces == ()


@pytest.mark.parametrize(
    ("named", "image"), [({"AVALANCHE_DRILL_IMAGE": "drill:1"}, "drill:1"), ({}, "backup:1")]
)
def test_drills_run_in_their_own_image_or_else_in_that_of_backups(named: dict[str, str], image: str) -> None:
    assert read_settings({"AVALANCHE_BACKUP_IMAGE": "backup:1", **named}, "cluster").drill_image == image


def test_only_our_pods_and_jobs_come_over_the_wire_and_in_bounded_answers() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    pods = kopf.Resource(group="", version="v1", plural="pods", kind="Pod", namespaced=True)
    backups = kopf.Resource(
        group="avalanche.io", version="v1alpha1", plural="backups", kind="Backup", namespaced=True
    )
    assert list(settings.watching.label_selectors.collect(pods)) == [
        "app.kubernetes.io/managed-by=avalanche-operator"
    ]
    assert list(settings.watching.label_selectors.collect(backups)) == []
    assert settings.watching.chunk_size and not settings.scanning.disabled


def test_the_crds_of_this_release_are_known() -> None:
    finished(check_crds(_cluster()))


def test_a_crd_without_a_rule_of_this_release_is_refused() -> None:
    def without_rules(body: Object) -> Object:
        if body["spec"]["names"]["kind"] == "RestoreRequest":
            schema = body["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            schema.pop("x-kubernetes-validations", None)
            schema["properties"]["spec"].pop("x-kubernetes-validations", None)
        return body

    with pytest.raises(kopf.PermanentError, match=r"restorerequests.*older.*the rule"):
        finished(check_crds(_cluster(without_rules)))


def test_a_missing_crd_is_named() -> None:
    with pytest.raises(kopf.PermanentError, match=r"backupstorages.* is missing"):
        finished(check_crds(FakeGateway(lambda: datetime(2026, 1, 1, tzinfo=UTC))))
