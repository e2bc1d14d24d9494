"""A policy becomes verified backups, and they come back."""

from __future__ import annotations

from tests.e2e import objects
from tests.e2e.kubectl import has_condition, in_phase, ticks
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
    stage.psql("DROP TABLE samples; CREATE TABLE rubbish ()")
    assert stage.restore("back", "first")["status"]["phase"] == "Succeeded"
    assert stage.rows() == before


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


def test_drift_in_the_cron_job_is_repaired(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(schedule="H H * * *"))
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
    name = stage.kubectl.list("cronjob")[0]["metadata"]["name"]
    stage.kubectl.patch("cronjob", name, {"spec": {"schedule": "1 1 1 1 *", "suspend": True}})
    mended = stage.kubectl.wait("cronjob", name, lambda found: not found["spec"]["suspend"], seconds=30)
    assert mended["spec"]["schedule"] == stage.kubectl.get("backuppolicy", "database")["status"]["schedule"]


def test_deleting_a_policy_deletes_no_backup(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    stage.back_up("kept", "database")
    stage.kubectl.delete("backuppolicy", "database")
    assert stage.kubectl.get("backups.avalanche.io", "kept")["status"]["phase"] == "Succeeded"
