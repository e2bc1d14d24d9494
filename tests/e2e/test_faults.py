"""Failed, with a reason, and nothing partial visible: faults of runs and of restores on real parts."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e import objects
from tests.e2e.kubectl import Object, in_phase, ticks
from tests.e2e.scene import ENDED, Scene

BIG = "dd if=/dev/urandom of=/data/big bs=1M count=400 status=none"


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


def _start_big_backup(scene: Scene, name: str, storage: str = "volume") -> str:
    """Begin a backup that takes a while, and give its pod."""
    scene.shell(BIG)
    scene.kubectl.apply(scene.files_policy(storage=storage, backoffLimit=0), objects.backup(name, "files"))
    found = scene.kubectl.wait(
        "backups.avalanche.io", name, lambda each: bool(each.get("status", {}).get("job"))
    )
    return _pod_of(scene, found["status"]["job"])


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
    pod = _start_big_backup(stage, "terminated")
    stage.kubectl.run("delete", "pod", pod, "--wait=false")
    found = stage.kubectl.wait("backups.avalanche.io", "terminated", in_phase(*ENDED), seconds=180)
    _failed(found, "Terminated", "ResultLost")
    assert _metadata(stage) == []


def test_a_pod_killed_by_sigkill_fails(stage: Scene) -> None:
    pod = _start_big_backup(stage, "killed")
    stage.kubectl.run("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    found = stage.kubectl.wait("backups.avalanche.io", "killed", in_phase(*ENDED), seconds=180)
    _failed(found, "Terminated", "ResultLost")
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
    stage.shell(BIG)
    stage.kubectl.apply(stage.files_policy(backoffLimit=2), objects.backup("again", "files"))
    found = stage.kubectl.wait(
        "backups.avalanche.io", "again", lambda each: bool(each.get("status", {}).get("job"))
    )
    stage.kubectl.run(
        "delete", "pod", _pod_of(stage, found["status"]["job"]), "--grace-period=0", "--force", "--wait=false"
    )
    ended = stage.kubectl.wait("backups.avalanche.io", "again", in_phase(*ENDED), seconds=240)
    assert ended["status"]["phase"] == "Succeeded" and len(_metadata(stage)) == 1


def test_storage_gone_mid_upload_fails(stage: Scene) -> None:
    pod = _start_big_backup(stage, "cut", storage="s3")
    stage.services.run("scale", "deployment/seaweedfs", "--replicas=0")
    try:
        stage.kubectl.run("wait", f"pod/{pod}", "--for=jsonpath={.status.phase}=Failed", "--timeout=240s")
    finally:
        stage.services.run("scale", "deployment/seaweedfs", "--replicas=1")
        stage.services.run("rollout", "status", "deployment/seaweedfs", "--timeout=120s")
    found = stage.kubectl.wait("backups.avalanche.io", "cut", in_phase(*ENDED), seconds=240)
    _failed(found, "StorageUnavailable")


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


def test_a_restore_whose_pod_is_killed_is_failed_never_run_twice_and_a_new_one_succeeds(stage: Scene) -> None:
    stage.shell(f"{BIG}; mkdir /data/small; echo 1 > /data/small/file")
    stage.kubectl.apply(stage.files_policy())
    assert stage.back_up("whole", "files")["status"]["phase"] == "Succeeded"
    stage.kubectl.apply(objects.restore("cut", "whole"))
    planned = stage.kubectl.wait("restorerequest", "cut", in_phase("AwaitingApproval"))
    stage.kubectl.patch(
        "restorerequest", "cut", {"spec": {"approvedPlan": planned["status"]["plan"]["digest"]}}
    )
    running = stage.kubectl.wait("restorerequest", "cut", in_phase("Restoring"))
    pod = _pod_of(stage, running["status"]["job"])
    stage.kubectl.run("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")
    ended = stage.kubectl.wait("restorerequest", "cut", in_phase("Succeeded", "Failed"), seconds=120)
    assert ended["status"]["phase"] == "Failed", ended["status"]
    assert stage.restore("second", "whole")["status"]["phase"] == "Succeeded"


def test_a_backup_during_a_restore_of_its_target_is_skipped(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(storage="volume"))
    stage.back_up("before", "database")
    lock = json.dumps({"holder": "a-restore", "expires": "2999-01-01T00:00:00Z"})
    stage.shell(f"echo '{lock}' > /volume/{stage.name}/database/restore-lock.json")
    found = stage.back_up("meanwhile", "database")
    assert found["status"]["phase"] == "Skipped" and found["status"]["failureReason"] == "TargetBeingRestored"


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
