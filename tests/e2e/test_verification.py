"""Verification by schedule on a real cluster: a flipped bit is found, said, told and lost its slot; a copy is healed."""

from __future__ import annotations

from pathlib import Path

import pytest

from avalanche_contract.names import child_name
from tests.e2e import mailbox
from tests.e2e.kubectl import Object, condition, has_condition, ticks
from tests.e2e.scene import Scene

BACKUPS = "backups.avalanche.io"


def _flip(scene: Scene, backup: Object) -> str:
    """Flip a bit of a backup on the volume, and give the file that holds it."""
    (file,) = scene.shell(f"ls /volume/{scene.name}/*/*/{backup['status']['backupID']}.*gz").split()
    scene.python(
        f"path = {file!r}; data = bytearray(open(path, 'rb').read()); data[len(data) // 2] ^= 1;"
        "open(path, 'r+b').write(data)"
    )
    return file


def _verified(scene: Scene, policy: str, after: str = "") -> Object:
    """Wait for a verification that is recorded, another one than ``after``."""
    return scene.kubectl.wait(
        "backuppolicy", policy,
        lambda found: found["status"].get("lastVerification", {}).get("job", after) != after,
        seconds=180, what="verified",
    )  # fmt: skip


def _job(policy: Object) -> str:
    return str(policy["status"]["lastVerification"]["job"])


@pytest.mark.slow
def test_a_flipped_bit_is_found_at_the_schedule_told_once_and_retention_takes_the_next(
    stage: Scene, tmp_path: Path
) -> None:
    policy = stage.database_policy(
        storage="volume",
        retention={"keepDaily": 1, "maxDeletePercent": 90},
        verification={"schedule": "* * * * *"},
        objectives={"recoveryPointSeconds": 150},
        notifications=[mailbox.serve(stage, tmp_path)],
    )
    stage.kubectl.apply(policy)
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
    first, second = (stage.run_by_schedule("database", name) for name in ("one", "two"))
    name = first["metadata"]["name"]
    _flip(stage, first)

    found = stage.kubectl.wait(BACKUPS, name, has_condition("Verified", "False"), seconds=180, what="damaged")
    assert found["status"]["verification"]["status"] == "VerificationFailed"
    assert found["status"]["phase"] == "Succeeded" and not found["status"]["copies"]
    shown = stage.kubectl.run("get", BACKUPS, name)
    assert "VerificationFailed" in shown
    told = stage.kubectl.wait(
        "backuppolicy",
        "database",
        lambda found: name in condition(found, "BackupsVerified").get("message", ""),
        what="told",
    )
    assert condition(told, "BackupsVerified")["reason"] == "VerificationFailed"
    assert told["status"]["backupCount"] == 1
    other = stage.kubectl.get(BACKUPS, second["metadata"]["name"])
    assert other["status"]["verification"]["status"] == "Verified"

    _verified(stage, "database", after=_job(_verified(stage, "database", after=_job(told))))
    missed = has_condition("ObjectivesMet", "False", "RecoveryPointMissed")
    stage.kubectl.wait("backuppolicy", "database", missed, seconds=240, what="missed")
    reason = found["status"]["verification"]["reason"]
    assert sorted(mailbox.subjects(stage, 2)) == [
        f"[avalanche] database backup {first['status']['backupID']} failed verification: {reason} ({stage.name}/database)",
        f"[avalanche] database backup misses its recovery objective: RecoveryPointMissed ({stage.name}/database)",
    ]

    stage.clean_up("database", "clean")
    kept = {each["metadata"]["name"]: each["status"].get("keptBy") for each in stage.kubectl.list(BACKUPS)}
    assert kept == {name: ["verification-failed"], second["metadata"]["name"]: ["last-verified", "daily-1"]}


def test_a_damaged_copy_is_made_anew_from_the_good_one(stage: Scene) -> None:
    places = [{"storageRef": {"name": name}} for name in ("s3", "volume")]
    policy = stage.database_policy()
    policy["spec"]["destinations"] = places
    stage.kubectl.apply(policy)
    stage.kubectl.wait("backuppolicy", "database", has_condition("Ready", "True"), what="Ready")
    made = stage.back_up("one", "database")
    assert [each["storage"] for each in made["status"]["copies"]] == ["s3", "volume"]
    file = _flip(stage, made)
    assert stage.shell(f"sha256sum {file}").split()[0] != made["status"]["checksum"].removeprefix("sha256:")

    cron_job = child_name("database", "BackupPolicy", "verify")
    stage.kubectl.run("create", "job", "verify-now", f"--from=cronjob/{cron_job}")
    told = _verified(stage, "database")
    assert condition(told, "BackupsVerified")["reason"] == "Healed"
    assert stage.shell(f"sha256sum {file}").split()[0] == made["status"]["checksum"].removeprefix("sha256:")
    for _ in ticks(30):
        healed = stage.kubectl.get(BACKUPS, "one")["status"]
        if healed["verification"].get("reason") == "Healed":
            break
    assert (healed["verification"]["status"], healed["verification"]["reason"]) == ("Verified", "Healed")
    times = {each["storage"]: each["verifiedTime"] for each in healed["copies"]}
    before = {each["storage"]: each["verifiedTime"] for each in made["status"]["copies"]}
    assert times.keys() == before.keys() and all(times[each] > before[each] for each in times)
