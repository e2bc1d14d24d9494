"""Owners and attributes that a restore is asked for: only where the operator allows it, and by a Job that can do just that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kubernetes_validate.utils import validate

from avalanche_contract.request import Run
from avalanche_contract.source import FilesSource, Preserve
from avalanche_operator.applying.build import backup_job
from avalanche_operator.jobs.asked import backup_of, request_of
from avalanche_operator.jobs.build import job
from avalanche_operator.settings import SettingMissing, read_settings
from tests.fakes.world import NAMESPACE, World
from tests.unit.operator.objects import DATABASE, FILES, SQLITE, applied, plan, policy_spec
from tests.unit.operator.test_restore_life import approve, ask, jobs, world

__all__ = ["world"]
Object = dict[str, Any]
IMAGE = {"AVALANCHE_BACKUP_IMAGE": "backup:1"}
OWNERS: Object = {"preserve": {"ownership": True}}
ATTRIBUTES: Object = {"preserve": {"extendedAttributes": True}}


@pytest.fixture
def files(world: World) -> World:
    """The policy of ``first`` backs up files."""
    claim = {"metadata": {"name": "data", "namespace": NAMESPACE}, "spec": {"accessModes": ["ReadWriteMany"]}}
    world.gateway.put({"kind": "PersistentVolumeClaim", **claim})
    world.person("BackupPolicy", "nightly", policy_spec(FILES))
    return world


def allow(world: World) -> World:
    world.around = replace(world.around, settings=replace(world.around.settings, allow_ownership=True))
    return world


def pod(built: Object) -> Object:
    found: Object = built["spec"]["template"]["spec"]
    return found


def users(found: list[Object]) -> set[int]:
    return {pod(each)["securityContext"]["runAsUser"] for each in found}


def test_owners_are_refused_by_an_operator_that_was_not_told_to_allow_it_before_anything_starts(
    files: World,
) -> None:
    ask(files, **OWNERS)
    ready = files.condition("RestoreRequest", "back")
    assert (ready["status"], ready["reason"]) == ("False", "OwnershipNotAllowed")
    assert "restores.allowOwnership: true" in ready["message"]
    assert jobs(files) == []


def test_where_it_is_allowed_the_jobs_of_that_restore_alone_run_as_root(files: World) -> None:
    approve(allow(files), ask(files, **OWNERS))
    files.run(4)
    assert files.status("RestoreRequest", "back")["phase"] == "Succeeded"
    assert len(jobs(files)) == 2 and users(jobs(files)) == {0}
    assert 0 not in users(jobs(files, "backup") + jobs(files, "probe"))


def test_attributes_need_no_root_and_nobodys_leave(files: World) -> None:
    approve(files, ask(files, **ATTRIBUTES))
    files.run(4)
    assert files.status("RestoreRequest", "back")["phase"] == "Succeeded"
    assert 0 not in users(jobs(files))
    asked: Any = request_of(jobs(files)[0])
    assert asked.targets[0].target.preserve == Preserve(extended_attributes=True)


def test_an_undo_runs_as_the_restore_did_which_made_what_it_leads_back(files: World) -> None:
    approve(allow(files), ask(files, keepPrevious=True, **OWNERS))
    files.run(4)
    files.person("RestoreRequest", "undo", {"undo": {"name": "back"}})
    files.run(3)
    assert users(jobs(files, "undo")) == {0}


def test_an_operator_that_allows_it_no_longer_lets_no_approved_restore_go(files: World) -> None:
    digest = ask(allow(files), **OWNERS)
    files.around = replace(files.around, settings=replace(files.around.settings, allow_ownership=False))
    approve(files, digest)
    files.run(4)
    status = files.status("RestoreRequest", "back")
    assert (status["phase"], status["failureReason"]) == ("Failed", "OwnershipNotAllowed")
    assert files.restored == []


@pytest.mark.parametrize("asked", [OWNERS, ATTRIBUTES], ids=["owners", "attributes"])
def test_a_database_has_no_owners_of_files(world: World, asked: Object) -> None:
    ask(allow(world), **asked)
    assert world.status("RestoreRequest", "back")["failureReason"] == "PreserveInvalid"


@pytest.mark.parametrize("other", [DATABASE, SQLITE], ids=["postgresql", "sqlite"])
def test_a_database_is_not_restored_by_root_because_files_beside_it_are(files: World, other: Object) -> None:
    files.person("BackupPolicy", "nightly", policy_spec(FILES, other))
    ask(allow(files), **OWNERS)
    status, ready = files.status("RestoreRequest", "back"), files.condition("RestoreRequest", "back")
    assert status["failureReason"] == "PreserveInvalid" and jobs(files) == []
    assert f"and {other['name']} by a request of its own" in ready["message"]
    assert f"spec.sources: [{FILES['name']}]" in ready["message"]


def test_the_files_beside_a_database_have_their_owners_by_a_request_of_their_own(files: World) -> None:
    files.person("BackupPolicy", "nightly", policy_spec(FILES, SQLITE))
    ask(allow(files), sources=[FILES["name"]], **OWNERS)
    assert users(jobs(files)) == {0}


def test_a_job_that_gives_files_away_can_do_that_and_nothing_else() -> None:
    built = job(plan(owning=True))
    validate(built, "1.34", strict=True)
    assert pod(built)["securityContext"] == {
        "runAsNonRoot": False, "runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod(built)["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID"]},
    }  # fmt: skip


def test_what_a_policy_preserves_reaches_its_backups_and_no_restore_unasked(files: World) -> None:
    source = {
        **FILES,
        "files": {**FILES["files"], "preserve": {"ownership": True, "extendedAttributes": True}},
    }
    policy = applied(source)
    made = backup_of(job(backup_job(policy, policy.policy, "run", Run())))
    held = made.sources[0] if made is not None else None
    assert isinstance(held, FilesSource) and held.preserve == Preserve(
        ownership=True, extended_attributes=True
    )
    files.person("BackupPolicy", "nightly", policy_spec(source))
    ask(files)
    asked: Any = request_of(jobs(files)[0])
    assert asked.targets[0].target.preserve is None


def test_it_is_allowed_in_so_many_words_alone() -> None:
    allowed = [
        read_settings({**IMAGE, "AVALANCHE_ALLOW_OWNERSHIP": value}, "cluster").allow_ownership
        for value in ("", "false", "true")
    ]
    assert allowed == [False, False, True] and not read_settings(IMAGE, "cluster").allow_ownership
    with pytest.raises(SettingMissing, match="AVALANCHE_ALLOW_OWNERSHIP is 'yes': write true or false"):
        read_settings({**IMAGE, "AVALANCHE_ALLOW_OWNERSHIP": "yes"}, "cluster")
