"""Reading what a restore is built from: the backup, its policy, the storages. Reads only."""

from __future__ import annotations

from typing import Any

from avalanche_contract.names import policy_prefix
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import IdentitiesDiffer, service_account
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.restores.build import Prepared
from avalanche_operator.restores.targets import RestoreImpossible, choose_backup, chosen_sources, readers_of
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
    backups = await gateway.list("Backup", found["metadata"]["namespace"])
    return status.model_copy(update={"backup": choose_backup(spec, backups)})


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
    if policy is None:
        raise RestoreImpossible(
            "PolicyNotFound",
            f"BackupPolicy {pinned.policy} does not exist, and its sources say where the data goes: apply it again "
            "(with suspend: true it runs nothing), then create this request anew",
        )
    policy_spec = BackupPolicySpec.model_validate(policy["spec"])
    targets = chosen_sources(spec, policy_spec, backup or {})
    readers = readers_of(targets, await gateway.list("BackupPolicy", namespace))
    locks = sorted(
        (
            each["spec"]["destinations"][0]["storageRef"]["name"],
            policy_prefix(namespace, each["metadata"]["name"]),
        )
        for each in readers
    )
    storages = {
        name: await _storage(gateway, namespace, name)
        for name in {pinned.storage, *(name for name, _ in locks)}
    }
    own = storages[pinned.storage]
    if own is None:
        raise RestoreImpossible(
            "StorageNotFound", f"BackupStorage {pinned.storage} does not exist: create it"
        )
    there = {name: each for name, each in storages.items() if each is not None}
    prepared = Prepared(
        found=found,
        spec=spec,
        backup=pinned,
        storages=there,
        policy=policy_spec,
        targets=targets,
        readers=tuple(readers),
        number=status.plan_number,
        locks=tuple(each for each in locks if each[0] in there and there[each[0]].access_mode == "ReadWrite"),
        settings=around.settings,
    )
    try:
        service_account(prepared.mounts("Execute"))
    except IdentitiesDiffer as differ:
        raise RestoreImpossible(differ.reason, str(differ)) from None
    return prepared


async def _storage(gateway: Gateway, namespace: str, name: str) -> BackupStorageSpec | None:
    found = await gateway.get("BackupStorage", namespace, name)
    return BackupStorageSpec.model_validate(found["spec"]) if found is not None else None
