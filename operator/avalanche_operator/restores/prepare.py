"""Reading what a restore is built from: the backup, its policy, the storages. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from avalanche_contract.names import policy_prefix
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.applying.copies import can_be_mounted
from avalanche_operator.jobs.build import IdentitiesDiffer, service_account
from avalanche_operator.kube.conditions import find_condition
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.restores.build import Prepared, Undone
from avalanche_operator.restores.standing import by_name, policy_of
from avalanche_operator.restores.targets import (
    RestoreImpossible,
    check_preserve,
    choose_backup,
    chosen_sources,
    readers_of,
    storages_of,
)
from avalanche_operator.restores.undoing import backup_of_undone
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


async def pin(
    found: Object, spec: RestoreRequestSpec, status: RestoreRequestStatus, gateway: Gateway
) -> RestoreRequestStatus:
    """Choose the backup, once.

    :raises RestoreImpossible: there is none. :raises NotYet: it is still being made.
    """
    if status.backup is not None:
        return status
    namespace = found["metadata"]["namespace"]
    if spec.undo is not None:
        undone = await gateway.get("RestoreRequest", namespace, spec.undo.name)
        return status.model_copy(update={"backup": backup_of_undone(spec.undo.name, undone)})
    backups = await gateway.list("Backup", namespace)
    storages = await gateway.list("BackupStorage", namespace)
    usable = {each["metadata"]["name"] for each in storages if _is_ready(each)}
    named = by_name(spec, backups, storages)
    chosen = choose_backup(named, backups, usable)
    if spec.from_storage is not None:  # whoever names a storage wants that one read
        chosen = chosen.model_copy(update={"storage": spec.from_storage.storage_ref.name})
    return status.model_copy(update={"backup": chosen})


async def prepare(
    found: Object, spec: RestoreRequestSpec, status: RestoreRequestStatus, around: Surroundings
) -> Prepared:
    """Bring together what the Jobs of a request are built from.

    :raises RestoreImpossible: something that it needs is gone.
    """
    namespace, gateway, pinned = found["metadata"]["namespace"], around.gateway, status.backup
    if pinned is None:
        raise RestoreImpossible("BackupNotFound", "no backup was chosen")
    backup = await gateway.get("Backup", namespace, pinned.name)
    policy = await gateway.get("BackupPolicy", namespace, pinned.policy)
    undone = await _undone(spec, namespace, gateway)
    wanted = undone.spec if undone else spec
    policy_spec = (
        BackupPolicySpec.model_validate(policy["spec"])
        if policy is not None
        else policy_of(wanted, backup, pinned.policy, pinned.storage)
    )
    targets = chosen_sources(wanted, policy_spec, backup or {})
    check_preserve(wanted.preserve, targets, allowed=around.settings.allow_ownership)
    readers = readers_of(targets, await gateway.list("BackupPolicy", namespace))
    found_storages = {
        str(each["metadata"]["name"]): each for each in await gateway.list("BackupStorage", namespace)
    }
    locks = sorted(_lock_places(readers, found_storages, namespace))
    storages = {
        name: BackupStorageSpec.model_validate(each["spec"])
        for name, each in found_storages.items()
        if name in {pinned.storage, *(storage for storage, _ in locks)}
    }
    if undone is None and pinned.storage not in storages:
        raise RestoreImpossible(
            "StorageNotFound", f"BackupStorage {pinned.storage} does not exist: create it"
        )
    prepared = Prepared(
        found=found,
        spec=spec,
        backup=pinned,
        storages=storages,
        policy=policy_spec,
        targets=targets,
        readers=tuple(readers),
        number=status.plan_number,
        locks=tuple(each for each in locks if storages[each[0]].access_mode == "ReadWrite"),
        settings=around.settings,
        undone=undone,
    )
    try:
        service_account(prepared.mounts("Execute"))
    except IdentitiesDiffer as differ:
        raise RestoreImpossible(differ.reason, str(differ)) from None
    return prepared


async def _undone(spec: RestoreRequestSpec, namespace: str, gateway: Gateway) -> Undone | None:
    """Read the restore that a request takes back.

    :raises RestoreImpossible: it is gone, or nothing that can be taken back.
    """
    if spec.undo is None:
        return None
    there = await gateway.get("RestoreRequest", namespace, spec.undo.name)
    backup_of_undone(spec.undo.name, there)
    return (
        Undone(there["metadata"]["uid"], RestoreRequestSpec.model_validate(there["spec"])) if there else None
    )


def _is_ready(storage: Object) -> bool:
    found = find_condition((storage.get("status") or {}).get("conditions") or (), "Ready")
    return found is not None and found["status"] == "True"


def _lock_places(
    readers: Iterable[Object], storages: Mapping[str, Object], namespace: str
) -> Iterator[tuple[str, str]]:
    """Give (storage, prefix) of every destination of some policies; of several, one that no pod can mount is left out."""
    for each in readers:
        prefix = policy_prefix(namespace, each["metadata"]["name"])
        there = [name for name in storages_of(each) if name in storages]
        mountable = [name for name in there if can_be_mounted(storages[name])]
        yield from ((name, prefix) for name in mountable or there)
