"""Mail from a real cluster: by the pod of a run, and by a Job of the operator's where no pod could; each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import mailbox, objects
from tests.e2e.kubectl import Object, has_condition, in_phase
from tests.e2e.mailbox import PASSWORD, subjects
from tests.e2e.scene import ENDED, Scene


@pytest.fixture
def mail(stage: Scene, tmp_path: Path) -> Object:
    """Run a mail server in the toolbox, and give the notification that names it."""
    return mailbox.serve(stage, tmp_path)


def test_a_failed_run_is_mailed_by_its_pod_and_the_first_good_one_after_it(
    stage: Scene, mail: Object
) -> None:
    stage.kubectl.apply(stage.database_policy(notifications=[mail]))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
    stage.psql("DROP TABLE samples; SELECT lo_unlink(7)")
    failed = stage.back_up("failing", "database")
    assert failed["status"]["notification"] == {"event": "Failed", "state": "Sent", "channels": ["operators"]}
    stage.psql("CREATE TABLE samples AS SELECT 1 AS id, 'h' AS hash")
    good = stage.back_up("good", "database")
    assert good["status"]["notification"]["event"] == "Recovered"
    assert subjects(stage, 2) == [
        f"[avalanche] database backup failed: {failed['status']['failureReason']} ({stage.name}/database)",
        f"[avalanche] database backup works again ({stage.name}/database)",
    ]


def test_data_that_collapsed_is_a_suspect_backup_that_is_mailed_and_counts_once_it_is_accepted(
    stage: Scene, mail: Object
) -> None:
    stage.kubectl.apply(stage.database_policy(notifications=[mail], backoffLimit=2))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
    good = stage.run_by_schedule("database", "good")
    before = stage.rows()
    stage.psql("DELETE FROM samples WHERE id > 10")
    odd = stage.run_by_schedule("database", "odd")
    status, name = odd["status"], odd["metadata"]["name"]
    assert (status["phase"], status["failureReason"]) == ("Suspect", "Shrunken")
    assert "bytes of the Plain dump" in status["message"]
    assert status["notification"] == {"event": "Suspect", "state": "Sent", "channels": ["operators"]}
    job = stage.kubectl.get("job", "odd")["status"]
    assert (job["failed"], job.get("succeeded", 0)) == (1, 0)  # the next try would find the same
    stage.kubectl.wait(
        "backuppolicy", "database", has_condition("LastRunSucceeded", "False", "Shrunken"), what="told"
    )
    assert "Shrunken" in stage.kubectl.run("get", "events", "--field-selector", f"involvedObject.name={name}")
    assert subjects(stage, 1) == [f"[avalanche] database backup is suspect: Shrunken ({stage.name}/database)"]

    newest = objects.restore("newest", "", dryRun=True)
    del newest["spec"]["backupRef"]
    stage.kubectl.apply({**newest, "spec": {**newest["spec"], "fromPolicy": {"name": "database"}}})
    planned = stage.kubectl.wait("restorerequest", "newest", in_phase("Planned"), what="planned")
    assert planned["status"]["backup"]["name"] == good["metadata"]["name"] and before != stage.rows()

    stage.kubectl.patch("backups.avalanche.io", name, {"spec": {"acceptAnomaly": True}})
    stage.kubectl.wait(
        "backups.avalanche.io", name, has_condition("Ready", "True", "AnomalyAccepted"), what="accepted"
    )
    stage.kubectl.wait("backuppolicy", "database", has_condition("LastRunSucceeded", "True"), what="good")
    assert stage.run_by_schedule("database", "after")["status"]["phase"] == "Succeeded"


def test_a_pod_that_was_lost_is_mailed_once_by_a_job_of_the_operators(stage: Scene, mail: Object) -> None:
    stage.kubectl.apply(stage.database_policy(notifications=[mail], backoffLimit=0))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
    with stage.locked_tables():
        stage.kubectl.apply(objects.backup("lost", "database"))
        stage.wait_for_session_that_waits()
        running = stage.kubectl.wait("backups.avalanche.io", "lost", in_phase("Running"), what="running")
        pods = stage.kubectl.list("pod", f"batch.kubernetes.io/job-name={running['status']['job']}")
        stage.kubectl.run("delete", "pod", pods[0]["metadata"]["name"], "--force", "--grace-period=0")
    ended = stage.kubectl.wait(
        "backups.avalanche.io", "lost", in_phase(*ENDED), seconds=240, what="at its end"
    )
    assert ended["status"]["phase"] == "Failed"
    told = stage.kubectl.wait(
        "backups.avalanche.io",
        "lost",
        lambda found: found["status"]["notification"]["state"] == "Sent",
        what="told",
    )
    assert told["status"]["notification"]["job"].startswith("ab-lost-")
    reason = ended["status"]["failureReason"]
    assert subjects(stage, 1) == [f"[avalanche] database backup failed: {reason} ({stage.name}/database)"]
    assert PASSWORD not in stage.kubectl.run("get", "jobs,pods,backups.avalanche.io,events", "-o", "yaml")
