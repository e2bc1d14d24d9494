"""What the operator is told at its start: images, cluster, limits. Parsed once, from the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from avalanche_operator.kube.gateway import Gateway


@dataclass(frozen=True)
class Settings:
    """Constants of one installation."""

    backup_image: str
    drill_image: str
    """The backup image with a database server besides; where none is named it is the backup image, which drills no PostgreSQL."""
    cluster_uid: str
    """The UID of the namespace kube-system: what distinguishes clusters in a shared bucket."""
    namespaces: tuple[str, ...] = ()
    """The only ones that are looked at; empty is all of them."""
    workers: int = 8
    allow_ownership: bool = False
    """Let a restore that asks for owners run as root: its Job, and no other."""
    metrics_port: int | None = None
    """Where metrics are served; ``None`` is nowhere."""


@dataclass(frozen=True)
class Surroundings:
    """What every reconcile is given: the cluster, the settings, the clock."""

    gateway: Gateway
    settings: Settings
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


class SettingMissing(Exception):
    """A variable of the environment is missing or wrong; the text says which."""


def read_settings(environment: Mapping[str, str], cluster_uid: str) -> Settings:
    """Read the settings.

    :raises SettingMissing: ``AVALANCHE_BACKUP_IMAGE`` is not set, or another variable is wrong.
    """
    image = environment.get("AVALANCHE_BACKUP_IMAGE", "")
    if not image:
        raise SettingMissing("AVALANCHE_BACKUP_IMAGE is not set: it names the image that Jobs run")
    return Settings(
        backup_image=image,
        drill_image=environment.get("AVALANCHE_DRILL_IMAGE") or image,
        cluster_uid=cluster_uid,
        namespaces=namespaces_of(environment),
        allow_ownership=_allowed(environment, "AVALANCHE_ALLOW_OWNERSHIP"),
        metrics_port=_port(environment, "AVALANCHE_METRICS_PORT"),
    )


def _allowed(environment: Mapping[str, str], name: str) -> bool:
    """Read whether something is allowed; what was not said in so many words is not."""
    value = environment.get(name, "")
    if value not in ("", "true", "false"):
        raise SettingMissing(f"{name} is {value!r}: write true or false")
    return value == "true"


def _port(environment: Mapping[str, str], name: str) -> int | None:
    """Read a port; nothing is none."""
    value = environment.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
        raise SettingMissing(f"{name} is {value!r}: write a port, 1 to 65535, or nothing")
    return int(value)


def namespaces_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Read the namespaces that the operator is confined to: ``AVALANCHE_NAMESPACES``, split by commas."""
    named = (each.strip() for each in environment.get("AVALANCHE_NAMESPACES", "").split(","))
    return tuple(dict.fromkeys(each for each in named if each))


def from_process(cluster_uid: str) -> Settings:
    """Read the settings of this process."""
    return read_settings(os.environ, cluster_uid)
