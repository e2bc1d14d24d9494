"""Accepted but not Ready, with a reason and a sentence; and recovering by itself once mended."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import objects
from tests.e2e.kubectl import Object, condition, has_condition
from tests.e2e.scene import BUCKET, HOST, PASSWORD, SECRET_KEY, Scene
from tests.integration.sources import future_server


def _not_ready(scene: Scene, kind: str, name: str, reason: str) -> Object:
    found = scene.kubectl.wait(
        kind, name, has_condition("Ready", "False", reason), what=f"not Ready for {reason}"
    )
    assert condition(found, "Ready")["message"]
    return found


def _ready(scene: Scene, kind: str, name: str) -> None:
    scene.kubectl.wait(kind, name, has_condition("Ready", "True"), seconds=150, what="Ready again")


def test_an_unknown_time_zone(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(timeZone="Europe/Atlantis"))
    found = _not_ready(stage, "backuppolicy", "database", "InvalidTimeZone")
    assert condition(found, "Stalled")["status"] == "True"
    stage.kubectl.apply(stage.database_policy(timeZone="Europe/Berlin"))
    _ready(stage, "backuppolicy", "database")


def test_what_kubernetes_refuses_of_a_policy(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy(podTemplate={"labels": {"no such key": "x"}}))
    found = _not_ready(stage, "backuppolicy", "database", "InvalidSpec")
    assert "no such key" in condition(found, "Ready")["message"]
    assert condition(found, "Stalled")["status"] == "True"
    stage.kubectl.apply(stage.database_policy(podTemplate={"labels": {"team": "genetics"}}))
    _ready(stage, "backuppolicy", "database")


def test_a_missing_secret_and_a_missing_key(scene: Scene) -> None:
    scene.kubectl.apply(scene.s3(secret_name="later"))
    found = _not_ready(scene, "backupstorage", "s3", "CredentialsMissing")
    assert 'Secret "later"' in condition(found, "Ready")["message"]
    scene.kubectl.apply(objects.secret("later", AWS_ACCESS_KEY_ID="tester"))
    scene.kubectl.wait(
        "backupstorage",
        "s3",
        lambda found: "AWS_SECRET_ACCESS_KEY" in condition(found, "Ready").get("message", ""),
    )
    scene.kubectl.apply(objects.secret("later", AWS_ACCESS_KEY_ID="tester", AWS_SECRET_ACCESS_KEY=SECRET_KEY))
    _ready(scene, "backupstorage", "s3")


def test_a_missing_claim(scene: Scene) -> None:
    scene.kubectl.apply(objects.claim_storage("volume", "later"))
    _not_ready(scene, "backupstorage", "volume", "ClaimNotFound")
    scene.kubectl.apply(objects.claim("later"))
    _ready(scene, "backupstorage", "volume")


def test_a_wrong_password(stage: Scene) -> None:
    stage.kubectl.apply(
        objects.secret("database", username="avalanche", password="wrong"), stage.database_policy()
    )
    found = _not_ready(stage, "backuppolicy", "database", "AuthenticationFailed")
    assert "wrong" not in condition(found, "Ready")["message"]
    stage.kubectl.apply(objects.secret("database", username="avalanche", password=PASSWORD))
    _ready(stage, "backuppolicy", "database")


def test_a_wrong_bucket_and_an_unreachable_one(scene: Scene) -> None:
    scene.kubectl.apply(scene.s3(bucket="no-such-bucket"))
    _not_ready(scene, "backupstorage", "s3", "BucketMissing")
    scene.kubectl.apply(scene.s3(endpoint="http://nowhere.services:8333"))
    _not_ready(scene, "backupstorage", "s3", "StorageUnavailable")
    scene.kubectl.apply(scene.s3(bucket=BUCKET))
    _ready(scene, "backupstorage", "s3")


def test_a_server_newer_than_every_client(stage: Scene) -> None:
    """A pod that says it is PostgreSQL 99, in as much of the protocol as that takes."""
    code = Path(future_server.__file__).read_text()
    pod = objects.restricted_pod("future", stage.tools_image, ["python3", "-c", code, "5432"])
    service = {"selector": {"app": "future"}, "ports": [{"port": 5432}]}
    stage.kubectl.apply(
        pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "future"}, "spec": service}
    )
    stage.kubectl.run("wait", "pod/future", "--for=condition=Ready", "--timeout=60s")
    source = objects.postgresql_source(
        "db", secret_name="database", host="future", database="any", sslMode="disable"
    )
    stage.kubectl.apply(objects.policy("future", source, storage="s3"))
    found = _not_ready(stage, "backuppolicy", "future", "ServerTooNew")
    assert "PostgreSQL 99" in condition(found, "Ready")["message"]
    source = objects.postgresql_source("db", secret_name="database", host=HOST, database=stage.name)
    stage.kubectl.apply(objects.policy("future", source, storage="s3"))
    _ready(stage, "backuppolicy", "future")


def test_a_storage_that_is_not_ready(scene: Scene) -> None:
    scene.kubectl.apply(scene.s3(bucket="no-such-bucket"), scene.database_policy())
    _not_ready(scene, "backuppolicy", "database", "StorageNotReady")
    scene.kubectl.apply(scene.s3())
    _ready(scene, "backuppolicy", "database")


def test_the_reason_is_an_event_too(scene: Scene) -> None:
    scene.kubectl.apply(scene.s3(bucket="no-such-bucket"))
    _not_ready(scene, "backupstorage", "s3", "BucketMissing")
    found = scene.kubectl.run("get", "events", "--field-selector=reason=BucketMissing", "--output=name")
    assert found.strip()
