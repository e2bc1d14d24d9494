"""Retention on a real cluster: what stays says why, what goes is gone from storage and cluster, what is held stays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from demo import bucket
from tests.e2e import objects
from tests.e2e.kubectl import condition, has_condition, ticks
from tests.e2e.scene import BUCKET, SECRET_KEY, Scene

BACKUPS = "backups.avalanche.io"
RULES = {"keepDaily": 1, "maxDeletePercent": 60}


def _stored(scene: Scene, storage: str) -> str:
    """List what lies in the place of the scene's policies."""
    if storage == "volume":
        return scene.shell(f"find /volume/{scene.name} -type f")
    with bucket.client_with(scene.services, "tester", SECRET_KEY) as s3:
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{scene.name}/")
    return "\n".join(each["Key"] for each in found.get("Contents", ()))


@contextmanager
def _same_day() -> Iterator[None]:
    """Do something within one day of UTC: close to its end, wait for the next one."""
    for _ in ticks(360):
        if (datetime.now(UTC).hour, datetime.now(UTC).minute) < (23, 54):
            break
    yield


def _gone(scene: Scene, name: str) -> None:
    for _ in ticks(60):
        if scene.kubectl.find(BACKUPS, name) is None:
            return
    raise AssertionError(f"Backup {name} is still there")


@pytest.mark.parametrize("storage", ["volume", "s3"])
def test_what_no_rule_keeps_goes_what_is_held_stays_and_what_is_erased_says_so(
    stage: Scene, storage: str
) -> None:
    with _same_day():
        stage.kubectl.apply(stage.database_policy(storage=storage, retention=RULES))
        stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
        first, second = (stage.run_by_schedule("database", name) for name in ("one", "two"))
        by_hand = stage.back_up("by-hand", "database")
        last = stage.run_by_schedule("database", "three")
        names = [each["metadata"]["name"] for each in (first, second, last)]
        stage.kubectl.patch(BACKUPS, names[1], {"spec": {"hold": True}})
        stage.kubectl.wait(BACKUPS, names[1], lambda found: found["status"].get("held", False))
        assert f"{second['status']['backupID']}_hold.json" in _stored(stage, storage)

        assert condition(stage.clean_up("database", "clean-one"), "RetentionApplied")["reason"] == "CleanedUp"
        shown = {
            each["metadata"]["name"]: each["status"].get("keptBy") for each in stage.kubectl.list(BACKUPS)
        }
        assert shown == {
            names[0]: ["daily-1"], names[1]: ["hold"], "by-hand": ["manual"], names[2]: ["last-verified"],
        }  # fmt: skip
        assert '["daily-1"]' in stage.kubectl.run("get", BACKUPS)

        stage.kubectl.patch(BACKUPS, names[1], {"spec": {"hold": False}})
        stage.kubectl.wait(BACKUPS, names[1], lambda found: found["status"].get("held") is False)
        stage.clean_up("database", "clean-two")
        _gone(stage, names[1])
        stored = _stored(stage, storage)
        assert second["status"]["backupID"] not in stored and first["status"]["backupID"] in stored

        stage.kubectl.patch(BACKUPS, "by-hand", {"spec": {"deleteRequested": True}})
        erased = stage.kubectl.wait(BACKUPS, "by-hand", has_condition("Available", "False", "Erased"))
        assert erased["status"]["phase"] == "Succeeded"
        assert by_hand["status"]["backupID"] not in _stored(stage, storage)
        stage.kubectl.patch(BACKUPS, names[0], {"spec": {"deleteRequested": True}})
        _gone(stage, names[0])


def test_a_cleanup_takes_the_key_that_may_delete_and_refuses_too_much_at_once(stage: Scene) -> None:
    pruned = stage.s3()
    pruned["spec"]["pruneCredentialsSecretRef"] = {"name": "pruner"}
    with _same_day():
        stage.kubectl.apply(pruned, stage.database_policy(retention={"keepDaily": 1, "maxDeletePercent": 10}))
        stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
        made = [stage.run_by_schedule("database", name) for name in ("one", "two", "three")]
        told = condition(stage.clean_up("database", "clean-one"), "RetentionApplied")
        assert (told["status"], told["reason"]) == ("False", "CredentialsMissing") and "pruner" in told[
            "message"
        ]
        stage.kubectl.apply(
            objects.secret("pruner", AWS_ACCESS_KEY_ID="tester", AWS_SECRET_ACCESS_KEY=SECRET_KEY)
        )
        told = condition(stage.clean_up("database", "clean-two"), "RetentionApplied")
        assert told["reason"] == "TooManyRemovals" and "1 of 3 backups" in told["message"]
        assert all(each["status"]["backupID"] in _stored(stage, "s3") for each in made)
        stage.kubectl.patch("backuppolicy", "database", {"spec": {"retention": {"maxDeletePercent": 50}}})
        stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"))
        stage.clean_up("database", "clean-three")
        _gone(stage, made[1]["metadata"]["name"])
