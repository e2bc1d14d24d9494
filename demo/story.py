"""The story from beginning to end: each chapter is one function, and all of them are what ``make demo`` shows."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from demo import application, bucket, drilling, examples, rebuilding, restoring, swapping, watching
from demo.comparison import Comparison, columns, compare, compare_folders, durations, table
from demo.steps import DemoFailed, Say, Steps
from demo.telling import POLICIES, RESTORED, Demo
from demo.toolbox import fingerprints
from tests.cluster import ensure
from tests.cluster.installation import install
from tests.e2e.kubectl import Object


def run(name: str, scale: float, say: Say) -> list[Comparison]:
    """Tell the whole story on the cluster ``name``, and give every comparison of before and after.

    :raises DemoFailed: a chapter ended badly.
    """
    steps = Steps(say)
    with steps.step("A real cluster"):
        cluster = ensure(name, steps.detail)
    demo = Demo(cluster, examples.kubectl_of(cluster), scale, steps, datetime.now(UTC))
    prepare(demo)
    back_up(demo)
    drill(demo)
    look_into_the_bucket(demo)
    destroy(demo)
    restore(demo)
    swapping.swap_and_undo(demo)
    rebuilding.lose_and_rebuild(demo)
    conclude(demo)
    return demo.comparisons


def prepare(demo: Demo) -> None:
    """Install the product and the sample application, and fill it with data."""
    steps = demo.steps
    with steps.step("The operator, by Helm"):
        install(demo.cluster, steps.detail)
    with steps.step("The sample application"):
        application.start(demo.kubectl, examples.load_images(demo.cluster, steps), steps)
    with steps.step("Its data, from a seed"):
        application.fill(demo.kubectl, demo.scale, steps)
        demo.before = {what: application.fingerprint(demo.kubectl, what) for what in ("database", "files")}
        steps.detail(
            f"hashed {len(demo.before['database'])} relations and {len(demo.before['files'])} files and folders"
        )


def back_up(demo: Demo) -> None:
    """Declare storages and policies, and back up by hand and by schedule."""
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("Storages and policies"):
        examples.apply_example(kubectl, "30-storages.yaml", {}, steps)
        examples.apply_example(kubectl, "40-policies.yaml", {}, steps)
        watching.until_ready(kubectl, "backupstorages", ("object-storage", "volume"), steps)
        watching.until_ready(kubectl, "backuppolicies", POLICIES, steps)
        steps.detail(kubectl.run("get", "cronjobs"))
    with steps.step("A manual Backup of each policy"):
        examples.apply_example(kubectl, "50-backups.yaml", demo.values, steps)
        for policy in POLICIES:
            name = demo.object_name(policy)
            backup = watching.until_phase(kubectl, "backups.avalanche.io", name, ("Succeeded",), steps=steps)
            demo.taken.append(
                (f"backup of {policy}, {_size(backup)}", backup["status"].get("durationSeconds", 0))
            )
    with steps.step("A scheduled Backup: the CronJob of `observations` fires every minute"):
        watching.until_scheduled(
            kubectl, "observations", after=f"{demo.begun:%Y-%m-%dT%H:%M:%SZ}", steps=steps
        )
        steps.detail("$ kubectl get backups.avalanche.io -o wide")
        steps.detail(kubectl.run("get", "backups.avalanche.io", "--output=wide"))


def drill(demo: Demo) -> None:
    """Prove that the newest backup of the database can be restored, and show how long that takes."""
    with demo.steps.step("A drill: the backup is restored into a throwaway PostgreSQL, and asked"):
        last = drilling.drill(demo.kubectl, "database", demo.object_name("drill"), demo.steps)
        demo.taken.append(("drill of database, of which a restore takes", last["restoreSeconds"]))


def look_into_the_bucket(demo: Demo) -> None:
    """List the bucket with a plain S3 client, and restore an artifact without us."""
    kubectl, steps = demo.kubectl, demo.steps
    with bucket.client(kubectl) as s3, tempfile.TemporaryDirectory(prefix="avalanche-demo-") as folder:
        with steps.step("The bucket, seen by a plain S3 client"):
            database, observations = (
                kubectl.get("backups.avalanche.io", demo.object_name(what))
                for what in ("database", "observations")
            )
            listed = [
                (key, f"{size:,}") for key, size in bucket.keys(s3) if not key.endswith("_verification.json")
            ]
            steps.detail(columns([("KEY", "BYTES"), *listed[-40:]]))
        with steps.step("One artifact restored by hand: sha256sum, gzip, psql"):
            artifact = bucket.fetch(s3, "database", database, ".sql.gz", Path(folder))
            steps.detail(
                f"$ sha256sum {artifact.name}   # {database['status']['checksum']}, as the Backup says"
            )
            steps.detail(f"$ gzip --decompress {artifact.name}")
            bucket.restore_with_psql(kubectl, bucket.unpack(artifact), steps)
            by_hand = application.fingerprint(kubectl, "database", bucket.BY_HAND)
            demo.comparisons += compare("by hand", demo.before["database"], by_hand)
            copy = bucket.unpack(bucket.fetch(s3, "observations", observations, ".sqlite.gz", Path(folder)))
            demo.last_observation = fingerprints.observations(copy)["last ID"]
            steps.detail(f"{copy.name} ends with observation {demo.last_observation}")


def destroy(demo: Demo) -> None:
    """Stop the writer, hash the rows that the backup has, and let disaster strike."""
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("Disaster"):
        application.stop_stations(kubectl)
        steps.detail("$ kubectl scale deployment stations --replicas=0")
        demo.before["observations"] = application.fingerprint(kubectl, "observations", demo.last_observation)
        for what in RESTORED:
            steps.detail(f"{what}: {application.in_toolbox(kubectl, 'disaster', what)}")
        for what in ("database", "files"):
            if application.fingerprint(kubectl, what) == demo.before[what]:
                raise DemoFailed(f"the disaster changed nothing in the {what}: there is nothing to restore")


def restore(demo: Demo) -> None:
    """Bring everything back by RestoreRequests, and compare."""
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("RestoreRequests: the plan is shown, and approved"):
        examples.apply_example(kubectl, "60-restores.yaml", demo.values, steps)
        for what in RESTORED:
            request = restoring.approve_and_wait(kubectl, demo.object_name(what), steps)
            demo.taken.append((f"restore of {what}", request["status"].get("durationSeconds", 0)))
    with steps.step("Is everything as it was?"):
        after = {what: application.fingerprint(kubectl, what) for what in RESTORED}
        demo.comparisons += compare("database", demo.before["database"], after["database"])
        demo.comparisons += compare("observations", demo.before["observations"], after["observations"])
        demo.comparisons += compare_folders("files", demo.before["files"], after["files"])
        application.start_stations(kubectl)
        steps.detail("$ kubectl scale deployment stations --replicas=1")


def conclude(demo: Demo) -> None:
    """Show what was compared, what took how long, and how to look around."""
    say = demo.steps.say
    say(f"\n{table(demo.comparisons)}\n")
    say(f"{durations(demo.steps.taken)}\n")
    say(columns([("OF WHICH", "SECONDS"), *((what, str(seconds)) for what, seconds in demo.taken)]))
    say(
        LOOK_AROUND.format(
            kubeconfig=demo.cluster.kubeconfig, kubectl=demo.cluster.kubectl, name=demo.cluster.name
        )
    )


def _size(backup: Object) -> str:
    return f"{backup['status'].get('sizeBytes', 0) / 1e6:.1f} MB"


LOOK_AROUND = """
The cluster stays up, and backs up `observations` every minute. To look around:

  export KUBECONFIG={kubeconfig}
  alias kubectl={kubectl}
  kubectl config set-context --current --namespace=avalanche-demo
  kubectl get backupstorages,backuppolicies,restorerequests
  kubectl get backups.avalanche.io -o wide
  kubectl get cronjobs,jobs,pods
  kubectl exec -it deployment/toolbox -- psql
  kubectl patch backuppolicy observations --type=merge -p '{{"spec": {{"suspend": true}}}}'   # no more every minute

  make cluster-down CLUSTER_NAME={name}   # stop it"""
