"""Where a cluster keeps its files, and which addresses are its own. Pure, but for reading the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

MAX_CLUSTERS = 8
NODE_NAME = "avalanche-node"
HERE = Path(__file__).resolve().parent
MODULES = HERE / "gomodules"
PROJECT = HERE.parent.parent


class ClusterFailed(RuntimeError):
    """The cluster cannot be had; the text says why and what to do."""


def cache_root() -> Path:
    """Give the folder of what is built once: ``AVALANCHE_CACHE``, else beneath the user's cache."""
    named = os.environ.get("AVALANCHE_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "avalanche-backup"


def state_root() -> Path:
    """Give the folder of what runs: ``AVALANCHE_STATE``, else ``/var/lib/avalanche-backup``."""
    return Path(os.environ.get("AVALANCHE_STATE") or "/var/lib/avalanche-backup")


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster; ``index`` sets clusters of one machine apart."""

    index: int

    @property
    def host_address(self) -> str:
        """The machine's end of the cable."""
        return f"10.201.{self.index}.1"

    @property
    def node_address(self) -> str:
        """The node's end of the cable: the API server, the kubelet and node ports answer here."""
        return f"10.201.{self.index}.2"

    @property
    def pods(self) -> str:
        """The range of the pods."""
        return f"10.{210 + self.index}.0.0/16"

    @property
    def services(self) -> str:
        """The range of the Services."""
        return f"10.{220 + self.index}.0.0/16"

    @property
    def first_service(self) -> str:
        """The address of the Service ``kubernetes``."""
        return f"10.{220 + self.index}.0.1"

    @property
    def dns(self) -> str:
        """The address of the Service ``kube-dns``."""
        return f"10.{220 + self.index}.0.10"

    @property
    def cable(self) -> str:
        """The machine's interface."""
        return f"avalanche{self.index}"


@dataclass(frozen=True)
class Layout:
    """The files of one cluster."""

    name: str
    root: Path
    network: Network

    @property
    def namespace(self) -> str:
        """The name of the network namespace."""
        return f"avalanche-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's way in."""
        return self.root / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Where the container runtime listens."""
        return self.root / "containerd.sock"

    @property
    def control_group(self) -> str:
        """The control group of all pods."""
        return f"/avalanche-{self.name}"

    def file(self, *parts: str) -> Path:
        """Give a file, in a folder that exists."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def folder(self, *parts: str) -> Path:
        """Give a folder that exists."""
        path = self.root.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


def checked_name(name: str) -> str:
    """Refuse a name that could not be part of paths and links."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise ClusterFailed(
            f"{name!r} is no name for a cluster: use up to 31 of a-z, 0-9 and -, a letter first"
        )
    return name


def first_free(taken: dict[str, int], name: str) -> int:
    """Give the index of a name: the one that it has, else the lowest that is free."""
    if name in taken:
        return taken[name]
    free = set(range(MAX_CLUSTERS)) - set(taken.values())
    if not free:
        raise ClusterFailed(f"{MAX_CLUSTERS} clusters are up on this machine: take one down first")
    return min(free)
