"""The bucket as anybody sees it: a plain S3 client, ``sha256sum``, ``gzip`` and ``psql``, and nothing of ours."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from demo.examples import BUCKET_NAMESPACE
from demo.steps import DemoFailed, Steps
from tests.e2e.kubectl import Kubectl, Object

BUCKET = "avalanche-backups"
BY_HAND = "by_hand"
TOOLBOX_PSQL = ("exec", "deployment/toolbox", "--", "psql", "-X", "-q", "--set=ON_ERROR_STOP=1")


@contextmanager
def client(kubectl: Kubectl) -> Iterator[Any]:
    """Give a plain S3 client for the Service, through a forwarded port."""
    secret = kubectl.get("secret", "object-storage")["data"]
    key, secret_key = (
        base64.b64decode(secret[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    )
    with client_with(kubectl.within(BUCKET_NAMESPACE), key, secret_key) as made:
        yield made


@contextmanager
def client_with(kubectl: Kubectl, key: str, secret_key: str) -> Iterator[Any]:
    """Give a plain S3 client with some keys, for the Service of a namespace."""
    configuration = Config(s3={"addressing_style": "path"})  # type: ignore[no-untyped-call]
    with _forwarded(kubectl) as endpoint:
        yield boto3.client(  # type: ignore[no-untyped-call]
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key,
            aws_secret_access_key=secret_key, config=configuration,
        )  # fmt: skip


def keys(s3: Any, backup_id: str = "") -> list[tuple[str, int]]:
    """List (key, size in bytes) of every object, or of those of one backup."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    found = [(each["Key"], each["Size"]) for page in pages for each in page.get("Contents", [])]
    return [(key, size) for key, size in found if backup_id in key]


def fetch(s3: Any, policy: str, backup: Object, ending: str, folder: Path) -> Path:
    """Download the artifact of a Backup, and check it with ``sha256sum``.

    :raises DemoFailed: there is none, or it is not what the Backup's status says.
    """
    backup_id, checksum = backup["status"]["backupID"], backup["status"]["checksum"]
    found = [key for key, _ in keys(s3, backup_id) if f"/{policy}/" in key and key.endswith(ending)]
    if len(found) != 1:
        raise DemoFailed(f"{backup_id} has {len(found)} objects that end with {ending}, not one: {found}")
    path = folder / Path(found[0]).name
    s3.download_file(BUCKET, found[0], str(path))
    if f"sha256:{_run('sha256sum', path).split()[0]}" != checksum:
        raise DemoFailed(f"sha256sum of {found[0]} is not the checksum of the Backup")
    return path


def unpack(artifact: Path) -> Path:
    """Decompress with ``gzip``."""
    _run("gzip", "--decompress", "--keep", "--force", artifact)
    return artifact.with_suffix("")


def restore_with_psql(kubectl: Kubectl, dump: Path, steps: Steps) -> None:
    """Restore a dump into a database of its own, as a person would."""
    admin = [*TOOLBOX_PSQL, "--dbname=postgres"]
    kubectl.run(
        *admin,
        f"--command=DROP DATABASE IF EXISTS {BY_HAND} WITH (FORCE)",
        f"--command=CREATE DATABASE {BY_HAND}",
    )
    steps.detail(f"$ psql --dbname={BY_HAND} --file={dump.name}")
    kubectl.run("cp", str(dump), f"{_toolbox_pod(kubectl)}:/work/{dump.name}")
    kubectl.run(*TOOLBOX_PSQL, "--single-transaction", f"--dbname={BY_HAND}", f"--file=/work/{dump.name}")
    kubectl.run("exec", "deployment/toolbox", "--", "rm", f"/work/{dump.name}")


def _toolbox_pod(kubectl: Kubectl) -> str:
    pods = kubectl.list("pods", "app=toolbox")
    return next(str(pod["metadata"]["name"]) for pod in pods if "deletionTimestamp" not in pod["metadata"])


@contextmanager
def _forwarded(kubectl: Kubectl) -> Iterator[str]:
    command = [str(kubectl.program), f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={kubectl.namespace}",
               "port-forward", "service/seaweedfs", ":8333"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            said = process.stdout.readline() if process.stdout else ""
            address = said.removeprefix("Forwarding from ").partition(" ")[0]
            if not said.startswith("Forwarding from "):
                raise DemoFailed(f"kubectl port-forward failed: {said.strip()}")
            yield f"http://{address}"
        finally:
            process.terminate()


def _run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise DemoFailed(f"{command[0]} failed: {ended.stderr.strip()}")
    return ended.stdout
