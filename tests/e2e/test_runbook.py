"""The runbook on real clusters: one is lost and another one built, by the commands of the page as they stand there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests import runbook
from tests.cluster import Cluster, down, ensure, load_image
from tests.cluster.images import Image, build_example
from tests.cluster.installation import install, load_product
from tests.e2e import objects
from tests.e2e.kubectl import Kubectl, Object, has_condition
from tests.e2e.scene import Scene
from tests.integration import servers
from tests.integration.keys import key_pair
from tests.integration.servers import Seaweed

CLUSTER = "avalanche-lost"
NAMESPACE, POLICY, DATABASE, PASSWORD = "production", "everything", "edna", "pa55word$of the-database"
BUCKET = "drawer"
MANIFESTS = Path(__file__).parent / "manifests"


@dataclass(frozen=True)
class Drawer:
    """What outlives a cluster: a folder with files, and a bucket."""

    folder: Path
    seaweed: Seaweed
    port: int

    def write(self, endpoint: str, images: dict[str, str]) -> None:
        """Lay the files down that the runbook asks for."""
        for name in ("application", "policies"):
            (self.folder / name).mkdir(parents=True)
        keys = key_pair(self.folder / "age.identity")
        secrets = {"AWS_ACCESS_KEY_ID": servers.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": servers.SECRET_KEY}
        self._environment("object-storage", secrets)
        self._environment("database", {"username": "avalanche", "password": PASSWORD})
        encryption = {"recipients": [keys.recipient], "identitySecretRef": {"name": "age-identity"}}
        sources = (
            objects.postgresql_source("database", secret_name="database", database=DATABASE),
            objects.files_source("data", "data"),
        )
        policy = objects.policy(
            POLICY, *sources, storage="object-storage", schedule="0 0 1 1 *", encryption=encryption,
            compression={"algorithm": "Zstd"}, retention={"keepLast": 1},
        )  # fmt: skip
        self._manifests("policies", policy)
        self._manifests("application", *_application(images))
        self._manifests("storage", _storage(endpoint))

    def owner(self) -> str:
        """Give the UID of the cluster that owns the policy's folder."""
        found = self.seaweed.client().get_object(Bucket=BUCKET, Key=f"{NAMESPACE}/{POLICY}/owner.json")
        return str(json.loads(found["Body"].read())["cluster_uid"])

    def _environment(self, name: str, values: dict[str, str]) -> None:
        lines = [f"{key}={value}\n" for key, value in values.items()]
        (self.folder / f"{name}.env").write_text("".join(lines))

    def _manifests(self, name: str, *documents: Object) -> None:
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / "manifests.yaml").write_text(yaml.safe_dump_all(documents))


def _application(images: dict[str, str]) -> list[Object]:
    """Give the database server and the claim, both empty, and a pod that stands for the application."""
    text = (MANIFESTS / "postgres.yaml").read_text().replace("${POSTGRES_IMAGE}", images["postgres"])
    server: list[Object] = [each for each in yaml.safe_load_all(text) if each["kind"] != "Secret"]
    for each in server:
        del each["metadata"]["namespace"]
        if each["kind"] == "Deployment":
            each["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = DATABASE
    toolbox = objects.restricted_pod(
        "toolbox", images["tools"], ["sleep", "infinity"], claims={"/data": "data"}
    )
    return [*server, objects.claim("data"), toolbox]


def _storage(endpoint: str) -> Object:
    return objects.s3_storage(
        "object-storage", bucket=BUCKET, endpoint=endpoint, secret_name="object-storage"
    )


@pytest.fixture
def drawer(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drawer]:
    """Give the drawer, and a bucket on this machine: both clusters reach it by the machine's end of their cable."""
    with servers.seaweed(tmp_path_factory.mktemp("seaweed"), "0.0.0.0") as running:
        running.client().create_bucket(Bucket=BUCKET)
        yield Drawer(tmp_path / "drawer", running, int(running.endpoint.rpartition(":")[2]))


@pytest.fixture
def _no_cluster() -> Iterator[None]:
    """Begin and end without a cluster of this test's name."""
    down(CLUSTER, print)
    yield
    down(CLUSTER, print)


class Town:
    """A cluster and what a person of the team does in it."""

    def __init__(self, cluster: Cluster, folder: Path, drawer: Drawer, product: dict[str, Image]) -> None:
        self.cluster, self.drawer, self.product = cluster, drawer, product
        self.kubeconfig = folder / "kubeconfig"  # a copy: the runbook sets the namespace in it
        shutil.copy(cluster.kubeconfig, self.kubeconfig)
        self.kubectl = Kubectl(cluster.kubectl, self.kubeconfig, NAMESPACE)
        self.images = {name: build_example(name, print) for name in ("postgres", "tools")}
        for image in (*self.images.values(), *product.values()):
            load_image(cluster, image.archive, image=image.name, digest=image.key)
        self.scene = Scene(self.kubectl, self.kubectl, self.images["tools"].name, PASSWORD)

    @property
    def uid(self) -> str:
        """Give what tells this cluster from others."""
        return str(self.kubectl.get("namespace", "kube-system")["metadata"]["uid"])

    @property
    def endpoint(self) -> str:
        """Give the bucket's address, as pods and the machine itself reach it."""
        assert self.cluster.layout is not None
        return f"http://{self.cluster.layout.network.host_address}:{self.drawer.port}"

    def variables(self) -> dict[str, str]:
        """Give what the runbook asks for."""
        return {
            "DRAWER": str(self.drawer.folder), "BUCKET": BUCKET, "REGION": "us-east-1", "ENDPOINT": self.endpoint,
            "NAMESPACE": NAMESPACE, "POLICY": POLICY, "DATABASE_HOST": "postgres", "DATABASE_PORT": "5432",
            "DATABASE": DATABASE, "CLAIM": "data", "CHART": str(runbook.PAGE.parents[1] / "charts" / "avalanche-backup"),
            "OPERATOR_IMAGE": self.product["avalanche-operator"].name, "BACKUP_IMAGE": self.product["avalanche-backup"].name,
        }  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Give kubectl and helm that speak to this cluster."""
        path = f"{self.cluster.kubectl.parent}:{self.cluster.helm.parent}:{os.environ['PATH']}"
        return {"PATH": path, "KUBECONFIG": str(self.kubeconfig)}

    def psql(self, sql: str) -> str:
        """Run SQL as the database's owner."""
        return self.scene.psql(sql, DATABASE)

    def rows(self) -> str:
        """Give a fingerprint of the database."""
        return self.psql(
            "SELECT count(*), md5(string_agg(s::text, ',' ORDER BY id)) FROM samples AS s; SELECT md5(lo_get(7))"
        )

    def files(self) -> str:
        """Give a fingerprint of the files."""
        return self.scene.shell(
            "cd /data && find . -type f -exec sha256sum {} + | sort && find . -type l -printf '%p %l\\n'"
        )

    def runs(self) -> dict[str, str]:
        """Give the data of every Backup that is there: its ID, and who started it."""
        found = self.kubectl.list("backups.avalanche.io")
        there = [each for each in found if "removal" not in each["status"]]
        return {str(each["status"]["backupID"]): str(each["spec"]["origin"]) for each in there}


def _found_a_town(folder: Path, drawer: Drawer) -> Town:
    """Build the cluster that will be lost: the product, the application with data, a storage, a policy, and two backups."""
    cluster = ensure(CLUSTER, print)
    install(cluster, print)
    town = Town(cluster, folder, drawer, load_product(cluster, print))
    drawer.write(town.endpoint, {name: image.name for name, image in town.images.items()})
    kubectl = town.kubectl
    kubectl.run("create", "namespace", NAMESPACE)
    for name in ("object-storage", "database"):
        kubectl.run("create", "secret", "generic", name, f"--from-env-file={drawer.folder / name}.env")
    kubectl.run(
        "create", "secret", "generic", "age-identity", f"--from-file=identity={drawer.folder}/age.identity"
    )
    kubectl.run("apply", f"--filename={drawer.folder}/application", f"--filename={drawer.folder}/storage")
    kubectl.run("wait", "deployments", "--all", "--for=condition=Available", "--timeout=120s")
    town.psql(
        "CREATE TABLE samples AS SELECT n AS id, md5(n::text) AS hash FROM generate_series(1, 5000) AS n;"
        "SELECT lo_from_bytea(7, 'large');"
    )
    town.scene.shell(
        "mkdir /data/results && seq 1 50000 > '/data/results/table 1.csv' && ln -s 'table 1.csv' /data/results/latest"
    )
    kubectl.run("apply", f"--filename={drawer.folder}/policies")
    kubectl.wait("backuppolicy", POLICY, has_condition("Ready", "True"))
    for name in ("first-night", "second-night"):
        assert town.scene.run_by_schedule(POLICY, name)["status"]["phase"] == "Succeeded"
    return town


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("_no_cluster")
def test_a_lost_database_and_then_a_lost_cluster_come_back_by_the_runbook(
    tmp_path: Path, drawer: Drawer
) -> None:
    town = _found_a_town(tmp_path, drawer)
    rows, files, old = town.rows(), town.files(), town.runs()
    town.psql("DROP TABLE samples; SELECT lo_unlink(7)")
    runbook.run("(a) A database or a namespace is lost", town.variables(), tmp_path, **town.environment())
    assert town.rows() == rows and len(old) == 2
    lost = town.uid
    assert drawer.owner() == lost
    down(CLUSTER, print)

    rebuilt = Town(ensure(CLUSTER, print), tmp_path, drawer, town.product)
    runbook.run("(b) The cluster is lost", rebuilt.variables(), tmp_path, **rebuilt.environment())
    assert rebuilt.rows() == rows and rebuilt.files() == files
    assert rebuilt.uid != lost and drawer.owner() == rebuilt.uid
    _retention_goes_on(rebuilt, max(old), min(old))


def _retention_goes_on(town: Town, newest: str, older: str) -> None:
    """Each policy's last is kept, the lost one's and the new one's; what is older goes, and what a person asked for stays."""
    after = town.kubectl.get("backups.avalanche.io", "after-the-loss")["status"]["backupID"]
    assert town.runs() == {newest: "Discovered", after: "Manual"} and newest > older
    made = []
    for name in ("third-night", "fourth-night"):
        status = town.scene.run_by_schedule(POLICY, name)["status"]
        assert status["phase"] == "Succeeded", status
        made.append(str(status["backupID"]))
    last = town.scene.clean_up(POLICY, "another-cleanup")["status"]["lastCleanup"]
    assert last["removed"] == 1, last
    assert set(town.runs()) == {newest, after, max(made)}
    stored = town.drawer.seaweed.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{NAMESPACE}/{POLICY}/full/")
    metadata = {
        each["Key"].rpartition("/")[2]
        for each in stored["Contents"]
        if each["Key"].endswith("_metadata.json")
    }
    assert metadata == {f"{each}_metadata.json" for each in (newest, after, max(made))}
