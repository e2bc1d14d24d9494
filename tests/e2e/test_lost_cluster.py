"""A cluster is lost: in another namespace, with other names and no policy, the bucket alone brings everything back."""

from __future__ import annotations

from tests.e2e import objects
from tests.e2e.kubectl import has_condition
from tests.e2e.scene import HOST, Scene

BACKUPS = "backups.avalanche.io"


def test_from_the_bucket_alone_database_and_files_come_back_under_other_names(
    stage: Scene, rebuilt: Scene
) -> None:
    stage.shell(
        "mkdir -p /data/results && seq 1 5000 > /data/results/table.csv && ln -s table.csv /data/results/latest"
    )
    sources = (
        objects.postgresql_source("db", secret_name="database", host=HOST, database=stage.name),
        objects.files_source("data", "data"),
    )
    stage.kubectl.apply(objects.policy("everything", *sources, storage="s3"))
    stage.kubectl.wait("backuppolicy", "everything", has_condition("Ready", "True"))
    backup = stage.back_up("last-night", "everything")["status"]
    rows, files = stage.rows(), stage.shell("cd /data && find . -type f -exec sha256sum {} + | sort")
    old = stage.name
    stage.kubectl.run("delete", "namespace", old, "--wait=true", "--timeout=120s")
    stage.drop_database()

    storage = rebuilt.s3()
    storage["spec"] |= {"accessMode": "ReadOnly", "discovery": {"namespace": old}}
    rebuilt.kubectl.apply(storage)
    rebuilt.psql("DROP TABLE samples; SELECT lo_unlink(7)")
    found = rebuilt.kubectl.wait("backupstorage", "s3", has_condition("Synced", "True"), seconds=120)
    [shown] = rebuilt.kubectl.list(BACKUPS)
    assert shown["spec"]["origin"] == "Discovered" and shown["status"]["phase"] == "Succeeded"
    assert shown["status"]["checksum"] == backup["checksum"] and found["status"]["backupCount"] == 1

    wanted = {
        "fromStorage": {"storageRef": {"name": "s3"}, "backupID": backup["backupID"]},
        "target": {"claim": {"name": "data"}},
    }
    request = objects.restore("incomplete", "", **wanted)
    del request["spec"]["backupRef"]
    rebuilt.kubectl.apply(request)
    refused = rebuilt.kubectl.wait(
        "restorerequest", "incomplete", has_condition("Ready", "False", "PolicyNotFound")
    )
    assert "target.postgresql.host, target.postgresql.database" in refused["status"]["message"]

    database = {"host": HOST, "database": rebuilt.name, "credentialsSecretRef": {"name": "database"}}
    request = objects.restore("everything", "", **wanted)
    del request["spec"]["backupRef"]
    request["spec"]["target"]["postgresql"] = database
    rebuilt.kubectl.apply(request)
    assert rebuilt.approve("everything")["status"]["phase"] == "Succeeded"
    assert rebuilt.rows() == rows
    assert rebuilt.shell("cd /data && find . -type f -exec sha256sum {} + | sort") == files
    assert rebuilt.shell("readlink /data/results/latest") == "table.csv"
