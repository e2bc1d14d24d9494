"""Which destinations of a policy its runs write to, and whether they are enough. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from avalanche_operator.kube.conditions import Verdict, find_condition

Object = dict[str, Any]
_UNMOUNTABLE = ("ClaimNotFound", "ClaimInUse", "ClaimsOnTwoNodes")


@dataclass(frozen=True)
class Destinations:
    """What became of the destinations that a policy names."""

    written: tuple[Object, ...]
    """The storages that runs write to, in the policy's order; one that is down is among them, and costs its copy alone."""
    unusable: frozenset[str]
    """Those that are not known to be usable: a probe of the policy does not wait for them."""
    obstacle: Verdict | None
    """Why the policy is not Ready: too few of them can be used."""
    complete: Verdict | None
    """CopiesComplete; ``None`` where there is one destination."""


def choose(storages: Mapping[str, Object | None], min_copies: int | None) -> Destinations:
    """Choose among the storages of a policy, by name and in its order; ``None`` is one that does not exist.

    Without ``min_copies`` all are needed. A run never mounts what would keep its pod from starting.
    """
    needed = min_copies or len(storages)
    verdicts = {name: storage_verdict(each, name) for name, each in storages.items()}
    faults = [each for each in verdicts.values() if each is not None]
    unusable = frozenset(name for name, each in verdicts.items() if each is not None)
    several = len(storages) > 1
    written = tuple(
        each for each in storages.values() if each is not None and not (several and _stands_aside(each))
    )
    same = _same_place(storages)
    if same is not None:
        return Destinations(
            written if len(written) >= needed else (), unusable, same, _complete([same], several)
        )
    obstacle = None if len(storages) - len(faults) >= needed else _worst(faults, needed, len(storages))
    return Destinations(
        written if len(written) >= needed else (), unusable, obstacle, _complete(faults, several)
    )


def storage_verdict(storage: Object | None, name: str) -> Verdict | None:
    """Say what is wrong with the storage of a policy, or ``None``."""
    if storage is None:
        return Verdict("Ready", "False", "StorageNotFound", f"BackupStorage {name} does not exist: create it")
    found = find_condition((storage.get("status") or {}).get("conditions") or (), "Ready")
    if found is None or found["status"] == "Unknown":
        return Verdict(
            "Ready", "Unknown", "StorageNotProbed", f"BackupStorage {name} is not known to be usable yet"
        )
    if found["status"] == "False":
        return Verdict(
            "Ready",
            "False",
            "StorageNotReady",
            f"BackupStorage {name}: {found['reason']}: {found.get('message', '')}",
        )
    if storage["spec"].get("accessMode") == "ReadOnly":
        return Verdict(
            "Ready", "False", "StorageReadOnly", f"BackupStorage {name} is ReadOnly: nothing is written to it"
        )
    return None


def can_be_mounted(storage: Object) -> bool:
    """Say whether a pod that mounts it may start; every bucket can be, whether it answers or not."""
    ready = find_condition((storage.get("status") or {}).get("conditions") or (), "Ready")
    return "claim" not in storage["spec"] or ready is None or ready["reason"] not in _UNMOUNTABLE


def _stands_aside(storage: Object) -> bool:
    """Say whether a run would be refused there, or its pod never start."""
    return storage["spec"].get("accessMode") == "ReadOnly" or not can_be_mounted(storage)


def _same_place(storages: Mapping[str, Object | None]) -> Verdict | None:
    known: dict[str, str] = {}
    for name, storage in storages.items():
        found = ((storage or {}).get("status") or {}).get("storageID")
        if found and found in known:
            return Verdict(
                "Ready",
                "False",
                "SamePlace",
                f"BackupStorages {known[found]} and {name} are one place: two copies there are lost together; name another",
            )
        known[found or name] = name
    return None


def _worst(faults: list[Verdict], needed: int, count: int) -> Verdict:
    """Tell of every fault; what is known to be wrong comes before what is not known yet."""
    first = next((each for each in faults if each.status == "False"), faults[0])
    if count == 1:
        return first
    told = "; ".join(each.message for each in faults)
    return Verdict(
        "Ready", first.status, first.reason, f"{count - len(faults)} of {needed} storages can be used: {told}"
    )


def _complete(faults: list[Verdict], several: bool) -> Verdict | None:
    if not several:
        return None
    if not faults:
        return Verdict("CopiesComplete", "True", "Usable", "every destination can be used")
    worst = next((each for each in faults if each.status == "False"), faults[0])
    told = "; ".join(each.message for each in faults)
    return Verdict(
        "CopiesComplete", worst.status, worst.reason, f"no copy is made where it cannot be: {told}"
    )
