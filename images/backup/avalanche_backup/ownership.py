"""Whose a policy's folder in storage is: ``owner.json`` there says it, and everybody who writes looks first.

A cluster owns a folder by its UID, with namespace and policy. The command line has none of these: to it, a folder is that of
:data:`STANDALONE` or somebody else's.

An adoption is remembered there, and a policy carries it out once: two policies that both say ``takeOver`` do not take the
folder from each other for ever. A person at the command line says so each time.
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
ADOPTIONS = "adoptions"
Document = dict[str, Any]


def check_owner(store: Store, prefix: str, writer: Writer, *, claim: bool, adopting: bool = False) -> None:
    """Refuse a folder that somebody else writes to; with ``claim``, take one that is nobody's.

    With ``adopting``, a folder of the owner that ``take_over`` names is as good as ours, and with ``claim`` becomes so: to a
    cluster, where namespace and policy are its own. Only backups and the look before them adopt, never what keeps or removes.

    :raises StorageInvalid: it is another's.
    """
    wanted = {"cluster_uid": writer.cluster_uid, "namespace": writer.namespace, "policy": writer.policy,
              "policy_uid": writer.policy_uid}  # fmt: skip
    named = writer.take_over if adopting else None
    adopted = _read_owner(store, f"{prefix}{layout.OWNER_FILE}") if named else None
    if adopted and named and _is_the_one(adopted, wanted, named) and not _is_replayed(adopted, wanted):
        if claim:
            path = {} if writer.cluster_uid else {name: adopted.get(name) for name in ("namespace", "policy")}
            remembered = {ADOPTIONS: [*_adoptions(adopted), _pair(adopted, wanted)]}
            document = json.dumps(wanted | path | remembered, indent=2).encode()
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


def _is_the_one(owner: Document, wanted: Document, named: str) -> bool:
    """Say whether a folder belongs to the owner who was named, and may become ours."""
    uid = "" if named == STANDALONE else named
    if owner.get("cluster_uid") != uid:
        return False
    nameless = not owner.get("namespace") and not owner.get("policy")  # the command line made it
    return nameless or not _differences(owner, {**wanted, "cluster_uid": uid})


def _pair(owner: Document, wanted: Document) -> Document:
    return {"from": owner.get("cluster_uid") or STANDALONE, "to": wanted["cluster_uid"] or STANDALONE}


def _adoptions(owner: Document) -> list[Document]:
    """Give who adopted the folder from whom, in that order."""
    found = owner.get(ADOPTIONS)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _is_replayed(owner: Document, wanted: Document) -> bool:
    """Say whether a policy has adopted the folder from its present owner before: its manifest says so still."""
    return bool(wanted["policy"]) and _pair(owner, wanted) in _adoptions(owner)


def _differences(owner: Document, wanted: Document) -> list[str]:
    """Name what tells two owners apart; a policy that was made anew is the same one, and the command line knows no policy."""
    told = ("cluster_uid", "namespace", "policy") if wanted["policy"] else ("cluster_uid",)
    return [name for name in told if owner.get(name) != wanted[name]]


def _check_owner(store: Store, prefix: str, wanted: Document, *, claim: bool) -> None:
    key = f"{prefix}{layout.OWNER_FILE}"
    owner = _read_owner(store, key)
    if owner is None and claim:
        try:
            store.put(key, json.dumps(wanted, indent=2).encode())
        except ObjectExists:
            owner = _read_owner(store, key)
    if owner is not None and _differences(owner, wanted):
        raise StorageInvalid(
            f"{store.locate(prefix)} {_described(owner, wanted)}: choose another prefix{_remedy(owner, wanted)}",
            reason="OwnedByAnother",
        )


def _described(owner: Document, wanted: Document) -> str:
    """Say whose a folder is, and that it was taken over from here where it was."""
    last = _adoptions(owner)[-1:]
    taken = any(each.get("from") == (wanted["cluster_uid"] or STANDALONE) for each in last)
    belongs = "was taken over from here, and belongs to" if taken else "belongs to"
    if owner.get("policy"):
        named = f"policy {owner.get('namespace')}/{owner.get('policy')} of cluster"
        return f"{belongs} {named} {owner.get('cluster_uid') or STANDALONE}"
    return f"{belongs} a command line without a cluster ({STANDALONE})"


def _remedy(owner: Document, wanted: Document) -> str:
    """Say how the folder is adopted, to a policy or to a person at the command line."""
    uid = owner.get("cluster_uid") or STANDALONE
    if wanted["policy"] and not _is_the_one(owner, wanted, uid):
        return ", or another name for the policy"  # of another namespace or policy: never adopted
    if _is_replayed(owner, wanted):
        return (
            f", or another name for the policy; this cluster adopted it from {uid} before, and it was taken back: settle "
            f"which one writes there, and take {_pair(owner, wanted)} out of {ADOPTIONS} in its owner.json to adopt it again"
        )
    if wanted["policy"]:
        return (
            ", or another name for the policy; if that cluster is lost, or writes there no more, spec.takeOver of this policy "
            f"with its UID adopts the folder (takeOver: {uid})"
        )
    return f"; if that cluster is lost, or writes there no more, the next backup adopts the folder by --take-over {uid}"


def _read_owner(store: Store, key: str) -> Document | None:
    """Give who owns a folder; one whose document cannot be read is somebody's, and not known to be ours."""
    owner = read_json(store, key)
    if owner == {}:
        raise StorageInvalid(
            f"{store.locate(key)} cannot be read, and says whose this folder is: restore it, or delete it if it is yours",
            reason="OwnerUnknown",
        )
    return owner
