"""The life of a RestoreRequest against a cluster in memory: approved once, run once, beside no backup, leaving nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from functools import cache
from typing import Any

import pytest

from avalanche_contract import names
from avalanche_operator.app import concerned
from avalanche_operator.kube.gateway import Refused
from tests.fakes.world import NAMESPACE, World
from tests.unit.operator.objects import DATABASE, FILES, S3_SPEC, SQLITE, policy_spec

Object = dict[str, Any]


@cache
def _begun() -> World:
    made = World()
    made.person("BackupStorage", "s3", S3_SPEC)
    made.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    made.run(4)
    made.person("Backup", "first", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    made.run(3)
    return made


@pytest.fixture
def world() -> World:
    """A policy with a good Backup, ``first``: made once, as every test begins with it."""
    made, begun = World(), _begun()
    made.time, made.bucket = begun.time, dict(begun.bucket)
    made.gateway.pod_logs = dict(begun.gateway.pod_logs)
    for each in deepcopy(list(begun.gateway.objects.values())):
        made.gateway.put(each)
    return made


def ask(world: World, **spec: Any) -> str:
    """Ask for a restore, and give the digest of its plan."""
    world.person("RestoreRequest", "back", {"backupRef": {"name": "first"}, **spec})
    world.run(3)
    digest: str = world.status("RestoreRequest", "back").get("plan", {}).get("digest", "")
    return digest


def approve(world: World, digest: str) -> None:
    request = world.gateway.objects["RestoreRequest", NAMESPACE, "back"]
    world.gateway.put({**request, "spec": {**request["spec"], "approvedPlan": digest}})


def look(world: World, times: int = 1) -> Object:
    """Look at the request alone: no Job runs meanwhile."""
    for _ in range(times):
        world.look("RestoreRequest", "back")
    return world.status("RestoreRequest", "back")


def jobs(world: World, verb: str = "restore", mode: str = "") -> list[Object]:
    every = [each for key, each in world.gateway.objects.items() if key[0] == "Job"]
    own = [each for each in every if each["metadata"]["labels"][names.LABEL_VERB] == verb]
    return [each for each in own if mode in str(each["spec"]["template"]["spec"]["containers"][0]["env"])]


def executing(world: World) -> Object:
    (only,) = jobs(world, mode='"mode":"Execute"')
    return only


def run_pod(world: World, job: Object) -> None:
    """Let a Job's pod run without end."""
    meta = job["metadata"]
    owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    labels = {"batch.kubernetes.io/job-name": meta["name"]}
    metadata = {
        "name": f"{meta['name']}-pod",
        "namespace": NAMESPACE,
        "labels": labels,
        "ownerReferences": [owner],
    }
    world.gateway.put(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
    )  # fmt: skip


def start_backup(world: World, name: str = "second") -> Object:
    """Start a manual Backup whose pod runs; give its Job."""
    world.person("Backup", name, {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.look("Backup", name)
    (job,) = [
        each
        for each in jobs(world, "backup")
        if each["metadata"]["annotations"][names.ANNOTATION_OWNER] == name
    ]
    run_pod(world, job)
    return job


# --- an approval counts once
def test_an_old_approval_is_none_of_a_later_plan_that_looks_the_same(world: World) -> None:
    approve(world, ask(world))
    world.plan_changes_once = True
    world.run(4)
    world.plan_changes_once = False
    world.time += timedelta(hours=25)
    world.run(8)
    assert world.status("RestoreRequest", "back")["phase"] == "AwaitingApproval" and world.restored == []


def test_approving_a_plan_that_has_expired_asks_again_although_nothing_changed(world: World) -> None:
    digest = ask(world)
    world.time += timedelta(hours=25)
    approve(world, digest)
    world.run(8)
    status = world.status("RestoreRequest", "back")
    assert status["phase"] == "AwaitingApproval" and status["plan"]["digest"] != digest
    assert "is not this plan" in status["message"] and world.restored == []


def test_the_new_plan_of_an_execution_that_no_longer_fitted_can_be_approved(world: World) -> None:
    approve(world, ask(world))
    world.plan_changes_once = True
    world.run(4)
    approve(world, world.status("RestoreRequest", "back")["plan"]["digest"])
    world.run(4)
    assert world.status("RestoreRequest", "back")["phase"] == "Succeeded" and len(world.restored) == 1


def test_a_dry_run_plans_and_stays_so_when_its_plan_expires(world: World) -> None:
    ask(world, dryRun=True)
    world.time += timedelta(hours=25)
    world.run(4)
    assert world.condition("RestoreRequest", "back")["reason"] == "Planned" and world.restored == []


# --- it runs once
def test_a_restore_that_somebody_suspends_midway_is_failed_and_never_run_again(world: World) -> None:
    approve(world, ask(world))
    look(world, 2)
    run_pod(world, executing(world))
    executing(world)["spec"]["suspend"] = True  # the Job controller ends the pod, and counts no failure
    status = look(world)
    assert (status["phase"], status["failureReason"]) == ("Failed", "ResultLost")
    assert "not known" in status["message"]
    world.run(4)
    assert world.restored == [] and jobs(world, mode='"mode":"Execute"') == []


def test_another_job_of_the_recorded_name_is_not_believed(world: World) -> None:
    approve(world, ask(world))
    look(world, 1)
    executing(world)["metadata"]["uid"] = "another"
    assert look(world)["failureReason"] == "ResultLost"


def test_the_job_of_another_owner_is_named_and_left_alone(world: World) -> None:
    approve(world, ask(world))
    name = names.child_name(
        "back",
        "RestoreRequest",
        world.gateway.objects["RestoreRequest", NAMESPACE, "back"]["metadata"]["uid"],
        "execute",
        "0",
    )
    world.gateway.put({"kind": "Job", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {}})
    look(world)
    ready = world.condition("RestoreRequest", "back")
    assert (ready["status"], ready["reason"]) == ("False", "NameTaken") and name in ready["message"]


@pytest.mark.parametrize("source", [DATABASE, SQLITE, FILES], ids=lambda source: str(source["name"]))
def test_what_was_planned_is_what_is_let_go_whatever_the_source(world: World, source: Object) -> None:
    for name in ("state", "data", "volume"):
        claim = {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"accessModes": ["ReadWriteOnce"]},
        }
        world.gateway.put({"kind": "PersistentVolumeClaim", **claim})
    world.person("BackupStorage", "s3", {"claim": {"name": "volume", "subPath": "a/b"}})
    world.person("BackupPolicy", "nightly", policy_spec(source))
    approve(world, ask(world))
    assert look(world, 2)["phase"] == "Restoring" and executing(world)["spec"]["suspend"] is False


# --- beside no backup
def test_a_restore_waits_for_a_backup_of_its_target_and_says_for_which(world: World) -> None:
    digest = ask(world)
    backup = start_backup(world)
    approve(world, digest)
    status = look(world, 3)
    assert status["phase"] == "Restoring" and "Backup second" in status["message"]
    assert executing(world)["spec"]["suspend"] is True
    world.look("BackupPolicy", "nightly")
    assert world.condition("BackupPolicy", "nightly", "Paused")["status"] == "True"
    backup["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert "message" not in look(world) and executing(world)["spec"]["suspend"] is False


def test_a_restore_waits_for_a_scheduled_run_by_the_name_of_its_backup(world: World) -> None:
    digest = ask(world)
    world.fire("nightly", world.time.replace(second=0))
    (job,) = [
        each
        for each in jobs(world, "backup")
        if each["metadata"]["labels"][names.LABEL_OWNER_KIND] == "BackupPolicy"
    ]
    run_pod(world, job)
    approve(world, digest)
    assert f"Backup nightly-{world.time:%Y%m%d%H%M}00" in look(world, 3)["message"]


def test_a_backup_that_begins_later_holds_no_restore_up(world: World) -> None:
    """It finds the lock, or that the lock has changed: a policy that runs every minute would starve the restore."""
    digest = ask(world)
    first = start_backup(world)
    approve(world, digest)
    look(world, 2)
    world.time += timedelta(seconds=5)
    start_backup(world, "third")
    first["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    look(world)
    assert executing(world)["spec"]["suspend"] is False


@pytest.mark.parametrize("what", ["its pod does not run", "of another target"])
def test_a_backup_that_reads_nothing_of_the_target_is_not_waited_for(world: World, what: str) -> None:
    digest = ask(world)
    job = start_backup(world)
    if what == "of another target":
        backup = world.gateway.objects["Backup", NAMESPACE, "second"]
        backup["spec"] = {**backup["spec"], "policyRef": {"name": "other"}}
    else:
        del world.gateway.objects["Pod", NAMESPACE, f"{job['metadata']['name']}-pod"]
    approve(world, digest)
    look(world, 2)
    assert executing(world)["spec"]["suspend"] is False


def test_a_policy_that_reads_the_target_only_since_the_job_was_made_needs_another_plan(world: World) -> None:
    approve(world, ask(world))
    look(world)
    world.person("BackupPolicy", "late", policy_spec(DATABASE))
    status = look(world)
    assert status["phase"] == "Pending" and "another plan is made" in status["message"]
    world.run(4)
    assert world.status("RestoreRequest", "back")["phase"] == "AwaitingApproval" and world.restored == []
    assert jobs(world, mode='"mode":"Execute"') == []
    approve(world, world.status("RestoreRequest", "back")["plan"]["digest"])
    world.run(4)
    assert world.status("RestoreRequest", "back")["pausedPolicies"] == ["late", "nightly"]


@pytest.mark.parametrize("wrong", [
    {"sources": [{"name": "db", "oracle": {"host": "db"}}]},
    {"sources": [{"name": "db", "postgresql": {}}]},
    {"compression": {"algorithm": "Brotli"}},
    {"destinations": None},
], ids=["a kind of source", "a source", "a value", "no destinations"])  # fmt: skip
def test_a_policy_whose_spec_cannot_be_read_is_one_that_may_read_the_target(
    world: World, wrong: Object
) -> None:
    """A newer release wrote it, or an older one: no restore fails over a policy of somebody else."""
    digest = ask(world)
    world.person("BackupPolicy", "from-elsewhere", {**policy_spec(FILES), **wrong})
    approve(world, digest)
    assert look(world, 3)["phase"] == "Restoring"
    assert look(world)["pausedPolicies"] == ["from-elsewhere", "nightly"]
    assert ("edna/from-elsewhere/" in str(executing(world))) == ("destinations" not in wrong), "its lock"


def test_the_end_of_a_restore_wakes_the_policies_that_it_paused(world: World) -> None:
    approve(world, ask(world))
    world.run(4)
    ended = world.gateway.objects["RestoreRequest", NAMESPACE, "back"]
    assert ended["status"]["phase"] == "Succeeded"
    assert [each.name for each in concerned("RestoreRequest", ended)] == ["nightly"]
    world.look("BackupPolicy", "nightly")
    assert world.condition("BackupPolicy", "nightly", "Paused") == {}


# --- what Kubernetes refuses is said
def _refuse_jobs(world: World, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    create: Callable[[Object], Any] = world.gateway.create

    async def refuse(body: Object) -> Object | None:
        if body["kind"] == "Job":
            raise Refused(status, "no such thing")
        made: Object | None = await create(body)
        return made

    monkeypatch.setattr(world.gateway, "create", refuse)


@pytest.mark.parametrize(
    ("status", "reason", "stalled"), [(422, "JobInvalid", True), (403, "Forbidden", False)]
)
def test_a_job_that_is_refused_is_said_and_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int, reason: str, stalled: bool
) -> None:
    with monkeypatch.context() as refusing:
        _refuse_jobs(world, refusing, status)
        ask(world)
    ready = world.condition("RestoreRequest", "back")
    assert (ready["status"], ready["reason"]) == ("False", reason) and "no such thing" in ready["message"]
    assert bool(world.condition("RestoreRequest", "back", "Stalled")) is stalled
    world.run(3)
    assert world.status("RestoreRequest", "back")["phase"] == "AwaitingApproval"


def test_a_request_that_no_environment_can_hold_is_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "REQUEST_MAX_BYTES", 100)
    world.person("RestoreRequest", "back", {"backupRef": {"name": "first"}})
    assert look(world)["failureReason"] == "RequestTooLarge"


def test_a_backup_whose_policy_is_gone_says_what_to_do(world: World) -> None:
    del world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    ask(world)
    status = world.status("RestoreRequest", "back")
    assert status["failureReason"] == "PolicyNotFound" and "apply it again" in status["message"]


# --- nothing is left behind
def _left(world: World) -> list[Object]:
    """Give the Jobs of restores that stay for ever."""
    return [each for each in jobs(world) if "ttlSecondsAfterFinished" not in each["spec"]]


def test_a_plan_job_goes_by_itself(world: World) -> None:
    ask(world)
    assert len(jobs(world)) == 1 and _left(world) == []


def test_the_jobs_of_a_request_are_let_go_also_those_that_were_refused(world: World) -> None:
    approve(world, ask(world))
    world.plan_changes_once = True
    world.run(4)
    assert len(jobs(world)) == 2 and _left(world) == []
    approve(world, world.status("RestoreRequest", "back")["plan"]["digest"])
    world.run(4)
    assert len(jobs(world)) == 3 and _left(world) == []


def _delete(world: World) -> None:
    del world.gateway.objects["RestoreRequest", NAMESPACE, "back"]


def test_the_suspended_job_of_a_deleted_request_is_deleted(world: World) -> None:
    approve(world, ask(world))
    look(world)
    _delete(world)
    world.look("RestoreRequest", "back")
    assert jobs(world, mode='"mode":"Execute"') == []


def test_the_running_job_of_a_deleted_request_runs_to_its_end_and_is_let_go(world: World) -> None:
    approve(world, ask(world))
    look(world, 2)
    _delete(world)
    world.look("RestoreRequest", "back")
    assert "ttlSecondsAfterFinished" not in executing(world)["spec"]
    world.play()
    world.look("RestoreRequest", "back")
    assert len(world.restored) == 1 and _left(world) == []


def test_the_suspended_job_of_a_request_that_failed_is_deleted(world: World) -> None:
    approve(world, ask(world))
    look(world)
    del world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    assert look(world, 2)["failureReason"] == "PolicyNotFound"
    assert jobs(world, mode='"mode":"Execute"') == [] and world.restored == []


def test_nobody_elses_job_is_let_go(world: World) -> None:
    approve(world, ask(world))
    look(world)
    world.look("RestoreRequest", "gone")
    assert executing(world)["spec"]["suspend"] is True
