"""Whose a policy's folder in storage is: ``owner.json`` there says it, and everybody who writes looks first.

A cluster owns a folder by its UID, with namespace and policy. The command line has none of these: to it, a folder is that of
:data:`STANDALONE` or somebody else's.
"""

from __future__ import annotations

import json
from typing import Any

from avalanche_backup import layout
from avalanche_backup.catalog import read_json
from avalanche_backup.errors import ObjectExists, StorageInvalid
from avalanche_backup.storage.base import Store
from avalanche_contract.request import Writer

STANDALONE = "standalone"
"""What the owner of a folder is called that the command line writes to."""


def check_owner(store: Store, prefix: str, writer: Writer, *, claim: bool) -> None:
    """Refuse a folder that somebody else writes to; with ``claim``, take one that is nobody's.

    A folder of the owner that ``take_over`` names is as good as ours, and with ``claim`` becomes so: to a cluster, where namespace
    and policy are its own.

    :raises StorageInvalid: it is another's.
    """
    wanted = {"cluster_uid": writer.cluster_uid, "namespace": writer.namespace, "policy": writer.policy,
              "policy_uid": writer.policy_uid}  # fmt: skip
    adopted = writer.take_over and _read_owner(store, f"{prefix}{layout.OWNER_FILE}")
    if adopted and _is_the_one(adopted, wanted, writer.take_over or ""):
        if claim:
            path = {} if writer.cluster_uid else {name: adopted.get(name) for name in ("namespace", "policy")}
            document = json.dumps(wanted | path, indent=2).encode()
            store.put(f"{prefix}{layout.OWNER_FILE}", document, overwrite=True)
        return
    _check_owner(store, prefix, wanted, claim=claim)


def copy_owner(store: Store, prefix: str, target: Store, target_prefix: str) -> None:
    """Let a folder belong to whom another one belongs to.

    :raises StorageInvalid: it is somebody else's.
    """
    owner = _read_owner(store, f"{prefix}{layout.OWNER_FILE}")
    if owner is not None:
        _check_owner(target, target_prefix, owner, claim=True)


def _is_the_one(owner: dict[str, Any], wanted: dict[str, Any], named: str) -> bool:
    """Say whether a folder belongs to the owner who was named, and may become ours."""
    uid = "" if named == STANDALONE else named
    if owner.get("cluster_uid") != uid:
        return False
    nameless = not owner.get("namespace") and not owner.get("policy")  # the command line made it
    return nameless or not _differences(owner, {**wanted, "cluster_uid": uid})


def _differences(owner: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Name what tells two owners apart; a policy that was made anew is the same one, and the command line knows no policy."""
    told = ("cluster_uid", "namespace", "policy") if wanted["policy"] else ("cluster_uid",)
    return [name for name in told if owner.get(name) != wanted[name]]


def _check_owner(store: Store, prefix: str, wanted: dict[str, Any], *, claim: bool) -> None:
    key = f"{prefix}{layout.OWNER_FILE}"
    owner = _read_owner(store, key)
    if owner is None and claim:
        try:
            store.put(key, json.dumps(wanted, indent=2).encode())
        except ObjectExists:
            owner = _read_owner(store, key)
    if owner is not None and _differences(owner, wanted):
        raise StorageInvalid(
            f"{store.locate(prefix)} belongs to {_described(owner)}: choose another prefix{_remedy(owner, wanted)}",
            reason="OwnedByAnother",
        )


def _described(owner: dict[str, Any]) -> str:
    if owner.get("policy"):
        named = f"policy {owner.get('namespace')}/{owner.get('policy')} of cluster"
        return f"{named} {owner.get('cluster_uid') or STANDALONE}"
    return f"a command line without a cluster ({STANDALONE})"


def _remedy(owner: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Say how the folder is adopted, to a policy or to a person at the command line."""
    uid = owner.get("cluster_uid") or STANDALONE
    if wanted["policy"]:
        return (
            ", or another name for the policy; if that cluster is lost, or writes there no more, spec.takeOver of this policy "
            f"with its UID adopts the folder (takeOver: {uid})"
        )
    return f"; if that cluster is lost, or writes there no more, the next backup adopts the folder by --take-over {uid}"


def _read_owner(store: Store, key: str) -> dict[str, Any] | None:
    """Give who owns a folder; one whose document cannot be read is somebody's, and not known to be ours."""
    owner = read_json(store, key)
    if owner == {}:
        raise StorageInvalid(
            f"{store.locate(key)} cannot be read, and says whose this folder is: restore it, or delete it if it is yours",
            reason="OwnerUnknown",
        )
    return owner
