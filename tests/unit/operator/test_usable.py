"""Whether policies and storages are usable: obstacles pass, drift is set back, runs are neither lost nor kept for ever."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract import names
from avalanche_operator.kube.gateway import Refused
from tests.fakes.world import NAMESPACE, World
from tests.unit.operator.objects import DATABASE, FILES, S3_SPEC, policy_spec

Object = dict[str, Any]
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)


def _begin(*sources: Object, **more: Any) -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(*(sources or (DATABASE,)), **more))
    return world


def _only(world: World, kind: str) -> Object:
    return next(each for key, each in world.gateway.objects.items() if key[0] == kind)


def _count(world: World, kind: str, **labels: str) -> int:
    wanted = {f"avalanche.io/{name}": value for name, value in labels.items()}.items()
    own = [each for key, each in world.gateway.objects.items() if key[0] == kind]
    return sum(wanted <= (each["metadata"].get("labels") or {}).items() for each in own)


def _claim(world: World, mode: str = "ReadWriteOnce") -> None:
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": NAMESPACE},
    }
    world.gateway.put({**body, "spec": {"accessModes": [mode]}})


def _application(world: World, name: str = "application", **context: Any) -> None:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    spec = {
        "nodeName": name,
        "securityContext": context,
        "containers": [{"name": "main"}],
        "volumes": volumes,
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    world.gateway.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": spec,
            "status": {"phase": "Running"},
        }
    )


def _pod_spec(world: World) -> Object:
    spec: Object = _only(world, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


def test_a_policy_is_usable_again_as_soon_as_its_storage_is() -> None:
    """The obstacle overwrites the condition; what the probe had found an hour before still holds."""
    world = _begin()
    world.run(6)
    storage = _only(world, "BackupStorage")
    good = storage["status"]["conditions"]
    storage["status"]["conditions"] = [
        {**each, "status": "False", "reason": "StorageUnavailable"} for each in good
    ]
    world.look("BackupPolicy", "nightly")
    assert world.condition("BackupPolicy", "nightly")["reason"] == "StorageNotReady"
    _only(world, "BackupStorage")["status"]["conditions"] = good
    world.look("BackupPolicy", "nightly")
    assert world.condition("BackupPolicy", "nightly")["reason"] == "Usable"


def test_a_storage_is_usable_again_as_soon_as_its_claim_is() -> None:
    world = World()
    _claim(world)
    world.person("BackupStorage", "volume", {"claim": {"name": "data"}})
    world.run(3)
    claim = world.gateway.objects.pop(("PersistentVolumeClaim", NAMESPACE, "data"))
    world.look("BackupStorage", "volume")
    assert world.condition("BackupStorage", "volume")["reason"] == "ClaimNotFound"
    world.gateway.put(claim)
    world.look("BackupStorage", "volume")
    assert world.condition("BackupStorage", "volume")["reason"] == "Usable"


def test_runs_of_a_long_absence_all_appear_and_then_their_jobs_go_to_the_limit() -> None:
    world = _begin(successfulJobsHistoryLimit=2)
    world.run(5)
    for number in range(12):
        world.fire("nightly", SLOT + timedelta(days=number))
        world.play()
    assert _only(world, "CronJob")["spec"]["successfulJobsHistoryLimit"] >= 1000
    world.run(4)
    phases = [each["status"]["phase"] for key, each in world.gateway.objects.items() if key[0] == "Backup"]
    assert phases == ["Succeeded"] * 12 and _count(world, "Job", verb="backup") == 2
    assert world.status("BackupPolicy", "nightly")["backupCount"] == 12


def test_two_looks_at_one_run_make_one_backup_where_a_list_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    world = _begin()
    world.run(5)
    world.fire("nightly", SLOT)
    world.look("BackupPolicy", "nightly")
    iterate = world.gateway.iterate

    def late(kind: str, namespace: str | None, **how: Mapping[str, str] | None) -> Any:
        return iterate("Nothing" if kind == "Backup" else kind, namespace, **how)

    monkeypatch.setattr(world.gateway, "iterate", late)
    world.look("BackupPolicy", "nightly")
    assert _count(world, "Backup") == 1


def test_only_the_backups_of_the_policy_are_read() -> None:
    world = _begin()
    world.person("BackupPolicy", "another", policy_spec())
    world.run(5)
    for number in range(20):
        world.person("Backup", f"other-{number}", {"policyRef": {"name": "another"}, "origin": "Manual"})
    world.gateway.listed.clear()
    world.look("BackupPolicy", "nightly")
    assert world.gateway.listed["Backup"] == 0


def test_what_others_added_to_a_cron_job_is_taken_out() -> None:
    world = _begin()
    world.run(5)
    spec = _only(world, "CronJob")["spec"]["jobTemplate"]["spec"]
    spec["ttlSecondsAfterFinished"] = 0
    spec["template"]["spec"]["hostNetwork"] = True
    world.run(1)
    mended = _only(world, "CronJob")["spec"]["jobTemplate"]["spec"]
    assert "ttlSecondsAfterFinished" not in mended and "hostNetwork" not in mended["template"]["spec"]


def test_a_cron_job_as_it_should_be_is_not_written() -> None:
    world = _begin()
    world.run(5)
    before = _only(world, "CronJob")["metadata"]["resourceVersion"]
    world.run(3)
    assert _only(world, "CronJob")["metadata"]["resourceVersion"] == before


@pytest.mark.parametrize(
    ("status", "reason", "stalled"), [(422, "InvalidSpec", True), (403, "Forbidden", False)]
)
@pytest.mark.parametrize("kind", ["CronJob", "Job"])
def test_what_kubernetes_refuses_is_said_and_recovers(
    kind: str, status: int, reason: str, stalled: bool
) -> None:
    world = _begin()
    world.run(2)
    world.gateway.refusals[kind] = Refused(status, "spec.template: Invalid value")
    world.person("BackupPolicy", "late", policy_spec())
    world.run(2)
    found = world.condition("BackupPolicy", "late")
    assert (found["status"], found["reason"]) == ("False", reason) and "Invalid value" in found["message"]
    assert bool(world.condition("BackupPolicy", "late", "Stalled")) == stalled
    world.gateway.refusals.clear()
    world.run(4)
    assert world.condition("BackupPolicy", "late")["status"] == "True"


def test_a_probe_of_a_storage_that_kubernetes_refuses_is_said() -> None:
    world = World()
    world.gateway.refusals["Job"] = Refused(403, "exceeded quota")
    world.person("BackupStorage", "s3", S3_SPEC)
    world.run(1)
    found = world.condition("BackupStorage", "s3")
    assert found["reason"] == "Forbidden" and "quota" in found["message"]


def test_a_foreign_job_of_the_name_of_a_probe_is_said() -> None:
    world = _begin()
    for _ in range(2):
        world.look("BackupStorage", "s3")
        world.play()
    world.look("BackupStorage", "s3")
    world.look("BackupPolicy", "nightly")
    probe = next(each for key, each in world.gateway.objects.items() if key[0] == "Job")
    probe["metadata"]["ownerReferences"] = []
    world.look("BackupPolicy", "nightly")
    assert world.condition("BackupPolicy", "nightly")["reason"] == "NameTaken"


def test_a_suspended_policy_with_an_unknown_time_zone_says_so() -> None:
    world = _begin(suspend=True, timeZone="Europe/Atlantis")
    world.run(2)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "InvalidTimeZone"


def test_what_no_pod_can_mount_is_said_and_not_tried_and_tried_again_when_it_can() -> None:
    world = _begin(FILES)
    _claim(world, "ReadWriteOncePod")
    _application(world)
    world.run(5)
    assert world.condition("BackupPolicy", "nightly")["reason"] == "ClaimInUse"
    assert _only(world, "CronJob")["spec"]["suspend"] is True
    assert "nextScheduleTime" not in world.status("BackupPolicy", "nightly")
    del world.gateway.objects["Pod", NAMESPACE, "application"]
    world.run(4)
    assert _only(world, "CronJob")["spec"]["suspend"] is False
    assert world.condition("BackupPolicy", "nightly")["status"] == "True"


def test_runs_keep_the_user_of_an_application_that_was_stopped() -> None:
    world = _begin(FILES)
    _claim(world)
    _application(world, runAsUser=1000, fsGroup=2000)
    world.run(5)
    del world.gateway.objects["Pod", NAMESPACE, "application"]
    world.run(3)
    context = _pod_spec(world)["securityContext"]
    assert (context["runAsUser"], context["supplementalGroups"]) == (1000, [2000])
    assert "affinity" not in _pod_spec(world)
    assert world.status("BackupPolicy", "nightly")["identity"]["claims"] == ["data"]


def test_a_restore_keeps_the_user_of_an_application_that_was_stopped_for_it() -> None:
    world = _begin(FILES)
    _claim(world)
    _application(world, runAsUser=1000)
    world.run(5)
    world.person("Backup", "first", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    world.run(5)
    del world.gateway.objects["Pod", NAMESPACE, "application"]
    world.person("RestoreRequest", "back", {"backupRef": {"name": "first"}})
    world.run(2)
    plan = next(
        each
        for each in world.gateway.created
        if each["metadata"].get("labels", {}).get(names.LABEL_VERB) == "restore"
    )
    assert plan["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 1000


def test_a_policy_with_claims_is_looked_at_every_minute_and_another_less_often() -> None:
    files, database = _begin(FILES), _begin()
    _claim(files)
    for world in (files, database):
        world.run(6)
    assert files.look("BackupPolicy", "nightly") == 60 and database.look("BackupPolicy", "nightly") == 600


def test_a_run_bound_to_the_node_that_its_claim_left_is_ended() -> None:
    world = _begin(FILES)
    _claim(world)
    _application(world, "node-a", runAsUser=1000)
    world.run(5)
    world.fire("nightly", SLOT)
    run = next(each for key, each in world.gateway.objects.items() if key[0] == "Job")
    owner = {
        "kind": "Job",
        "name": run["metadata"]["name"],
        "uid": run["metadata"]["uid"],
        "controller": True,
    }
    pod = run["spec"]["template"]
    metadata = {**pod["metadata"], "name": "pod", "namespace": NAMESPACE, "ownerReferences": [owner]}
    world.gateway.put(
        {"kind": "Pod", "metadata": metadata, "spec": pod["spec"], "status": {"phase": "Pending"}}
    )
    del world.gateway.objects["Pod", NAMESPACE, "node-a"]
    _application(world, "node-b", runAsUser=1000)
    world.time += timedelta(minutes=5)
    world.look("BackupPolicy", "nightly")
    assert (
        run["metadata"]["uid"]
        == (now := world.gateway.objects["Job", NAMESPACE, owner["name"]])["metadata"]["uid"]
    )
    assert now["spec"]["activeDeadlineSeconds"] == 1


@pytest.mark.parametrize(("skew", "shown"), [(-3600, True), (121, True), (120, False), (0, False)])
def test_clocks_that_differ_are_shown_and_stop_nothing(skew: int, shown: bool) -> None:
    world = World()
    world.clock_skew_seconds = skew
    world.person("BackupStorage", "s3", S3_SPEC)
    world.run(3)
    found = world.condition("BackupStorage", "s3", "ClockSkew")
    assert bool(found) is shown and world.condition("BackupStorage", "s3")["status"] == "True"
    assert not shown or str(abs(skew)) in found["message"]
    assert world.status("BackupStorage", "s3")["clockSkewSeconds"] == skew
