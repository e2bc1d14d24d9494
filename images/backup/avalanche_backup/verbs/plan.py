"""What a restore would do: which backup, into what, what is there now, and a digest that an approval names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from avalanche_backup import layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import RestoreRefused
from avalanche_backup.metadata import ArtifactMetadata, recipients_of
from avalanche_backup.sources.base import Source as OpenSource
from avalanche_backup.sources.base import Swap, TargetState
from avalanche_backup.sources.opening import open_source, open_swap
from avalanche_backup.storage.base import Store
from avalanche_backup.verbs import preserving
from avalanche_backup.verbs.strategy import Asked, Chosen, Possible, choose
from avalanche_contract.names import switch_id
from avalanche_contract.request import RestoreRequest, RestoreTarget
from avalanche_contract.result import Plan, TargetPlan
from avalanche_contract.source import FilesSource, Preserve, Source

BYTES_PER_SECOND = 30_000_000
"""Of plain bytes, for the estimate: verified once and restored once, as measured on two cores."""

NAMED_MAX = 10
"""So many tables that a backup leaves out are named."""


@dataclass(frozen=True)
class Target:
    """One artifact, where it goes, and what is there."""

    artifact: ArtifactMetadata
    source: OpenSource
    state: TargetState
    paths: tuple[str, ...]
    swap: Swap
    chosen: Chosen
    keep: bool = False
    """What is there stays aside."""
    jobs: int = 1
    """More than one: in place, not in one transaction."""
    preserve: Preserve = preserving.NOTHING
    """What of files is set besides contents, modes and times."""


def open_targets(request: RestoreRequest, found: Found, scratch: Path) -> tuple[Target, ...]:
    """Match targets with artifacts, and look at each of them.

    :raises RestoreRefused: the backup has no such artifact, or one of another kind.
    """
    return tuple(
        _open(request, each, found, scratch / f"target-{number}")
        for number, each in enumerate(request.targets)
    )


def make_plan(request: RestoreRequest, store: Store, found: Found, targets: tuple[Target, ...]) -> Plan:
    """Bring everything together that a person approves."""
    metadata = found.metadata
    source_bytes = sum(each.artifact.source_bytes for each in targets)
    return Plan(
        digest=_digest(request, found, targets),
        backup_id=metadata.backup_id,
        backup_type=metadata.backup_type,
        checksum=metadata.checksum,
        storage=store.name,
        location=store.locate(layout.metadata_key(found.prefix, metadata.backup_id)),
        snapshot_time=metadata.snapshot_time,
        policy_uid=metadata.run.policy_uid,
        recipients=recipients_of(each.artifact for each in targets),
        anomaly=(metadata.error_message or "it looks wrong") if metadata.status == "suspect" else "",
        targets=tuple(_describe(each) for each in targets),
        needs_approval=any(each.state.state == "HoldsData" for each in targets),
        estimated_seconds=1 + 2 * source_bytes // BYTES_PER_SECOND,
    )


def _open(request: RestoreRequest, wanted: RestoreTarget, found: Found, scratch: Path) -> Target:
    artifacts = {each.source: each for each in found.metadata.artifacts if each.role == "data"}
    artifact = artifacts.get(wanted.artifact)
    if artifact is None:
        raise RestoreRefused(
            f"backup {found.metadata.backup_id} has no source {wanted.artifact!r}; it has {', '.join(sorted(artifacts))}",
            reason="SourceNotInBackup",
        )
    if artifact.kind != wanted.target.kind:
        raise RestoreRefused(
            f"{wanted.artifact} is a {artifact.kind} artifact, and the target is {wanted.target.kind}",
            reason="KindMismatch",
        )
    preserve = preserving.asked_of(wanted.target)
    preserving.check(preserve, artifact)
    scratch.mkdir(parents=True, exist_ok=True)
    written_to = _written_to(wanted, artifact)
    source = open_source(written_to, scratch)
    state = source.inspect_target(artifact.model_dump())
    swap = open_swap(written_to, scratch, switch_id(request.request_uid))
    asked = Asked(request.strategy, request.keep_previous)
    chosen = choose(asked, _possible(asked, swap, artifact, state, wanted.paths), source.target)
    jobs = wanted.target.jobs if wanted.target.kind == "postgresql" else 1
    return Target(artifact, source, state, wanted.paths, swap, chosen, request.keep_previous, jobs, preserve)


def _possible(
    asked: Asked, swap: Swap, artifact: ArtifactMetadata, state: TargetState, paths: tuple[str, ...]
) -> Possible:
    """Find out whether the target can be swapped, where that matters: rights are asked of the server, and rehearsed."""
    holds_data = state.state == "HoldsData"
    suits = swap.suits if holds_data else swap.suits_empty
    wanted = asked.keep or asked.strategy == "Swap" or (asked.strategy is None and suits)
    obstacle = swap.obstacle(artifact.model_dump(), paths) if wanted else ""
    return Possible(obstacle, suits, holds_data, swap.kept(), swap.kept_bars)


def _written_to(wanted: RestoreTarget, artifact: ArtifactMetadata) -> Source:
    """Give the target as the restore will write to it: at the paths of the backup, whatever the policy names by now."""
    paths = wanted.paths or tuple(artifact.recreate.get("paths") or ())
    if isinstance(wanted.target, FilesSource) and paths:
        return wanted.target.model_copy(update={"paths": paths})
    return wanted.target


def _digest(request: RestoreRequest, found: Found, targets: tuple[Target, ...]) -> str:
    """Name all that an approval stands for; sizes and counts are left out, they change while one reads.

    Request, plan and cluster are in it as well, so that an approval counts once, and nowhere else: not for a later plan that
    happens to look the same, and not where another cluster follows the same repository.
    """
    document = {
        "request": [request.cluster_uid, request.request_uid, request.plan_number],
        "backup": [found.metadata.backup_id, found.metadata.checksum, request.backup.place.storage.name, found.prefix],
        "targets": [
            [each.artifact.source, each.artifact.sha256, each.source.target, each.state.state, each.state.facts, each.paths,
             *([each.jobs] if each.jobs > 1 else []), each.chosen.strategy, each.keep,
             *([each.preserve.model_dump()] if each.preserve != preserving.NOTHING else [])]
            for each in targets
        ],
    }  # fmt: skip
    return f"sha256:{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()}"


def _describe(target: Target) -> TargetPlan:
    return TargetPlan(
        artifact=target.artifact.source,
        kind=target.artifact.kind,
        target=target.source.target,
        state=target.state.state,
        found=target.state.found,
        used_by=target.state.used_by[:10],
        size_bytes=target.artifact.size_bytes,
        source_bytes=target.artifact.source_bytes,
        strategy=target.chosen.strategy,
        strategy_reason=target.chosen.reason,
        action=_action(target) + preserving.action(target.preserve),
        warnings=(*target.state.warnings, *preserving.warnings(target.preserve, target.artifact)),
    )


def _action(target: Target) -> str:
    if target.chosen.strategy == "Swap":
        part = f"{', '.join(target.paths)} of the backup: " if target.paths else ""
        return part + target.swap.action(target.artifact.model_dump(), keep=target.keep)
    if target.artifact.kind == "files":
        part = f"{', '.join(target.paths)} of the backup" if target.paths else "every file of the backup"
        return f"{part} is put in place, over files of the same name; other files stay"
    if target.jobs > 1:
        return _action_in_parallel(target)
    if target.state.state != "HoldsData":
        return "the data of the backup is put in place"
    if target.artifact.kind == "sqlite":
        return "the content of the database is replaced by that of the backup"
    return f"{_what(target)} is dropped and replaced by the backup, in one transaction{_left_out(target)}"


def _action_in_parallel(target: Target) -> str:
    return (
        f"{_what(target)} is dropped and replaced by the backup, by {target.jobs} jobs and NOT in one transaction: the "
        f"database is marked by a schema until it is whole, and stays marked and incomplete if the restore fails{_left_out(target)}"
    )


def _what(target: Target) -> str:
    chosen = target.artifact.recreate.get("schemas") or ()
    return f"everything in the schemas {', '.join(chosen)}" if chosen else "everything in the database"


def _left_out(target: Target) -> str:
    names = target.artifact.recreate.get("excluded_tables") or ()
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"; not in the backup, and left as they are: {', '.join(names[:NAMED_MAX])}{more}" if names else ""
