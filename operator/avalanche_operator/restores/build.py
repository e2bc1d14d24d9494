"""The two Jobs of a restore: the plan, and its execution. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from avalanche_contract import names
from avalanche_contract.request import BackupReference, RestoreTarget, UndoRequest
from avalanche_contract.request import RestoreRequest as Request
from avalanche_contract.source import FilesSource
from avalanche_contract.storage import Place
from avalanche_operator.api.common import IdentityReference
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import PinnedBackup, RestoreRequestSpec
from avalanche_operator.api.source import PolicySource
from avalanche_operator.api.storage import BackupStorageSpec
from avalanche_operator.jobs.build import JobPlan, Placement, nonce_of
from avalanche_operator.jobs.mounts import (
    Mounts,
    identity_part,
    preserve_part,
    source_part,
    storage_part,
    trusting,
)
from avalanche_operator.settings import Settings

Object = dict[str, Any]
PLAN_SECONDS = 600
KEPT_SECONDS = 3600
"""How long a Job stays after its end, for who wants to read its log."""


@dataclass(frozen=True)
class Undone:
    """A restore that is taken back: its request's UID marks what it kept, its spec says where."""

    uid: str
    spec: RestoreRequestSpec


@dataclass(frozen=True)
class Prepared:
    """Everything that the Jobs of one request are built from."""

    found: Object
    spec: RestoreRequestSpec
    backup: PinnedBackup
    storages: dict[str, BackupStorageSpec]
    """By name: of the backup, and of the policies that pause."""
    policy: BackupPolicySpec
    targets: tuple[PolicySource, ...]
    readers: tuple[Object, ...]
    """The policies that read what is written to: they pause."""
    locks: tuple[tuple[str, str], ...]
    """(storage, prefix) of each of them."""
    number: int
    """How many plans were made before this one."""
    settings: Settings
    undone: Undone | None = None
    """The restore that is taken back, where no backup is restored."""

    @property
    def nonce(self) -> str:
        """Give the mark of the log lines."""
        return nonce_of(self.found["metadata"]["uid"], self.settings.cluster_uid)

    @property
    def carried_out(self) -> RestoreRequestSpec:
        """Give the spec that says what is done at the targets: of the restore that is taken back, where one is."""
        return self.undone.spec if self.undone is not None else self.spec

    @property
    def identity(self) -> IdentityReference | None:
        """Give what opens the backup where it is encrypted: what the request names, else the policy."""
        encryption = self.policy.encryption
        return self.spec.identity_secret_ref or (encryption.identity_secret_ref if encryption else None)

    def mounts(self, mode: Literal["Plan", "Execute"]) -> Mounts:
        """Give what a pod mounts; only the execution writes to a target and takes locks."""
        parts = [source_part(each, "restore")[1] for each in self.targets]
        read = [self.backup.storage] if self.undone is None else []
        stores = [*read, *(storage for storage, _ in self.locks if mode == "Execute")]
        return sum(
            (storage_part(name, self.storages[name])[1] for name in dict.fromkeys(stores)),
            sum(parts, identity_part(self.identity if self.undone is None else None)[1]),
        )


def job_name(found: Object, mode: Literal["Plan", "Execute"], number: int) -> str:
    """Name a Job by the request's UID and the plan's number: the same one is never run twice."""
    meta = found["metadata"]
    return names.child_name(meta["name"], "RestoreRequest", meta["uid"], mode.lower(), str(number))


def plan_job(prepared: Prepared, placement: Placement) -> JobPlan:
    """Plan the Job that looks and touches nothing: where its answer is lost, it may look again."""
    return _job(prepared, "Plan", placement)


def execute_job(prepared: Prepared, placement: Placement) -> JobPlan:
    """Plan the Job that restores: once, suspended at first, and not deleted with the request."""
    return _job(prepared, "Execute", placement)


def _job(prepared: Prepared, mode: Literal["Plan", "Execute"], placement: Placement) -> JobPlan:
    execute = mode == "Execute"
    return JobPlan(
        name=job_name(prepared.found, mode, prepared.number),
        owner=prepared.found,
        request=asked_for(prepared, mode),
        mounts=prepared.mounts(mode),
        image=prepared.settings.backup_image,
        template=prepared.policy.pod_template if execute else prepared.policy.pod_template.without_scratch,
        placement=placement,
        deadline_seconds=prepared.policy.active_deadline_seconds if execute else PLAN_SECONDS,
        backoff_limit=0 if execute else 2,
        owned=not execute,
        suspended=execute,
        owning=bool(prepared.carried_out.preserve and prepared.carried_out.preserve.ownership),
        ttl_seconds=None if execute else KEPT_SECONDS,
    )


def asked_for(prepared: Prepared, mode: Literal["Plan", "Execute"]) -> Request | UndoRequest:
    """Give what the data plane is asked."""
    if prepared.undone is None:
        return restore_request(prepared, mode)
    return UndoRequest(
        nonce=prepared.nonce,
        mode=mode,
        request_uid=prepared.found["metadata"]["uid"],
        plan_number=prepared.number,
        cluster_uid=prepared.settings.cluster_uid,
        restore_uid=prepared.undone.uid,
        targets=tuple(source_part(each, "restore")[0] for each in prepared.targets),
        approved_plan=prepared.spec.approved_plan if mode == "Execute" else None,
        locks=_locks(prepared, mode),
    )


def restore_request(prepared: Prepared, mode: Literal["Plan", "Execute"]) -> Request:
    """Give what the data plane is asked where a backup is restored."""
    pinned = prepared.backup
    return Request(
        nonce=prepared.nonce,
        mode=mode,
        request_uid=prepared.found["metadata"]["uid"],
        plan_number=prepared.number,
        cluster_uid=prepared.settings.cluster_uid,
        backup=BackupReference(
            place=trusting(_place(prepared, pinned.storage, pinned.prefix), prepared.policy.signing),
            backup_type=pinned.type,
            backup_id=pinned.backup_id,
            identity=identity_part(prepared.identity)[0],
        ),
        targets=tuple(_target(prepared, each) for each in prepared.targets),
        strategy=prepared.spec.strategy,
        keep_previous=prepared.spec.keep_previous,
        approved_plan=prepared.spec.approved_plan if mode == "Execute" else None,
        locks=_locks(prepared, mode),
    )


def _locks(prepared: Prepared, mode: Literal["Plan", "Execute"]) -> tuple[Place, ...]:
    return tuple(_place(prepared, *each) for each in prepared.locks) if mode == "Execute" else ()


def _target(prepared: Prepared, source: PolicySource) -> RestoreTarget:
    request, _ = source_part(source, "restore")
    if not isinstance(request, FilesSource):
        return RestoreTarget(artifact=source.name, target=request)
    target = request.model_copy(update={"preserve": preserve_part(prepared.spec.preserve)})
    return RestoreTarget(artifact=source.name, target=target, paths=prepared.spec.paths)


def _place(prepared: Prepared, storage: str, prefix: str) -> Place:
    return Place(storage=storage_part(storage, prepared.storages[storage])[0], prefix=prefix)
