"""A result that was lost, and what only the storage knows: no answer is no answer, and never a failure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from avalanche_contract.base import format_time
from avalanche_contract.result import Result, dump_result
from avalanche_operator.jobs.build import nonce_of
from tests.fakes.world import CHECKSUM, NAMESPACE, World
from tests.unit.operator.objects import DATABASE, S3_SPEC, policy_spec

Object = dict[str, Any]
MANUAL: Object = {"policyRef": {"name": "nightly"}, "origin": "Manual"}
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)


def _begin(**more: Any) -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupStorage", "other", {**S3_SPEC, "s3": {"bucket": "other"}})
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, **more))
    world.run(5)
    return world


def _lose(world: World) -> None:
    """Make a backup by hand whose result nobody hears."""
    world.lose_results_of.add("backup")
    world.person("Backup", "by-hand", MANUAL)
    world.run(1)


@pytest.mark.parametrize("answers", ["Failed", "WithoutLog"])
def test_a_storage_that_does_not_answer_is_asked_until_it_does(
    answers: Literal["Failed", "WithoutLog"],
) -> None:
    world = _begin()
    world.catalog_answers = answers
    _lose(world)
    world.run(8)
    waiting = world.status("Backup", "by-hand")
    assert waiting["phase"] == "Pending" and "does not answer yet" in waiting["message"]
    world.catalog_answers = "Whole"
    world.run(60)
    assert world.status("Backup", "by-hand")["phase"] == "Succeeded" and len(world.bucket) == 1


def test_a_storage_object_that_is_away_for_a_moment_changes_no_outcome() -> None:
    world = _begin()
    _lose(world)
    away = world.gateway.objects.pop(("BackupStorage", NAMESPACE, "s3"))
    world.look("Backup", "by-hand")
    world.gateway.objects["BackupStorage", NAMESPACE, "s3"] = away
    world.run(20)
    assert world.status("Backup", "by-hand")["phase"] == "Succeeded"


def test_after_a_day_without_an_answer_a_run_fails_and_says_that_it_is_not_known() -> None:
    world = _begin()
    world.catalog_answers = "Failed"
    _lose(world)
    world.run(3)
    world.time += timedelta(hours=25)
    world.run(4)
    status = world.status("Backup", "by-hand")
    assert status["phase"] == "Failed" and "whether the backup is there is not known" in status["message"]


def test_a_run_that_the_storage_does_not_know_has_failed() -> None:
    world = _begin()
    _lose(world)
    world.bucket.clear()
    world.run(4)
    assert world.status("Backup", "by-hand")["failureReason"] == "ResultLost"


def test_a_backup_lies_where_its_job_wrote_it_whatever_its_policy_says_by_now() -> None:
    world = _begin()
    world.person("Backup", "by-hand", MANUAL)
    world.look("Backup", "by-hand")
    policy = world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    policy["spec"] = {**policy["spec"], "destinations": [{"storageRef": {"name": "other"}}]}
    world.run(4)
    status = world.status("Backup", "by-hand")
    assert (status["phase"], status["storage"], status["copies"][0]["storage"]) == ("Succeeded", "s3", "s3")


def test_a_committed_run_is_found_when_job_and_policy_are_gone() -> None:
    world = _begin()
    world.person("Backup", "by-hand", MANUAL)
    world.look("Backup", "by-hand")
    world.play()
    for key in [key for key in world.gateway.objects if key[0] in ("Job", "Pod", "BackupPolicy")]:
        world.gateway.objects.pop(key, None)
    world.run(6)
    assert world.status("Backup", "by-hand")["phase"] == "Succeeded"


def test_a_job_that_is_gone_is_not_asked_about_while_its_pod_still_runs() -> None:
    world = _begin()
    world.fire("nightly", SLOT)
    world.look("BackupPolicy", "nightly")
    job = world.gateway.objects.pop(
        next(key for key in world.gateway.objects if key[:1] == ("Job",) and "probe" not in str(key))
    )
    pod = _pod(world, job, {"running": {}}, "Running")
    world.run(2)
    assert world.status("Backup", "nightly-20260301020000")["message"].startswith(
        "the Job is gone, and its pod"
    )
    world.gateway.objects.pop(("Pod", NAMESPACE, pod["metadata"]["name"]))
    world.run(4)
    assert world.status("Backup", "nightly-20260301020000")["phase"] == "Failed"


def _pod(world: World, job: Object, state: Object, phase: str) -> Object:
    meta = job["metadata"]
    owner = {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
    return world.gateway.put(
        {
            "apiVersion": "v1", "kind": "Pod", "spec": {},
            "metadata": {"name": f"{meta['name']}-x", "namespace": NAMESPACE, "ownerReferences": [owner],
                         "labels": {"batch.kubernetes.io/job-name": meta["name"]}},
            "status": {"phase": phase, "containerStatuses": [{"name": "backup", "state": state}]},
        }
    )  # fmt: skip


def test_a_job_that_the_policys_cron_job_did_not_start_is_not_believed() -> None:
    world = _begin()
    policy = world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]["metadata"]
    ended = {
        "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": format_time(world.time)}]
    }
    labels = {"avalanche.io/owner-uid": policy["uid"]}
    forged = world.gateway.put({"apiVersion": "batch/v1", "kind": "Job", "spec": {}, "status": ended,
                                "metadata": {"name": "mine", "namespace": NAMESPACE, "labels": labels}})  # fmt: skip
    result = Result(
        nonce=nonce_of(policy["uid"], "cluster"), verb="backup", verdict="Succeeded", reason="Committed", message="",
        backup_id="database_20260301_020000", run_identity="scheduled/x/1", checksum=CHECKSUM,
    )  # fmt: skip
    _pod(world, forged, {"terminated": {"exitCode": 0, "message": dump_result(result)}}, "Succeeded")
    job = {"name": "mine", "uid": forged["metadata"]["uid"]}
    world.person(
        "Backup", "forged", {**MANUAL, "origin": "Scheduled", "job": job, "runIdentity": "scheduled/x/1"}
    )
    world.run(6)
    assert world.status("Backup", "forged")["phase"] == "Failed"


def test_a_request_that_does_not_fit_is_said_of_the_backup_too() -> None:
    world = _begin()
    wide = [
        {
            "name": f"s{n}",
            "files": {"claim": {"name": "data"}, "paths": ["p" * 500 + str(i) for i in range(32)]},
        }
        for n in range(8)
    ]
    policy = world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    policy["spec"] = {**policy["spec"], "sources": wide}
    claim = {"metadata": {"name": "data", "namespace": NAMESPACE}, "spec": {"accessModes": ["ReadWriteMany"]}}
    world.gateway.put({"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim})
    world.person("Backup", "wide", MANUAL)
    world.look("Backup", "wide")
    status = world.status("Backup", "wide")
    assert status["phase"] == "Pending" and "at most 98304 fit" in status["message"]
