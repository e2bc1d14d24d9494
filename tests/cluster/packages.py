"""Debian's packages that a node of our own needs: installed only as root, only on Debian, and announced first."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.cluster.build import locked
from tests.cluster.layout import ClusterFailed, cache_root
from tests.cluster.processes import program, run

NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "nsenter": "util-linux",
}
"""What must be there, and the package that brings it."""
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


def ensure_packages(wanted: dict[str, str], say: Callable[[str], None]) -> None:
    """Install what is missing; of several processes that miss something, one does.

    :raises ClusterFailed: something is missing and this is not root on Debian.
    """
    missing = _missing(wanted)
    if not missing:
        return
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        raise ClusterFailed(
            f"missing here: {', '.join(missing)}. Install them, or run as root on Debian, or set KUBECONFIG"
        )
    with locked(cache_root() / "packages.lock"):
        _install(_missing(wanted), say)


def _install(missing: list[str], say: Callable[[str], None]) -> None:
    if not missing:  # another process was faster
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    if not any(Path("/var/lib/apt/lists").glob("*Packages*")):
        run("apt-get", "update")
    options = ["--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", *options, *missing)


def _missing(wanted: dict[str, str]) -> list[str]:
    return sorted({package for name, package in wanted.items() if not _there(name)})


def _there(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else program(name) is not None
