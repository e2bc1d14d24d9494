"""Which backup, into what, and which policies read that: from specs to values. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import combinations
from typing import Any

from pydantic import ValidationError

from avalanche_contract.names import policy_prefix
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import (
    FromPolicy,
    PinnedBackup,
    RestoredPreserve,
    RestoreRequestSpec,
    Target,
)
from avalanche_operator.api.source import PolicySource
from avalanche_operator.backups.decide import is_at_home, readable

Object = dict[str, Any]


class RestoreImpossible(Exception):
    """The request cannot be carried out; ``reason`` is CamelCase, the text says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotYet(Exception):
    """The backup is still being made."""


def choose_backup(
    spec: RestoreRequestSpec, backups: Iterable[Object], usable: Collection[str] = ()
) -> PinnedBackup:
    """Pin the backup that a request means: exactly the one that was named, never another.

    Of several copies the first is read whose storage is ``usable``.

    :raises RestoreImpossible: there is none, or it is no good. :raises NotYet: it is still being made.
    """
    if spec.backup_ref is not None:
        name = spec.backup_ref.name
        found = next((each for each in backups if each["metadata"]["name"] == name), None)
        if found is None:
            raise RestoreImpossible("BackupNotFound", f"Backup {name} does not exist")
        return _pin(found, usable)
    if spec.from_policy is None:
        raise RestoreImpossible("BackupNotFound", "the request names no backup")  # the CRD refuses it
    return _pin(_newest(spec.from_policy, backups), usable)


def chosen_sources(
    spec: RestoreRequestSpec, policy: BackupPolicySpec, backup: Object
) -> tuple[PolicySource, ...]:
    """Give the targets: the policy's sources, where the request does not say otherwise.

    :raises RestoreImpossible: a source is neither in the backup nor in the policy, or the target does not fit.
    """
    known = {each.name: each for each in policy.sources}
    sources = [_by_one_job(known[name]) for name in _wanted(spec, known, backup)]
    if spec.target is None:
        return tuple(sources)
    _refuse_unused(spec.target, sources)
    moved = tuple(redirect(each, spec.target) for each in sources)
    namespace = (backup.get("metadata") or {}).get("namespace", "")
    _refuse_collisions(list(zip(sources, moved, strict=True)), namespace)
    return moved


def check_preserve(
    preserve: RestoredPreserve | None, targets: Collection[PolicySource], *, allowed: bool
) -> None:
    """Refuse to set what nobody may, or what no target has.

    :raises RestoreImpossible: no files are restored, or owners are asked for and a database is restored as well
        (``PreserveInvalid``); owners are asked for and not ``allowed`` (``OwnershipNotAllowed``).
    """
    if preserve is None or preserve == RestoredPreserve():
        return
    files = [each.name for each in targets if each.files is not None]
    if not files:
        raise RestoreImpossible(
            "PreserveInvalid", "preserve is about files, and none are restored: leave it out of spec"
        )
    others = [each.name for each in targets if each.files is None]
    if preserve.ownership and others:  # whose application could not open a new database of root's
        raise RestoreImpossible(
            "PreserveInvalid",
            f"preserve.ownership runs the restore as root, to whom {', '.join(others)} would belong then: restore files alone "
            f"(spec.sources: [{', '.join(files)}]), and {', '.join(others)} by a request of its own, without preserve.ownership",
        )
    if preserve.ownership and not allowed:
        raise RestoreImpossible(
            "OwnershipNotAllowed",
            "spec.preserve.ownership needs a Job that runs as root, and this operator allows none: set restores.allowOwnership: "
            "true in the values of its chart (AVALANCHE_ALLOW_OWNERSHIP), then create this request anew; or leave it out, and what "
            "comes back belongs to the user of the restore",
        )


def redirect(source: PolicySource, target: Target) -> PolicySource:
    """Give a source where a request puts it.

    :raises RestoreImpossible: the target says nothing for a source of this kind, which would be replaced where it came from.
    """
    if source.postgresql is not None:
        if target.postgresql is None:
            raise _unfitting(source, "postgresql")
        changes = {name: value for name in ("host", "port", "database", "credentials_secret_ref", "ssl_mode", "ca_secret_ref", "jobs")
                   if (value := getattr(target.postgresql, name)) is not None}  # fmt: skip
        return source.model_copy(update={"postgresql": source.postgresql.model_copy(update=changes)})
    claim = {"claim": target.claim} if target.claim is not None else {}
    if source.sqlite is not None:
        path = {"path": target.path} if target.path is not None else {}
        if not claim | path:
            raise _unfitting(source, "claim")
        return source.model_copy(update={"sqlite": source.sqlite.model_copy(update=claim | path)})
    if source.files is None or not claim:
        raise _unfitting(source, "claim")
    return source.model_copy(update={"files": source.files.model_copy(update=claim)})


def _by_one_job(source: PolicySource) -> PolicySource:
    """Forget how many jobs dump a database: its restore is one transaction, unless its request asks for jobs."""
    if source.postgresql is None:
        return source
    return source.model_copy(update={"postgresql": source.postgresql.model_copy(update={"jobs": 1})})


def readers_of(targets: Iterable[PolicySource], policies: Iterable[Object]) -> list[Object]:
    """Give the policies that read what a restore writes to: they pause meanwhile.

    One whose spec cannot be read is among them: its CronJob is that of an earlier spec, and may read anything.
    """
    written = list(targets)
    return [policy for policy in policies if _reads(policy, written)]


def _reads(policy: Object, written: Iterable[PolicySource]) -> bool:
    namespace = policy["metadata"]["namespace"]
    try:
        spec = BackupPolicySpec.model_validate(policy["spec"])
    except ValidationError:
        return True
    read = [_coordinates(source, namespace) for source in spec.sources]
    if not all(read):  # a source of a kind that this release does not know
        return True
    return any(not set().union(*read).isdisjoint(_coordinates(each, namespace)) for each in written)


def storages_of(policy: Object) -> tuple[str, ...]:
    """Name the storages that a policy writes to, also where the rest of its spec cannot be read."""
    references = [each.get("storageRef") or {} for each in policy["spec"].get("destinations") or ()]
    return tuple(str(each["name"]) for each in references if "name" in each)


def _coordinates(source: PolicySource, namespace: str) -> set[tuple[str, ...]]:
    if source.postgresql is not None:
        found = source.postgresql
        hosts = _hosts(found.host, namespace)
        return {("postgresql", host, str(found.port), found.database) for host in hosts}
    mounted = source.sqlite or source.files
    return {("claim", mounted.claim.name)} if mounted is not None else set()


def _hosts(host: str, namespace: str) -> set[str]:
    """Give what a host may be called, without ``.svc`` and the cluster's domain: a pod looks a name up in its namespace first."""
    plain = host.lower().rstrip(".")
    service, svc, _ = f"{plain}.".partition(".svc.")
    return {service} if svc else {plain, f"{plain}.{namespace}"}


def _wanted(spec: RestoreRequestSpec, known: dict[str, PolicySource], backup: Object) -> list[str]:
    """Name the sources that come back: those that were asked for, else all; paths are of files alone."""
    status = BackupStatus.model_validate(backup.get("status") or {})
    kinds = {name: _kind(each) for name, each in known.items()}
    kinds |= {each.source: each.kind for each in status.artifacts}
    stored = [each.source for each in status.artifacts] or list(known)
    wanted = list(spec.sources) or [each for each in stored if not spec.paths or kinds[each] == "files"]
    for name in wanted:
        _check_source(name, stored, known)
        if spec.paths and kinds[name] != "files":
            raise RestoreImpossible(
                "PathsInvalid",
                f"paths choose a part of files, and {name} is a database: leave it out of sources",
            )
    if not wanted:
        raise RestoreImpossible("PathsInvalid", "paths choose a part of files, and the backup holds none")
    return wanted


def _check_source(name: str, stored: list[str], known: dict[str, PolicySource]) -> None:
    if name not in stored:
        raise RestoreImpossible(
            "SourceNotInBackup", f"the backup has no source {name}; it has {', '.join(stored)}"
        )
    if name not in known:
        raise RestoreImpossible(
            "SourceNotInPolicy",
            f"the policy has no source {name} any more: add it, so that its target is known",
        )


def _kind(source: PolicySource) -> str:
    return "postgresql" if source.postgresql else "sqlite" if source.sqlite else "files"


def _unfitting(source: PolicySource, part: str) -> RestoreImpossible:
    return RestoreImpossible(
        "TargetInvalid",
        f"target says nothing for source {source.name}, which would be replaced where it came from: "
        f"give target.{part}, or choose other sources in spec.sources",
    )


def _refuse_unused(target: Target, sources: list[PolicySource]) -> None:
    kinds = {_kind(each) for each in sources}
    fits = {"postgresql": {"postgresql"}, "claim": {"sqlite", "files"}, "path": {"sqlite"}}
    for part, fitting in fits.items():
        if getattr(target, part) is not None and not kinds & fitting:
            raise RestoreImpossible(
                "TargetInvalid", f"target.{part} fits no source that is restored: leave it out"
            )


def _refuse_collisions(pairs: list[tuple[PolicySource, PolicySource]], namespace: str) -> None:
    """Two sources of different places must not come to lie in one."""
    for (source, moved), (other, beside) in combinations(pairs, 2):
        if _share(moved, beside, namespace) and not _share(source, other, namespace):
            raise RestoreImpossible(
                "TargetInvalid",
                f"target puts {source.name} and {other.name} into one place: restore them by a request each",
            )


def _share(one: PolicySource, other: PolicySource, namespace: str) -> bool:
    """Say whether two sources are in one place: a database, a SQLite file, the tree of a claim."""
    paths = [each.sqlite.path if each.sqlite is not None else None for each in (one, other)]
    return paths[0] == paths[1] and not _coordinates(one, namespace).isdisjoint(
        _coordinates(other, namespace)
    )


def _newest(wanted: FromPolicy, backups: Iterable[Object]) -> Object:
    named = [each for each in backups if each["spec"]["policyRef"]["name"] == wanted.name]
    own = [each for each in named if is_at_home(each)]
    good = [(status.snapshot_time, each) for each in own if (status := _good(each)) is not None]
    fitting = [
        (moment, each) for moment, each in good if moment and (wanted.as_of is None or moment <= wanted.as_of)
    ]
    if not fitting:
        until = f" with data of {wanted.as_of:%Y-%m-%d %H:%M:%S} UTC or before" if wanted.as_of else ""
        elsewhere = sorted({each["status"]["prefix"] for each in named if not is_at_home(each)})[:3]
        other = (
            f"; those of {', '.join(elsewhere)} are another policy's: name one by backupRef"
            if elsewhere
            else ""
        )
        raise RestoreImpossible(
            "BackupNotFound", f"BackupPolicy {wanted.name} has no good backup{until}{other}"
        )
    return max(fitting, key=lambda each: (each[0], each[1]["metadata"]["name"]))[1]


def _good(backup: Object) -> BackupStatus | None:
    status = readable(backup)
    if status is None or status.removal is not None:
        return None
    broken = status.verification is not None and status.verification.status == "VerificationFailed"
    good = status.phase == "Succeeded" or (status.phase == "Suspect" and status.anomaly_accepted)
    return status if good and not broken else None


def _pin(backup: Object, usable: Collection[str]) -> PinnedBackup:
    meta, status = backup["metadata"], BackupStatus.model_validate(backup.get("status") or {})
    if status.phase in (None, "Pending", "Running", "Verifying"):
        raise NotYet(f"Backup {meta['name']} is still being made")
    if status.phase not in ("Succeeded", "Suspect") or not (
        status.backup_id and status.type and status.storage
    ):
        raise RestoreImpossible(
            "BackupNotUsable", f"Backup {meta['name']} is {status.phase}: there is nothing to restore"
        )
    if status.removal is not None:
        raise RestoreImpossible(
            "BackupNotUsable", f"Backup {meta['name']} is no longer in storage: {status.removal.message}"
        )
    policy = backup["spec"]["policyRef"]["name"]
    return PinnedBackup(
        name=meta["name"],
        backup_id=status.backup_id,
        type=status.type,
        storage=next((each.storage for each in status.copies if each.storage in usable), status.storage),
        prefix=status.prefix or policy_prefix(meta["namespace"], policy),
        policy=policy,
    )
