"""The demo on the tests' cluster: everything comes back, and no secret is seen anywhere on the way."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import demo
from demo import bucket
from demo.examples import BUCKET_NAMESPACE
from tests.cluster import Cluster
from tests.e2e.kubectl import Kubectl

NAMESPACE = "avalanche-demo"
SMALL = 0.05
KINDS = (
    "backupstorages,backuppolicies,backups.avalanche.io,restorerequests,cronjobs,jobs,pods,deployments,"
    "replicasets,persistentvolumeclaims,services,configmaps,events"
)


class CommandLines:
    """Every command line that any process of this machine has meanwhile; pods are processes here too."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._ended = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Look again and again, until the end."""
        thread = threading.Thread(target=self._look)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # it has just ended


def _secrets(kubectl: Kubectl) -> set[str]:
    """Give every secret value of the namespace; user names are none."""
    data = [pair for each in kubectl.list("secret") for pair in each["data"].items()]
    chosen = [value for name, value in data if "password" in name.lower() or "SECRET" in name]
    return {base64.b64decode(value).decode() for value in chosen}


def _documents(kubectl: Kubectl) -> str:
    """Give every document that lies in the bucket beside the artifacts."""
    with bucket.client(kubectl) as s3:
        keys = [key for key, _ in bucket.keys(s3) if key.endswith(".json")]
        return "".join(s3.get_object(Bucket=bucket.BUCKET, Key=key)["Body"].read().decode() for key in keys)


@pytest.mark.alone
def test_the_demo_brings_everything_back_and_shows_no_secret(cluster: Cluster) -> None:
    said: list[str] = []
    lines = CommandLines()
    with lines.watched():
        comparisons = demo.run(cluster.name, SMALL, said.append)
    assert comparisons and all(each.equal for each in comparisons)
    chapters = {each.what.partition(":")[0] for each in comparisons}
    wanted = {
        "database",
        "files",
        "swapped",
        "undone",
        "rebuilt database",
        "rebuilt files",
        "rebuilt observations",
    }
    assert wanted <= chapters
    kubectl = Kubectl(cluster.kubectl, cluster.kubeconfig, NAMESPACE)
    system = kubectl.within("avalanche-system")
    everything = {
        "objects": kubectl.run("get", KINDS, "--output=yaml"),
        "logs of the data plane": kubectl.logs("app.kubernetes.io/name=avalanche-backup"),
        "logs of the operator": system.logs("app.kubernetes.io/name=avalanche-backup"),
        "documents in the bucket": _documents(kubectl),
        "command lines": "\n".join(lines.seen),
        "output": "\n".join(said),
    }
    secrets = _secrets(kubectl)
    assert len(secrets) >= 2
    for where, text in everything.items():
        assert text.strip(), where
        assert not [where for secret in secrets if secret in text]
    kubectl.run("delete", "namespace", NAMESPACE, BUCKET_NAMESPACE, "--wait=false")
