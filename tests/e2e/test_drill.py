"""Drills by schedule on a real cluster: a throwaway server in a restricted pod, questions, mail, and a pod that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avalanche_contract.names import child_name
from tests.e2e import mailbox, metrics
from tests.e2e.kubectl import Object, condition, has_condition, ticks
from tests.e2e.scene import Scene

BACKUPS = "backups.avalanche.io"
POLICY = "database"
CRON_JOB = child_name(POLICY, "BackupPolicy", "drill")
RIGHT: Object = {"sql": "SELECT count(*) FROM samples", "expect": "2000"}
WRONG: Object = {**RIGHT, "expect": "> 2000"}


def _ready(stage: Scene, drill: Object, **more: Any) -> Object:
    """Apply a policy that drills, and make a backup."""
    policy = stage.database_policy(POLICY, verification={"drill": drill}, **more)
    stage.kubectl.apply(policy)
    stage.kubectl.wait("backuppolicy", POLICY, has_condition("Ready", "True"), what="Ready")
    return stage.back_up("one", POLICY)


def _recorded(stage: Scene, job: str | None = None) -> Object:
    """Wait for a drill that is recorded: that of a Job, else any."""

    def is_there(found: Object) -> bool:
        last = found["status"].get("lastDrill")
        return last is not None and job in (None, last["job"])

    return stage.kubectl.wait("backuppolicy", POLICY, is_there, seconds=240, what="drilled")


def _ask(stage: Scene, *queries: Object) -> None:
    """Change what is asked, and wait until drills ask it; none starts by itself from now on."""
    drill = {"suspend": True, "queries": list(queries)}
    stage.kubectl.patch("backuppolicy", POLICY, {"spec": {"verification": {"drill": drill}}})
    for _ in ticks(60):
        cron_job = stage.kubectl.get("cronjob", CRON_JOB)
        asked = [f'"{each["expect"]}"' in str(cron_job) for each in queries]
        if cron_job["spec"]["suspend"] and all(asked):
            return
    raise AssertionError("the CronJob does not ask what the policy says")


def _drill(stage: Scene, name: str) -> Object:
    stage.kubectl.run("create", "job", name, f"--from=cronjob/{CRON_JOB}")
    return _recorded(stage, name)


@pytest.mark.slow
def test_a_drill_by_schedule_restores_the_newest_backup_and_a_wrong_answer_is_told_once(
    stage: Scene, tmp_path: Path
) -> None:
    mail = mailbox.serve(stage, tmp_path)
    made = _ready(
        stage,
        {"suspend": True, "schedule": "* * * * *", "queries": [RIGHT]},
        notifications=[mail],
        objectives={"recoveryTimeSeconds": 3600},
    )  # a slot before the first backup would have nothing to restore
    stage.kubectl.patch("backuppolicy", POLICY, {"spec": {"verification": {"drill": {"suspend": False}}}})
    policy = _recorded(stage)
    last = policy["status"]["lastDrill"]
    assert (last["result"], last["reason"]) == ("Succeeded", "Drilled"), last
    assert last["backupID"] == made["status"]["backupID"] and last["storage"] == "s3"
    assert "in PostgreSQL 17" in last["message"] and "1 of 1 questions answered" in last["message"]
    assert 0 < last["restoreSeconds"] <= last["durationSeconds"]
    assert condition(policy, "Drilled")["status"] == "True"
    shown = stage.kubectl.get(BACKUPS, "one")
    assert condition(shown, "Drilled")["status"] == "True" and shown["status"]["drill"]["job"] == last["job"]
    met = condition(policy, "ObjectivesMet")
    assert met["status"] == "True" and "the drill of" in met["message"]

    _ask(stage, WRONG)
    for name in ("wrong-1", "wrong-2"):
        failed = _drill(stage, name)
    told = condition(failed, "Drilled")
    assert (told["status"], told["reason"]) == ("False", "AssertionFailed"), told
    assert "gave '2000', and not '> 2000'" in told["message"]
    assert condition(stage.kubectl.get(BACKUPS, "one"), "Drilled")["status"] == "False"
    assert condition(failed, "Ready")["status"] == "True", "a failed drill stops no backup"
    metrics.wait(stage, "last_drill_success", POLICY, 0)

    _ask(stage, RIGHT)
    proven = _drill(stage, "right")
    assert condition(proven, "Drilled")["status"] == "True"
    metrics.wait(stage, "last_drill_success", POLICY, 1)
    took = proven["status"]["lastDrill"]["restoreSeconds"]
    metrics.wait(stage, "last_drill_restore_seconds", POLICY, took)
    assert sorted(mailbox.subjects(stage, 2)) == [
        f"[avalanche] database backup could not be restored in a drill: AssertionFailed ({stage.name}/{POLICY})",
        f"[avalanche] database backup works again ({stage.name}/{POLICY})",
    ]


def test_the_server_of_a_drill_runs_in_a_restricted_pod_without_a_source_and_a_killed_one_is_lost(
    stage: Scene,
) -> None:
    _ready(
        stage,
        {"suspend": True, "queries": [{"sql": "SELECT pg_sleep(3000)", "expect": ""}], "querySeconds": 3600},
    )
    stage.kubectl.run("create", "job", "killed", f"--from=cronjob/{CRON_JOB}")
    pod = _asking(stage, "killed")
    name = pod["metadata"]["name"]
    # nobody is called 65532 here, and the root file system is closed: the server runs all the same
    assert stage.kubectl.run("exec", name, "--", "id", "-u").strip() == "65532"
    assert (
        stage.kubectl.run("exec", name, "--", "sh", "-c", "getent passwd 65532 || echo nobody").strip()
        == "nobody"
    )
    assert stage.kubectl.run("exec", name, "--", "sh", "-c", "touch /here 2>&1 || true").endswith(
        "Read-only file system\n"
    )
    secrets = [
        each["secret"]["name"]
        for volume in pod["spec"]["volumes"]
        for each in volume.get("projected", {}).get("sources", ())
    ]
    assert secrets == ["object-storage"], "what opens the source is not there"
    assert pod["metadata"]["labels"]["avalanche.io/verb"] == "drill"

    stage.kubectl.run("delete", "pod", name, "--grace-period=0", "--force")
    last = _recorded(stage, "killed")["status"]["lastDrill"]
    assert last["result"] == "Lost", last
    assert condition(_recorded(stage), "Drilled")["status"] == "False"
    assert "drill" not in stage.kubectl.get(BACKUPS, "one")["status"], (
        "nothing is proven, and nothing refuted"
    )


def test_what_outgrows_its_folder_is_evicted_and_says_so(stage: Scene) -> None:
    sleepy = {"sql": "SELECT pg_sleep(3000)", "expect": ""}
    scratch = {"sizeLimit": "20Mi"}  # the database has room, and a server beside it has none
    _ready(stage, {"suspend": True, "queries": [sleepy], "querySeconds": 3600, "scratch": scratch})
    last = _drill(stage, "large")["status"]["lastDrill"]
    assert last["result"] == "Lost" and "exceeds the limit" in last["message"], last


def _asking(stage: Scene, job: str) -> Object:
    """Wait until the server of a drill is asked something, and give the pod."""
    for _ in ticks(120):
        selector = f"batch.kubernetes.io/job-name={job}"
        pods = stage.kubectl.list("pods", selector)
        if pods and '"Asking"' in stage.kubectl.logs(selector):
            return pods[0]
    raise AssertionError(f"the drill {job} asks nothing")
