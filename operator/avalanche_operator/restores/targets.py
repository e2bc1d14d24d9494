"""Which backup, into what, and which policies read that: from specs to values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from avalanche_contract.names import policy_prefix
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.policy import BackupPolicySpec, PolicySource
from avalanche_operator.api.restore import FromPolicy, PinnedBackup, RestoreRequestSpec, Target

Object = dict[str, Any]


class RestoreImpossible(Exception):
    """The request cannot be carried out; ``reason`` is CamelCase, the text says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotYet(Exception):
    """The backup is still being made."""


def choose_backup(spec: RestoreRequestSpec, backups: Iterable[Object]) -> PinnedBackup:
    """Pin the backup that a request means: exactly the one that was named, never another.

    :raises RestoreImpossible: there is none, or it is no good. :raises NotYet: it is still being made.
    """
    if spec.backup_ref is not None:
        name = spec.backup_ref.name
        found = next((each for each in backups if each["metadata"]["name"] == name), None)
        if found is None:
            raise RestoreImpossible("BackupNotFound", f"Backup {name} does not exist")
        return _pin(found)
    if spec.from_policy is None:
        raise RestoreImpossible("BackupNotFound", "the request names no backup")  # the CRD refuses it
    return _pin(_newest(spec.from_policy, backups))


def chosen_sources(
    spec: RestoreRequestSpec, policy: BackupPolicySpec, backup: Object
) -> tuple[PolicySource, ...]:
    """Give the targets: the policy's sources, where the request does not say otherwise.

    :raises RestoreImpossible: a source is neither in the backup nor in the policy, or the target does not fit.
    """
    status = BackupStatus.model_validate(backup.get("status") or {})
    known = {each.name: each for each in policy.sources}
    stored = [each.source for each in status.artifacts] or list(known)
    wanted = list(spec.sources) or stored
    for name in wanted:
        if name not in stored:
            raise RestoreImpossible(
                "SourceNotInBackup", f"the backup has no source {name}; it has {', '.join(stored)}"
            )
        if name not in known:
            raise RestoreImpossible(
                "SourceNotInPolicy",
                f"the policy has no source {name} any more: add it, so that its target is known",
            )
    return tuple(redirect(known[name], spec.target) for name in wanted)


def redirect(source: PolicySource, target: Target | None) -> PolicySource:
    """Give a source with what a request puts elsewhere."""
    if target is None:
        return source
    if source.postgresql is not None and target.postgresql is not None:
        changes = {name: value for name in ("host", "port", "database", "credentials_secret_ref")
                   if (value := getattr(target.postgresql, name)) is not None}  # fmt: skip
        return source.model_copy(update={"postgresql": source.postgresql.model_copy(update=changes)})
    claim = {"claim": target.claim} if target.claim is not None else {}
    if source.sqlite is not None:
        path = {"path": target.path} if target.path is not None else {}
        return source.model_copy(update={"sqlite": source.sqlite.model_copy(update=claim | path)})
    if source.files is not None:
        if target.path is not None:
            raise RestoreImpossible(
                "TargetInvalid", "target.path is for SQLite; files go to another claim by target.claim"
            )
        return source.model_copy(update={"files": source.files.model_copy(update=claim)})
    return source


def readers_of(targets: Iterable[PolicySource], policies: Iterable[Object]) -> list[Object]:
    """Give the policies that read what a restore writes to: they pause meanwhile."""
    written = {coordinate for each in targets for coordinate in _coordinates(each)}
    return [
        policy
        for policy in policies
        if any(
            written.intersection(_coordinates(source))
            for source in BackupPolicySpec.model_validate(policy["spec"]).sources
        )
    ]


def _coordinates(source: PolicySource) -> tuple[tuple[str, ...], ...]:
    if source.postgresql is not None:
        found = source.postgresql
        return (("postgresql", found.host, str(found.port), found.database),)
    mounted = source.sqlite or source.files
    return (("claim", mounted.claim.name),) if mounted is not None else ()


def _newest(wanted: FromPolicy, backups: Iterable[Object]) -> Object:
    own = (each for each in backups if each["spec"]["policyRef"]["name"] == wanted.name)
    good = [(status.snapshot_time, each) for each in own if (status := _good(each)) is not None]
    fitting = [
        (moment, each) for moment, each in good if moment and (wanted.as_of is None or moment <= wanted.as_of)
    ]
    if not fitting:
        until = f" with data of {wanted.as_of:%Y-%m-%d %H:%M:%S} UTC or before" if wanted.as_of else ""
        raise RestoreImpossible("BackupNotFound", f"BackupPolicy {wanted.name} has no good backup{until}")
    return max(fitting, key=lambda each: (each[0], each[1]["metadata"]["name"]))[1]


def _good(backup: Object) -> BackupStatus | None:
    status = BackupStatus.model_validate(backup.get("status") or {})
    broken = status.verification is not None and status.verification.status == "VerificationFailed"
    return status if status.phase == "Succeeded" and not broken else None


def _pin(backup: Object) -> PinnedBackup:
    meta, status = backup["metadata"], BackupStatus.model_validate(backup.get("status") or {})
    if status.phase in (None, "Pending", "Running", "Verifying"):
        raise NotYet(f"Backup {meta['name']} is still being made")
    if status.phase not in ("Succeeded", "Suspect") or not (
        status.backup_id and status.type and status.storage
    ):
        raise RestoreImpossible(
            "BackupNotUsable", f"Backup {meta['name']} is {status.phase}: there is nothing to restore"
        )
    policy = backup["spec"]["policyRef"]["name"]
    return PinnedBackup(
        name=meta["name"],
        backup_id=status.backup_id,
        type=status.type,
        storage=status.storage,
        prefix=status.prefix or policy_prefix(meta["namespace"], policy),
        policy=policy,
    )
