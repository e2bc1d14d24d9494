"""The cluster is lost: nothing of the product, its objects and the application stays, but a bucket; all of it is built anew."""

from __future__ import annotations

import json

from demo import application, examples, restoring, watching
from demo.comparison import compare, compare_folders
from demo.steps import DemoFailed
from demo.telling import POLICIES, RESTORED, Demo, Fingerprint
from tests.cluster.installation import NAMESPACE, RELEASE, install
from tests.cluster.processes import run
from tests.e2e.kubectl import Object, has_condition

BACKUPS = "backups.avalanche.io"
KINDS = ("backupstorages", "backuppolicies", "backups", "restorerequests")


def lose_and_rebuild(demo: Demo) -> None:
    """Back everything up once more, lose the cluster, build it anew, bring everything back from the bucket, and compare.

    Left out where others have policies in this cluster: theirs would be lost with the kinds.
    """
    if others := _others(demo):
        demo.steps.say(
            f"\nThe chapter of the lost cluster is left out: {', '.join(others)} would be lost with it"
        )
        return
    backup, before = _back_up(demo)
    _lose(demo)
    _build(demo)
    _discover(demo, backup)
    _restore(demo, backup, before)
    _go_on(demo)


def _others(demo: Demo) -> list[str]:
    """Name the policies of other namespaces, but for those that are being deleted."""
    spaces = {each["metadata"]["name"]: each["status"]["phase"] for each in demo.kubectl.list("namespaces")}
    found = json.loads(demo.kubectl.run("get", "backuppolicies", "--all-namespaces", "--output=json"))[
        "items"
    ]
    places = [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in found]
    return [
        f"{space}/{name}"
        for space, name in places
        if space != examples.NAMESPACE and spaces.get(space) == "Active"
    ]


def _back_up(demo: Demo) -> tuple[str, dict[str, Fingerprint]]:
    """Give the ID of a backup of everything, and the fingerprints of what is in it."""
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("One more backup of everything, before the cluster is lost"):
        application.stop_stations(kubectl)
        before = _fingerprints(demo)
        examples.apply_example(kubectl, "70-last-backup.yaml", demo.values, steps)
        made = watching.until_phase(kubectl, BACKUPS, demo.object_name("last"), ("Succeeded",), steps=steps)
        return str(made["status"]["backupID"]), before


def _lose(demo: Demo) -> None:
    kubectl, steps, cluster = demo.kubectl, demo.steps, demo.cluster
    with steps.step(
        "The cluster is lost: application, operator, kinds and all their objects; the bucket stays"
    ):
        steps.detail(f"$ kubectl delete namespace {examples.NAMESPACE}")
        kubectl.run("delete", "namespace", examples.NAMESPACE, "--wait=true", "--timeout=180s")
        steps.detail(f"$ helm uninstall {RELEASE} --namespace {NAMESPACE}")
        run(
            str(cluster.helm), "uninstall", RELEASE, f"--kubeconfig={cluster.kubeconfig}", f"--namespace={NAMESPACE}",
            "--wait",
        )  # fmt: skip
        names = [f"{each}.avalanche.io" for each in KINDS]
        steps.detail(f"$ kubectl delete crd {' '.join(names)}")
        kubectl.run("delete", "crd", *names, "--wait=true", "--timeout=120s")
        kubectl.run("delete", "namespace", NAMESPACE, "--wait=true", "--timeout=120s")


def _build(demo: Demo) -> None:
    with demo.steps.step("Built anew: the operator by Helm, the application with nothing in it"):
        install(demo.cluster, demo.steps.detail)
        application.start(demo.kubectl, examples.load_images(demo.cluster, demo.steps), demo.steps)
        application.stop_stations(demo.kubectl)


def _discover(demo: Demo, backup: str) -> None:
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("What lies in the bucket appears: Discovered Backups"):
        examples.apply_example(kubectl, "30-storages.yaml", {}, steps)
        kubectl.wait("backupstorage", "object-storage", has_condition("Synced", "True"), seconds=300)
        steps.detail(kubectl.run("get", "backupstorages"))
        steps.detail(kubectl.run("get", BACKUPS, "--selector=avalanche.io/policy=full", "--output=wide"))
        if backup not in {_id(each) for each in kubectl.list(BACKUPS)}:
            raise DemoFailed(f"{backup} lies in the bucket, and no Backup shows it")


def _restore(demo: Demo, backup: str, before: dict[str, Fingerprint]) -> None:
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("Brought back from the bucket, without any policy"):
        examples.apply_example(kubectl, "71-rebuild.yaml", {**demo.values, "BACKUP_ID": backup}, steps)
        for what in RESTORED:
            name = demo.object_name(f"rebuild-{what}")
            request = restoring.approve_and_wait(kubectl, name, steps)
            demo.taken.append((f"rebuild of {what}", request["status"].get("durationSeconds", 0)))
        after = _fingerprints(demo)
        for what in ("database", "observations"):
            demo.comparisons += compare(f"rebuilt {what}", before[what], after[what])
        demo.comparisons += compare_folders("rebuilt files", before["files"], after["files"])
        application.start_stations(kubectl)


def _go_on(demo: Demo) -> None:
    with demo.steps.step("The same policies again: backups go on"):
        examples.apply_example(demo.kubectl, "40-policies.yaml", {}, demo.steps)
        watching.until_ready(demo.kubectl, "backuppolicies", POLICIES, demo.steps)


def _fingerprints(demo: Demo) -> dict[str, Fingerprint]:
    return {what: application.fingerprint(demo.kubectl, what) for what in RESTORED}


def _id(backup: Object) -> str:
    return str(backup["status"].get("backupID", ""))
