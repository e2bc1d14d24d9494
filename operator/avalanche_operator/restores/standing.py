"""A restore where nothing of the old cluster is left: no policy, and a backup that is named by where it lies. Pure.

Without its policy nobody knows where the data goes: the target must say everything, and what it does not say is named at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from avalanche_contract.names import policy_prefix
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.common import LocalReference
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import FromStorage, RestoreRequestSpec, Target
from avalanche_operator.api.source import PolicySource
from avalanche_operator.backups.decide import readable
from avalanche_operator.restores.targets import NotYet, RestoreImpossible

Object = dict[str, Any]
KINDS = ("postgresql", "sqlite", "files")


def by_name(
    spec: RestoreRequestSpec, backups: Iterable[Object], storages: Iterable[Object]
) -> RestoreRequestSpec:
    """Give a request that names its backup by where it lies as one that names the Backup which shows it.

    :raises RestoreImpossible: none does, or several do. :raises NotYet: the storage was not read yet.
    """
    wanted = spec.from_storage
    if wanted is None:
        return spec
    found = [each["metadata"]["name"] for each in backups if _is_meant(each, wanted)]
    if len(found) == 1:
        return spec.model_copy(update={"backup_ref": LocalReference(name=found[0]), "from_storage": None})
    where = f"BackupStorage {wanted.storage_ref.name}"
    if found:
        raise RestoreImpossible(
            "BackupAmbiguous",
            f"{wanted.backup_id} is the name of {len(found)} backups in {where} ({', '.join(sorted(found)[:5])}): give "
            "fromStorage.policy",
        )
    storage = next((each for each in storages if each["metadata"]["name"] == wanted.storage_ref.name), None)
    if storage is None:
        raise RestoreImpossible("StorageNotFound", f"{where} does not exist: create it")
    read = (storage.get("status") or {}).get("lastSyncTime")
    if read is None:
        raise NotYet(f"{where} is being read: its backups appear then")
    raise RestoreImpossible(
        "BackupNotFound",
        f"{wanted.backup_id} was not in {where} when it was read at {read}, in the folders that its discovery names; what "
        "came since appears with the next reading (syncSchedule)",
    )


def _is_meant(backup: Object, wanted: FromStorage) -> bool:
    status = readable(backup)
    if status is None:
        return False
    stored = {each.storage for each in status.copies} or {str(status.storage)}
    folder = status.prefix or policy_prefix(
        backup["metadata"]["namespace"], backup["spec"]["policyRef"]["name"]
    )
    return (
        status.backup_id == wanted.backup_id
        and status.phase in ("Succeeded", "Suspect")
        and wanted.storage_ref.name in stored
        and (wanted.policy is None or folder.endswith(f"/{wanted.policy}/"))
    )


def policy_of(spec: RestoreRequestSpec, backup: Object | None, policy: str, storage: str) -> BackupPolicySpec:
    """Give a policy that has just the sources of a backup, each where the request puts it, and defaults for the rest.

    :raises RestoreImpossible: the target does not say everything, or the backup is not shown any more.
    """
    status = BackupStatus.model_validate((backup or {}).get("status") or {})
    kinds = {each.source: each.kind for each in status.artifacts}
    target = spec.target or Target()
    wanted = _wanted(spec, kinds) if kinds else []
    lacking = dict.fromkeys(part for name in wanted for part in _lacking(kinds[name], target))
    if lacking or not kinds:
        told = f"give {', '.join(lacking)}, or " if lacking else ""
        raise RestoreImpossible(
            "PolicyNotFound",
            f"BackupPolicy {policy} does not exist, and its sources say where the data goes: {told}apply it again "
            "(with suspend: true it runs nothing), then create this request anew",
        )
    try:
        sources = [_source(name, kinds[name], target).model_dump(by_alias=True) for name in wanted]
        destinations = [{"storageRef": {"name": storage}}]
        return BackupPolicySpec.model_validate(
            {"schedule": "@yearly", "sources": sources, "destinations": destinations}
        )
    except ValidationError as error:  # the names of sources are the metadata's word
        told = f"the backup has a source that cannot be restored here: {error.errors()[0]['msg']}"
        raise RestoreImpossible("BackupNotUsable", told) from None


def _wanted(spec: RestoreRequestSpec, kinds: dict[str, str]) -> list[str]:
    """Name the sources that come back; two of one kind would come to lie in one place."""
    chosen = spec.sources or tuple(each for each in kinds if not spec.paths or kinds[each] == "files")
    wanted = [each for each in chosen if each in kinds]
    if not wanted or len(wanted) < len(chosen):
        raise RestoreImpossible(
            "SourceNotInBackup",
            f"the backup holds {', '.join(kinds)}: choose of these",
        )
    strange = next((each for each in wanted if kinds[each] not in KINDS), None)
    if strange is not None:
        raise RestoreImpossible("BackupNotUsable", f"source {strange} is of a kind that is not known here")
    if len({kinds[each] for each in wanted}) < len(wanted):
        raise RestoreImpossible(
            "TargetInvalid",
            f"target would put several of {', '.join(wanted)} into one place: restore them by a request each (spec.sources)",
        )
    return wanted


def _lacking(kind: str, target: Target) -> Iterator[str]:
    """Name what a target does not say for a source of a kind."""
    if kind == "postgresql":
        found = target.postgresql
        needed = {"host": "host", "database": "database", "credentials_secret_ref": "credentialsSecretRef"}
        yield from (
            f"target.postgresql.{shown}"
            for name, shown in needed.items()
            if getattr(found, name, None) is None
        )
        return
    if target.claim is None:
        yield "target.claim"
    if kind == "sqlite" and target.path is None:
        yield "target.path"


def _source(name: str, kind: str, target: Target) -> PolicySource:
    if kind == "postgresql" and target.postgresql is not None:
        told = target.postgresql.model_dump(by_alias=True, exclude_none=True, exclude={"jobs"})
        return PolicySource.model_validate({"name": name, "postgresql": told})
    claim = target.claim.model_dump() if target.claim is not None else None
    part = {"claim": claim, "path": target.path} if kind == "sqlite" else {"claim": claim}
    return PolicySource.model_validate({"name": name, kind: part})
