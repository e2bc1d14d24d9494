"""Kubernetes, etcd, Helm, CoreDNS and two small helpers, built once from their Go modules and kept in the cache.

The cache is keyed by the modules' files: a changed version is another folder, and a build that was interrupted
leaves a folder that nobody looks at.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.layout import MODULES, ClusterFailed, cache_root
from tests.cluster.processes import LAST_LINES, program

Say = Callable[[str], None]
KUBERNETES_VERSION = "1.35.4"
_STAMP = "k8s.io/component-base/version"
_KUBERNETES_FLAGS = (
    f"-s -w -X {_STAMP}.gitVersion=v{KUBERNETES_VERSION} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=35"
)


@dataclass(frozen=True)
class Program:
    """One binary: the module that it is built in, its package and its linker flags."""

    module: str
    package: str
    flags: str = "-s -w"


PROGRAMS = {
    **{
        name: Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", _KUBERNETES_FLAGS)
        for name in (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        )
    },
    "etcd": Program("kubernetes", "go.etcd.io/etcd/server/v3"),
    "helm": Program("helm", "helm.sh/helm/v4/cmd/helm"),
    "coredns": Program("coredns", "github.com/coredns/coredns"),
    "pause": Program("node", "./pause"),
    "provisioner": Program("node", "./provisioner"),
}


def cache_key() -> str:
    """Give the key of what the module files describe."""
    digest = hashlib.sha256()
    for path in sorted(MODULES.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(MODULES)}\n".encode())
            digest.update(path.read_bytes())
    digest.update(repr(PROGRAMS).encode())
    return digest.hexdigest()[:16]


def built() -> Path | None:
    """Give the folder of the binaries where they are built."""
    folder = cache_root() / f"cluster-{cache_key()}"
    return folder if folder.is_dir() else None


def ensure_built(say: Say) -> Path:
    """Give the folder of the binaries, building them where they are not there yet.

    :raises ClusterFailed: there is no Go, or a build failed.
    """
    with locked(cache_root() / "cluster.lock"):
        folder = built()
        if folder is not None:
            return folder
        return _build(cache_root() / f"cluster-{cache_key()}", say)


def _build(folder: Path, say: Say) -> Path:
    go = program("go")
    if go is None:
        raise ClusterFailed(
            "no cluster: set KUBECONFIG to one that you have, or install Go 1.26 or newer so that one can be built"
        )
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    say(f"building Kubernetes {KUBERNETES_VERSION} from its Go modules: about six minutes, once")
    for number, (name, each) in enumerate(PROGRAMS.items(), start=1):
        say(f"  {number:2}/{len(PROGRAMS)} {name}")
        _compile(go, each, unfinished / name)
    unfinished.rename(folder)
    return folder


def _compile(go: Path, each: Program, target: Path) -> None:
    command = [str(go), "build", "-trimpath", "-ldflags", each.flags, "-o", str(target), each.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"}
    ended = subprocess.run(
        command, cwd=MODULES / each.module, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        said = "\n".join(ended.stderr.splitlines()[-LAST_LINES:])
        raise ClusterFailed(f"building {each.package} failed:\n{said}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock among processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
