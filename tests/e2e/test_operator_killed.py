"""The operator is killed again and again, and everything ends as it would have."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e import objects
from tests.e2e.killing import kill
from tests.e2e.kubectl import Object, in_phase, ticks
from tests.e2e.scene import ENDED, Scene

KILLS = 30
OURS = "app.kubernetes.io/managed-by=avalanche-operator"
SYSTEM = "avalanche-system"
OPERATOR = "app.kubernetes.io/component=control-plane"


class Killer:
    """Ends the operator's process as the kernel would, at moments of a seeded chance."""

    def __init__(self, scene: Scene) -> None:
        self.kills = 0
        self._system = scene.kubectl.within(SYSTEM)
        self._chance = random.Random(20241122)
        self._next = time.monotonic() + self._chance.uniform(0.5, 6)

    def strike(self) -> None:
        """Kill, where the moment has come; the pod goes too, or the kubelet would wait longer each time."""
        if self.kills == KILLS or time.monotonic() < self._next:
            return
        if not kill(*self._system.list("pod", OPERATOR), running="-m avalanche_operator"):
            return
        self._system.run(
            "delete", "pod", f"--selector={OPERATOR}", "--grace-period=0", "--force", "--wait=false"
        )
        self.kills += 1
        self._next = time.monotonic() + self._chance.uniform(0.5, 9)


@pytest.mark.alone
def test_thirty_kills_change_no_outcome(stage: Scene) -> None:
    stage.shell("mkdir /data/in; head -c 20000000 /dev/urandom > /data/in/file")
    stage.kubectl.apply(
        stage.database_policy(storage="volume"),
        stage.files_policy(),
        stage.database_policy("minutely", storage="volume", schedule="* * * * *"),
    )
    before = stage.rows(), stage.shell("sha256sum /data/in/file")
    names = [(f"{policy}-{number}", policy) for number in range(3) for policy in ("database", "files")]
    stage.kubectl.apply(*(objects.backup(*each) for each in names))
    killer, approved = Killer(stage), False
    for _ in ticks(540):
        killer.strike()
        backups = {each["metadata"]["name"]: each for each in stage.kubectl.list("backups.avalanche.io")}
        approved = approved or _restore(stage, backups["database-0"])
        over = all(in_phase(*ENDED)(backups[name]) for name, _ in names) and approved
        if over and killer.kills == KILLS and _is_over(stage):
            break
    assert killer.kills == KILLS
    stage.kubectl.patch("backuppolicy", "minutely", {"spec": {"suspend": True}})
    _assert_as_undisturbed(stage, [name for name, _ in names])
    assert (stage.rows(), stage.shell("sha256sum /data/in/file")) == before


def _restore(stage: Scene, backup: Object) -> bool:
    """Ask for a restore once the backup is there, and approve its plan; say whether that was done."""
    if not in_phase("Succeeded")(backup):
        return False
    request = stage.kubectl.find("restorerequest", "back")
    if request is None:
        stage.kubectl.apply(objects.restore("back", "database-0"))
    elif in_phase("AwaitingApproval")(request):
        digest = request["status"]["plan"]["digest"]
        stage.kubectl.patch("restorerequest", "back", {"spec": {"approvedPlan": digest}})
        return True
    return False


def _is_over(stage: Scene) -> bool:
    return in_phase("Succeeded", "Failed")(stage.kubectl.get("restorerequest", "back"))


def _assert_as_undisturbed(stage: Scene, names: list[str]) -> None:
    assert stage.kubectl.get("restorerequest", "back")["status"]["phase"] == "Succeeded"
    for each in stage.kubectl.list("backups.avalanche.io"):
        found = stage.kubectl.wait(
            "backups.avalanche.io", each["metadata"]["name"], in_phase(*ENDED), seconds=180
        )
        assert found["status"]["phase"] in ("Succeeded", "Skipped"), found["status"]
    backups = stage.kubectl.list("backups.avalanche.io")
    ids = [each["status"].get("backupID") for each in backups if each["status"]["phase"] == "Succeeded"]
    identities = [
        each["status"].get("runIdentity") for each in backups if each["status"]["phase"] == "Succeeded"
    ]
    assert len(set(identities)) == len(identities) and None not in ids
    _assert_nothing_else_is_stored(stage, ids)
    jobs = stage.kubectl.list("job", f"{OURS},avalanche.io/verb=backup")
    owners = [each["metadata"]["annotations"]["avalanche.io/owner"] for each in jobs]
    for name in names:
        assert owners.count(name) == 1
    executed = [
        each
        for each in stage.kubectl.list("job", f"{OURS},avalanche.io/verb=restore")
        if not each["metadata"].get("ownerReferences")
    ]
    assert len(executed) == 1


def _assert_nothing_else_is_stored(stage: Scene, ids: list[str]) -> None:
    """One metadata file for each Backup, and no object that none of them names."""
    stored = stage.shell(f"find /volume/{stage.name} -type f -printf '%f\\n'").split()
    metadata = [each for each in stored if each.endswith("_metadata.json")]
    assert sorted(metadata) == sorted(f"{each}_metadata.json" for each in ids)
    named = stage.shell(
        f'grep -rhoP \'"file": "\\K[^"]+\' /volume/{stage.name} --include=*_metadata.json'
    ).split()
    beside = ("_metadata.json", "_verification.json", "_hold.json", "owner.json", "restore-lock.json")
    assert sorted(each for each in stored if not each.endswith(beside)) == sorted(named)
