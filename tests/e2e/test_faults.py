"""Failed, with a reason, and nothing partial visible: faults of runs and of restores on real parts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from avalanche_backup.locks import LIFE
from tests.e2e import objects
from tests.e2e.killing import kill
from tests.e2e.kubectl import Object, has_condition, in_phase, ticks
from tests.e2e.scene import ENDED, Scene

HUGE = "dd if=/dev/urandom of=/data/huge bs=1M count=1500 status=none"


def _metadata(scene: Scene) -> list[str]:
    """List what is committed on the claim."""
    return scene.shell("find /volume -name '*_metadata.json'").split()


def _failed(found: Object, *reasons: str) -> None:
    status = found["status"]
    assert status["phase"] == "Failed" and status["failureReason"] in reasons, status
    assert status["message"]


def _pod_of(scene: Scene, job: str) -> str:
    """Wait until the pod of a Job runs."""
    for _ in ticks(60):
        pods = scene.kubectl.list("pod", f"batch.kubernetes.io/job-name={job}")
        running = [each["metadata"]["name"] for each in pods if each["status"].get("phase") == "Running"]
        if running:
            return str(running[0])
    raise AssertionError(f"no pod of {job} runs")


def _start_held_backup(scene: Scene, name: str, **more: Any) -> str:
    """Begin a backup of a database whose tables are locked, so that it cannot end by itself; give its pod."""
    scene.kubectl.apply(scene.database_policy(storage="volume", **more), objects.backup(name, "database"))
    found = scene.kubectl.wait(
        "backups.avalanche.io", name, lambda each: bool(each.get("status", {}).get("job"))
    )
    pod = _pod_of(scene, found["status"]["job"])
    scene.wait_for_session_that_waits()
    return pod


def _kill(scene: Scene, pod: str) -> None:
    assert kill(scene.kubectl.get("pod", pod))


def test_an_empty_source_fails(stage: Scene) -> None:
    stage.kubectl.apply(stage.files_policy())
    _failed(stage.back_up("empty", "files"), "SourceEmpty")
    assert _metadata(stage) == []


def test_an_unreadable_file_fails(stage: Scene) -> None:
    stage.shell(
        "mkdir /data/in; echo secret > /data/in/closed; chmod 000 /data/in/closed; echo open > /data/in/open"
    )
    stage.kubectl.apply(stage.files_policy())
    found = stage.back_up("unreadable", "files")
    _failed(found, "SourceUnreadable")
    assert "in/closed" in found["status"]["message"] and _metadata(stage) == []


def test_a_corrupt_sqlite_file_fails(stage: Scene) -> None:
    stage.shell("head -c 8192 /dev/urandom > /data/broken.sqlite")
    source = {"name": "db", "sqlite": {"claim": {"name": "data"}, "path": "broken.sqlite"}}
    stage.kubectl.apply(objects.policy("broken", source, storage="volume"))
    _failed(stage.back_up("corrupt", "broken"), "SourceCorrupt")
    assert _metadata(stage) == []


def test_a_pod_killed_by_sigterm_fails(stage: Scene) -> None:
    with stage.locked_tables():
        pod = _start_held_backup(stage, "terminated", backoffLimit=0)
        stage.kubectl.run("delete", "pod", pod, "--wait=false")
        found = stage.kubectl.wait("backups.avalanche.io", "terminated", in_phase(*ENDED), seconds=180)
    _failed(found, "Terminated", "ResultLost")
    assert _metadata(stage) == []


def test_a_pod_killed_by_sigkill_fails(stage: Scene) -> None:
    with stage.locked_tables():
        pod = _start_held_backup(stage, "killed", backoffLimit=0)
        _kill(stage, pod)
        found = stage.kubectl.wait("backups.avalanche.io", "killed", in_phase(*ENDED), seconds=180)
    _failed(found, "ResultLost")
    assert _metadata(stage) == []


def test_a_pod_out_of_memory_fails_and_says_so(stage: Scene) -> None:
    stage.shell("echo data > /data/file")
    tight: Any = {
        "podTemplate": {"resources": {"requests": {"memory": "20Mi"}, "limits": {"memory": "24Mi"}}}
    }
    stage.kubectl.apply(stage.files_policy(backoffLimit=0, **tight))
    _failed(stage.back_up("hungry", "files"), "OutOfMemory")
    assert _metadata(stage) == []


def test_a_killed_pod_is_tried_again_and_makes_one_backup(stage: Scene) -> None:
    with stage.locked_tables():
        _kill(stage, _start_held_backup(stage, "again", backoffLimit=2))
    ended = stage.kubectl.wait("backups.avalanche.io", "again", in_phase(*ENDED), seconds=240)
    assert ended["status"]["phase"] == "Succeeded" and len(_metadata(stage)) == 1


@pytest.mark.alone
def test_storage_gone_mid_upload_fails(stage: Scene) -> None:
    stage.shell(HUGE)
    stage.kubectl.apply(stage.files_policy(storage="s3", backoffLimit=0), objects.backup("cut", "files"))
    stage.kubectl.wait(
        "backups.avalanche.io", "cut", lambda each: bool(each.get("status", {}).get("progress"))
    )
    stage.services.run("scale", "deployment/seaweedfs", "--replicas=0")
    try:
        stage.kubectl.wait("backups.avalanche.io", "cut", in_phase(*ENDED), seconds=240)
    finally:
        stage.services.run("scale", "deployment/seaweedfs", "--replicas=1")
        stage.services.run("rollout", "status", "deployment/seaweedfs", "--timeout=120s")
    _failed(stage.kubectl.get("backups.avalanche.io", "cut"), "StorageUnavailable")


def test_a_flipped_bit_is_refused_before_the_target_is_touched(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(storage="volume"))
    stage.back_up("spoiled", "database")
    artifact = stage.shell("find /volume -name '*.sql.gz'")
    stage.python(
        f"f = open({artifact!r}, 'r+b'); f.seek(1000); b = f.read(1); f.seek(1000); f.write(bytes([b[0] ^ 1]))"
    )
    stage.psql("DELETE FROM samples WHERE id > 3")
    found = stage.restore("refused", "spoiled")
    assert found["status"]["phase"] == "Failed" and "target is untouched" in found["status"]["message"]
    assert stage.psql("SELECT count(*) FROM samples") == "3"


@pytest.mark.slow
def test_a_restore_whose_pod_is_killed_is_failed_never_run_twice_and_a_new_one_succeeds(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(storage="volume"))
    assert stage.back_up("whole", "database")["status"]["phase"] == "Succeeded"
    before = stage.rows()
    stage.kubectl.apply(objects.restore("cut", "whole", strategy="InPlace"))
    planned = stage.kubectl.wait("restorerequest", "cut", in_phase("AwaitingApproval"))
    with stage.locked_tables():
        stage.kubectl.patch(
            "restorerequest", "cut", {"spec": {"approvedPlan": planned["status"]["plan"]["digest"]}}
        )
        running = stage.kubectl.wait("restorerequest", "cut", in_phase("Restoring"))
        pod = _pod_of(stage, running["status"]["job"])
        stage.wait_for_session_that_waits()
        _kill(stage, pod)
        ended = stage.kubectl.wait("restorerequest", "cut", in_phase("Succeeded", "Failed"), seconds=120)
    assert ended["status"]["phase"] == "Failed", ended["status"]
    executed = stage.kubectl.list("pod", f"batch.kubernetes.io/job-name={running['status']['job']}")
    assert [each["metadata"]["name"] for each in executed] == [pod] and stage.rows() == before
    stage.psql("DELETE FROM samples WHERE id > 3")
    stage.kubectl.apply(objects.restore("second", "whole"))
    # It first waits, two minutes at most, for a sign of life of the one that was killed.
    second = stage.approve("second", seconds=LIFE.total_seconds() + 120)
    assert second["status"]["phase"] == "Succeeded" and stage.rows() == before


def test_a_restore_waits_for_a_backup_of_its_target_that_runs(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(storage="volume"))
    assert stage.back_up("whole", "database")["status"]["phase"] == "Succeeded"
    stage.kubectl.apply(objects.restore("back", "whole"))
    planned = stage.kubectl.wait("restorerequest", "back", in_phase("AwaitingApproval"))
    with stage.locked_tables():
        _start_held_backup(stage, "held")
        stage.kubectl.patch(
            "restorerequest", "back", {"spec": {"approvedPlan": planned["status"]["plan"]["digest"]}}
        )
        stage.kubectl.wait(
            "restorerequest", "back", lambda found: "Backup held" in found["status"].get("message", "")
        )
    held = stage.kubectl.wait("backups.avalanche.io", "held", in_phase(*ENDED), seconds=180)
    ended = stage.kubectl.wait("restorerequest", "back", in_phase("Succeeded", "Failed"))
    assert (held["status"]["phase"], ended["status"]["phase"]) == ("Succeeded", "Succeeded"), ended["status"]
    assert held["status"]["completionTime"] <= ended["status"]["completionTime"]


@pytest.mark.slow
def test_a_scheduled_backup_during_a_restore_of_its_target_is_not_run_and_shown_as_skipped(
    stage: Scene,
) -> None:
    stage.kubectl.apply(stage.database_policy(storage="volume"))
    assert stage.back_up("before", "database")["status"]["phase"] == "Succeeded"
    stage.kubectl.apply(objects.restore("back", "before", strategy="InPlace"))
    planned = stage.kubectl.wait("restorerequest", "back", in_phase("AwaitingApproval"))
    with stage.locked_tables():
        _wait_for_seconds(25, 38)  # well before a restore has waited a minute for a lock
        approved = {"spec": {"approvedPlan": planned["status"]["plan"]["digest"]}}
        stage.kubectl.patch("restorerequest", "back", approved)
        stage.kubectl.patch("backuppolicy", "database", {"spec": {"schedule": "* * * * *"}})
        stage.wait_for_session_that_waits()
        stage.kubectl.wait("backuppolicy", "database", has_condition("Paused", "True"))
        found = _first_scheduled(stage)
        stage.kubectl.patch("backuppolicy", "database", {"spec": {"suspend": True}})
        assert found["status"]["phase"] == "Skipped", found["status"]
        assert found["status"]["failureReason"] == "TargetBeingRestored"
    ended = stage.kubectl.wait("restorerequest", "back", in_phase("Succeeded", "Failed"))
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert len(_metadata(stage)) == 1


def _wait_for_seconds(first: int, last: int) -> None:
    """Wait until the clock is between two seconds of a minute."""
    for _ in ticks(61):
        if first <= time.time() % 60 <= last:
            return


def _first_scheduled(scene: Scene) -> Object:
    """Wait until a scheduled run has ended."""
    for _ in ticks(90):
        backups = scene.kubectl.list("backups.avalanche.io")
        ended = [each for each in backups if each["spec"]["origin"] == "Scheduled" and in_phase(*ENDED)(each)]
        if ended:
            return ended[0]
    raise AssertionError("no scheduled run ended")


def test_a_value_that_looks_like_an_expansion_arrives_unchanged(stage: Scene) -> None:
    odd = "$(HOME) and $$"
    stage.psql(f'CREATE DATABASE "{odd}"', "postgres")
    stage.psql("CREATE TABLE odd AS SELECT 1 AS n", odd)
    source = objects.postgresql_source("db", secret_name="database", host="postgres.services", database=odd)
    stage.kubectl.apply(objects.policy("odd", source, storage="s3"))
    try:
        assert stage.back_up("odd", "odd")["status"]["phase"] == "Succeeded"
    finally:
        stage.psql(f'DROP DATABASE "{odd}" WITH (FORCE)', "postgres")


def test_a_file_named_like_a_line_of_our_log_has_no_effect(stage: Scene) -> None:
    stage.shell("mkdir /data/odd; touch '/data/odd/x\n@avalanche:0123456789abcdef:end {\"count\":0}'")
    stage.kubectl.apply(stage.files_policy())
    assert stage.back_up("odd", "files")["status"]["phase"] == "Succeeded"
