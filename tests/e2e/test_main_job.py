"""A policy becomes verified backups, and they come back."""

from __future__ import annotations

from datetime import datetime

import pytest

from tests.e2e import metrics, objects
from tests.e2e.kubectl import Object, has_condition, in_phase, ticks
from tests.e2e.scene import ENDED, Scene

WRITER = """
import sqlite3
database = sqlite3.connect('/data/observations.sqlite')
database.execute('PRAGMA journal_mode=WAL')
database.execute('CREATE TABLE IF NOT EXISTS observation (id INTEGER PRIMARY KEY, value TEXT)')
database.executemany('INSERT INTO observation (value) VALUES (?)', [(str(n),) for n in range(1000)])
database.commit()
"""
READER = "import sqlite3; print(sqlite3.connect('/data/observations.sqlite').execute('SELECT count(*), sum(length(value)) FROM observation').fetchone())"
HASHES = "cd /data/files && find . -type f -print0 | sort -z | xargs -0 sha256sum"


def test_a_database_is_backed_up_destroyed_and_restored(stage: Scene) -> None:
    before = stage.rows()
    stage.kubectl.apply(stage.database_policy())
    made = stage.back_up("first", "database")
    assert made["status"]["phase"] == "Succeeded" and made["status"]["verification"]["status"] == "Verified"
    complete = datetime.fromisoformat(made["status"]["completionTime"]).timestamp()
    metrics.wait(stage, "last_success_timestamp_seconds", "database", complete)
    stage.psql("DROP TABLE samples; CREATE TABLE rubbish ()")
    assert stage.restore("back", "first")["status"]["phase"] == "Succeeded"
    assert stage.rows() == before


def test_a_swap_that_keeps_the_old_database_is_taken_back_after_another_approval(stage: Scene) -> None:
    before = stage.rows()
    stage.kubectl.apply(stage.database_policy())
    assert stage.back_up("first", "database")["status"]["phase"] == "Succeeded"
    stage.psql("DELETE FROM samples WHERE id > 7; CREATE TABLE since (n int)")
    changed = stage.rows()
    back = stage.restore("back", "first", strategy="Swap", keepPrevious=True)
    assert back["status"]["phase"] == "Succeeded", back["status"]
    assert back["status"]["plan"]["targets"][0]["strategy"] == "Swap"
    assert stage.rows() == before and stage.psql("SELECT to_regclass('since')") == ""
    stage.kubectl.apply(objects.undo("undo", "back"))
    waiting = stage.kubectl.wait("restorerequest", "undo", in_phase("AwaitingApproval", "Failed"))
    assert waiting["status"]["phase"] == "AwaitingApproval", waiting["status"]
    assert stage.rows() == before
    ended = stage.approve("undo")
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    assert stage.rows() == changed and stage.psql("SELECT to_regclass('since')") == "since"


def test_files_and_sqlite_come_back_as_they_were(stage: Scene) -> None:
    stage.shell(
        "mkdir -p '/data/files/sub dir'; printf 1 > /data/files/-odd; printf 2 > '/data/files/sub dir/new\nline'"
    )
    stage.python(WRITER)
    before = stage.shell(HASHES), stage.python(READER)
    sqlite = {"name": "observations", "sqlite": {"claim": {"name": "data"}, "path": "observations.sqlite"}}
    stage.kubectl.apply(
        objects.policy("full", objects.files_source("data", "data", paths=["files"]), sqlite, storage="s3")
    )
    made = stage.back_up("both", "full")
    assert made["status"]["phase"] == "Succeeded" and made["status"]["type"] == "full"
    stage.shell(
        "rm -r /data/files/*; rm -f /data/observations.sqlite*; echo garbage > /data/observations.sqlite"
    )
    assert stage.restore("back", "both")["status"]["phase"] == "Succeeded"
    assert (stage.shell(HASHES), stage.python(READER)) == before


@pytest.mark.slow
def test_a_cron_job_fires_and_its_backup_appears(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy("minutely", schedule="* * * * *"))
    for _ in ticks(150):
        found = [each for each in stage.kubectl.list("backups.avalanche.io") if in_phase(*ENDED)(each)]
        if found:
            break
    status = found[0]["status"]
    assert status["phase"] == "Succeeded", status
    assert status["runIdentity"].startswith("scheduled/") and status["backupID"].endswith("00")


def test_a_plan_that_no_longer_fits_asks_again(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.back_up("first", "database")
    stage.kubectl.apply(objects.restore("late", "first"))
    planned = stage.kubectl.wait("restorerequest", "late", in_phase("AwaitingApproval"))
    stage.psql("CREATE TABLE precious (n int); INSERT INTO precious VALUES (42)")
    old = planned["status"]["plan"]["digest"]
    stage.kubectl.patch("restorerequest", "late", {"spec": {"approvedPlan": old}})
    stage.kubectl.wait(
        "restorerequest", "late", lambda found: found["status"].get("plan", {}).get("digest") != old and in_phase("AwaitingApproval")(found)
    )  # fmt: skip
    assert stage.psql("SELECT n FROM precious") == "42"


def test_dry_run_plans_and_touches_nothing(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.back_up("first", "database")
    stage.psql("DELETE FROM samples WHERE id > 1")
    stage.kubectl.apply(objects.restore("dry", "first", dryRun=True))
    stage.kubectl.wait("restorerequest", "dry", has_condition("Ready", "True", "Planned"))
    assert stage.psql("SELECT count(*) FROM samples") == "1"


def _cron_job(stage: Scene) -> str:
    """Give the name of the CronJob that backs up; another one verifies."""
    (found,) = stage.kubectl.list("cronjob", "avalanche.io/verb=backup")
    return str(found["metadata"]["name"])


def test_drift_in_the_cron_job_is_repaired(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(schedule="H H * * *"))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
    name = _cron_job(stage)
    stage.kubectl.patch("cronjob", name, {"spec": {"schedule": "1 1 1 1 *", "suspend": True}})
    mended = stage.kubectl.wait("cronjob", name, lambda found: not found["spec"]["suspend"], seconds=30)
    assert mended["spec"]["schedule"] == stage.kubectl.get("backuppolicy", "database")["status"]["schedule"]


def test_what_others_added_to_the_cron_job_is_taken_out(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
    name = _cron_job(stage)
    foreign = {"jobTemplate": {"spec": {"ttlSecondsAfterFinished": 0}}}
    stage.kubectl.patch("cronjob", name, {"spec": foreign, "metadata": {"labels": {"team": "genetics"}}})
    mended = stage.kubectl.wait(
        "cronjob", name, lambda found: "ttlSecondsAfterFinished" not in found["spec"]["jobTemplate"]["spec"], seconds=30
    )  # fmt: skip
    assert mended["metadata"]["labels"]["team"] == "genetics"


def test_a_job_that_a_person_creates_from_the_cron_job_is_a_backup_of_its_own(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
    name = _cron_job(stage)
    stage.kubectl.run("create", "job", "by-hand", f"--from=cronjob/{name}")
    uid = stage.kubectl.get("job", "by-hand")["metadata"]["uid"]
    (made,) = _ended_backups(stage, 1)
    assert made["status"]["phase"] == "Succeeded" and made["status"]["runIdentity"] == f"job/{uid}"
    assert made["spec"]["job"] == {"name": "by-hand", "uid": uid}


@pytest.mark.alone
def test_runs_beyond_the_history_limit_while_the_operator_was_away_appear_when_it_returns(
    stage: Scene,
) -> None:
    stage.kubectl.apply(stage.database_policy(successfulJobsHistoryLimit=1))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
    name = _cron_job(stage)
    system, runs = stage.kubectl.within("avalanche-system"), ["run-1", "run-2", "run-3"]
    system.run("scale", "deployment", "--all", "--replicas=0")
    try:
        system.run("wait", "pod", "--all", "--for=delete", "--timeout=120s")
        for each in runs:
            stage.kubectl.run("create", "job", each, f"--from=cronjob/{name}")
            stage.kubectl.run("wait", f"job/{each}", "--for=condition=Complete", "--timeout=120s")
        assert stage.kubectl.list("backups.avalanche.io") == []
    finally:
        system.run("scale", "deployment", "--all", "--replicas=1")
    assert [each["status"]["phase"] for each in _ended_backups(stage, 3)] == ["Succeeded"] * 3
    for _ in ticks(60):
        if len([each for each in stage.kubectl.list("job") if each["metadata"]["name"] in runs]) == 1:
            return
    raise AssertionError("more Jobs stay than the history limit says")


def _ended_backups(stage: Scene, count: int) -> list[Object]:
    """Wait until so many Backups are there and have ended."""
    for _ in ticks(150):
        found = stage.kubectl.list("backups.avalanche.io")
        if len(found) == count and all(in_phase(*ENDED)(each) for each in found):
            return found
    raise AssertionError(f"{len(found)} Backups: {[each.get('status') for each in found]}")


def test_deleting_a_policy_deletes_no_backup(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.back_up("kept", "database")
    stage.kubectl.delete("backuppolicy", "database")
    assert stage.kubectl.get("backups.avalanche.io", "kept")["status"]["phase"] == "Succeeded"
