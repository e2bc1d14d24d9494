"""Restore a backup into throwaway targets, look at what came back, measure the time, and leave nothing behind.

The way there is that of every restore: every stored byte is read and found right, then ``source.restore`` puts the data
in place. What came back is compared with the metadata, then questions are asked. The outcome is written beside the backup.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from avalanche_backup import catalog, layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import (
    DrillFailed,
    Failure,
    RestoreFailed,
    RestoreRefused,
    SourceInvalid,
    SourceUnavailable,
    StorageInvalid,
)
from avalanche_backup.holds import end_of_restore, keep_for_restore
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.opening import open_source
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.artifacts import Reader, open_artifact, read_whole
from avalanche_backup.verbs.choosing import newest
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import identities_for
from avalanche_backup.verbs.throwaways import Target, made
from avalanche_contract.expectation import meets
from avalanche_contract.request import DrillRequest, Newest, Query
from avalanche_contract.result import Drilled, Result

NAMED_MAX = 5
SHOWN_MAX = 100
_OURS = (RestoreFailed, RestoreRefused, SourceInvalid, SourceUnavailable)
"""What a restore into a throwaway target raises: it says that the drill failed, and nothing of any source."""


@dataclass
class _Watch:
    """What a drill has done so far."""

    steps: dict[str, float] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    asked: int = 0
    begun: float = field(default_factory=time.monotonic)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure one step; several of one name are added up."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0) + time.monotonic() - begun


@dataclass(frozen=True)
class _Drill:
    """One drill of one backup."""

    request: DrillRequest
    context: Context
    reader: Reader
    watch: _Watch

    @property
    def folder(self) -> Path:
        """Give where targets are made."""
        return Path(self.request.keep) if self.request.keep else self.context.scratch

    def outcome(self, reason: str, message: str, *, succeeded: bool) -> Drilled:
        """Say what it came to."""
        steps = {name: round(seconds, 3) for name, seconds in self.watch.steps.items()}
        return Drilled(
            backup_id=self.reader.found.metadata.backup_id,
            storage=self.reader.store.name,
            time=self.context.now(),
            succeeded=succeeded,
            reason=reason,
            message=message[:1024],
            duration_seconds=round(time.monotonic() - self.watch.begun, 3),
            restore_seconds=round(steps.get("Checking", 0) + steps.get("Restoring", 0), 3),
            steps=steps,
            asked=self.watch.asked,
        )


def run(request: DrillRequest, context: Context) -> Result:
    """Drill.

    :raises DrillFailed: it could not be restored, or what came back is not what was expected.
    :raises VerificationFailed: what lies in storage is not what was written.
    :raises BackupMissing: there is no such backup, or no good one.
    :raises IdentityMissing: nothing that was given opens the backup.
    """
    store, found = _chosen(request, context)
    with _kept(store, found, context):
        reader = Reader(store, found, identities_for(found, request.backup.identity))
        drill = _Drill(request, context, reader, _Watch())
        try:
            _go(drill)
        except Failure as failure:
            _tell(drill, drill.outcome(failure.reason, failure.message, succeeded=False))
            raise
        outcome = drill.outcome("Drilled", _sentence(drill), succeeded=True)
        _tell(drill, outcome)
    return Result(
        nonce=request.nonce,
        verb="drill",
        verdict="Succeeded",
        reason=outcome.reason,
        message="\n".join((outcome.message, *drill.watch.hints)),
        backup_id=outcome.backup_id,
        source_bytes=found.metadata.source_bytes,
        snapshot_time=found.metadata.snapshot_time,
    )


def _chosen(request: DrillRequest, context: Context) -> tuple[Store, Found]:
    if isinstance(request.backup, Newest):
        return newest(request.backup, context.now())
    store = open_store(request.backup.place.storage)
    return store, catalog.find(store, request.backup.place.prefix, request.backup.backup_id)


@contextmanager
def _kept(store: Store, found: Found, context: Context) -> Iterator[None]:
    """Keep the backup from cleanups meanwhile; where the storage is read-only, nothing cleans up."""
    where = store, found.prefix, found.metadata.backup_id, f"drill-{secrets.token_hex(8)}"
    kept = False
    with suppress(StorageInvalid):
        keep_for_restore(*where, context.now())
        kept = True
    try:
        yield
    finally:
        if kept:
            with suppress(Failure):
                end_of_restore(*where)


def _go(drill: _Drill) -> None:
    artifacts = [each for each in drill.reader.found.metadata.artifacts if each.role == "data"]
    asked = _matched(drill.request.queries, artifacts)
    _check_room(drill, artifacts)
    with drill.watch.step("Checking"):
        _check(drill, artifacts)
    wrong: list[str] = []
    with ExitStack() as kept:  # one that fails takes with it those that were to stay
        for artifact in artifacts:
            try:
                wrong += _drill_one(drill, artifact, asked[artifact.source], kept)
            except (DrillFailed, *_OURS) as failure:
                raise DrillFailed(f"{artifact.source}: {failure.message}", reason=failure.reason) from None
    if wrong:
        more = f"; and {len(wrong) - NAMED_MAX} more" if len(wrong) > NAMED_MAX else ""
        lines = (f"{'; '.join(wrong[:NAMED_MAX])}{more}", *drill.watch.hints)
        raise DrillFailed("\n".join(lines), reason="AssertionFailed")


def _matched(queries: Sequence[Query], artifacts: Sequence[ArtifactMetadata]) -> dict[str, list[Query]]:
    """Give the questions of each artifact.

    :raises DrillFailed: one names no database of the backup, or none where there are several.
    """
    databases = [each.source for each in artifacts if each.kind != "files"]
    found: dict[str, list[Query]] = {each.source: [] for each in artifacts}
    for query in queries:
        source = query.source if query.source is not None or len(databases) != 1 else databases[0]
        if source not in databases:
            named = ", ".join(databases) or "none"
            raise DrillFailed(
                f"the question {_shown(query.sql)} is for {source or 'no source'}: the backup has the databases {named}",
                reason="SourceNotInBackup",
            )
        found[source].append(query)
    return found


def _check_room(drill: _Drill, artifacts: Sequence[ArtifactMetadata]) -> None:
    """Refuse what cannot fit before anything is read; one after the other is there, unless they are kept."""
    sizes = [int(each.statistics.get("database_bytes") or each.source_bytes) for each in artifacts]
    needed = sum(sizes) if drill.request.keep else max(sizes, default=0)
    limit = drill.request.scratch_bytes
    try:
        free = shutil.disk_usage(drill.folder).free
    except OSError:
        return
    if min(free, limit if limit is not None else free) < needed:
        room = f"has {free // 2**20} MiB free" if free < needed else f"may hold {(limit or 0) // 2**20} MiB"
        where = "TMPDIR" if limit is None else "verification.drill.scratch"
        raise DrillFailed(
            f"{drill.folder} {room}, and the restored data takes about {needed // 2**20}: give it more room ({where})",
            reason="ScratchTooSmall",
        )


def _check(drill: _Drill, artifacts: Sequence[ArtifactMetadata]) -> None:
    total, done = sum(each.source_bytes for each in artifacts), 0
    for artifact in artifacts:
        for length in read_whole(drill.reader, artifact):
            done += length
            drill.context.report.progress("Checking", artifact.source, done, total)


def _drill_one(
    drill: _Drill, artifact: ArtifactMetadata, queries: Sequence[Query], kept: ExitStack
) -> list[str]:
    """Restore, compare and ask; give what was not answered as expected."""
    report, watch, keep = drill.context.report, drill.watch, drill.request.keep is not None
    report.progress("Starting", artifact.source, 0, None)
    making = made(drill.reader, artifact, drill.folder, superuser=drill.request.superuser, keep=keep)
    with ExitStack() as stack:
        with watch.step("Starting"):
            target = stack.enter_context(making)
        with watch.step("Restoring"):
            _restore(drill, artifact, target)
        report.progress("Comparing", artifact.source, 0, None)
        with watch.step("Comparing"):
            told = target.compare()
        watch.done.append(f"{artifact.source}: {told}" + (f" ({target.note})" if target.note else ""))
        with watch.step("Asking"):
            wrong = [said for each in queries if (said := _ask(drill, artifact, target, each))]
        if keep:
            watch.hints.extend(target.hints)
            kept.push(stack.pop_all())
    return wrong


def _restore(drill: _Drill, artifact: ArtifactMetadata, target: Target) -> None:
    scratch = drill.context.scratch / f"drill-{artifact.source}"
    scratch.mkdir(parents=True, exist_ok=True)
    source = open_source(target.source, scratch)
    report, plain = drill.context.report, artifact.model_dump()
    source.inspect_target(plain)  # refuses as a real restore would: a missing extension, too many locks

    def progress(done: int) -> None:
        report.progress("Restoring", artifact.source, done, artifact.source_bytes)

    with open_artifact(drill.reader, artifact) as chunks:
        source.restore(Incoming(chunks, plain, scratch, progress))


def _ask(drill: _Drill, artifact: ArtifactMetadata, target: Target, query: Query) -> str:
    """Ask one question; give what is wrong with the answer, or nothing."""
    drill.context.report.progress("Asking", artifact.source, drill.watch.asked, len(drill.request.queries))
    drill.watch.asked += 1
    if target.ask is None:
        return f"{_shown(query.sql)}: there is no database to ask"
    try:
        answer = target.ask(query.sql, drill.request.query_seconds)
    except DrillFailed as failure:
        return f"{_shown(query.sql)}: {failure.message}"
    said = "NULL" if answer is None else _shown(answer)
    if query.expect is None:
        drill.watch.done.append(f"{_shown(query.sql)} gave {said}")
        return ""
    if meets(answer, query.expect):
        return ""
    return f"{_shown(query.sql)} gave {said}, and not {_shown(query.expect)}"


def _shown(text: str) -> str:
    plain = " ".join(text.split())
    return repr(plain if len(plain) <= SHOWN_MAX else f"{plain[: SHOWN_MAX - 1]}…")


def _sentence(drill: _Drill) -> str:
    watch = drill.watch
    restored = watch.steps.get("Checking", 0) + watch.steps.get("Restoring", 0)
    expected = sum(each.expect is not None for each in drill.request.queries)
    asked = f"; {expected} of {expected} questions answered as expected" if expected else ""
    backup_id = drill.reader.found.metadata.backup_id
    return f"{backup_id} was restored within {restored:.1f} s: {'; '.join(watch.done)}{asked}"


def _tell(drill: _Drill, outcome: Drilled) -> None:
    drill.context.report.drilled(outcome)
    write_outcome(drill.reader.store, drill.reader.found.prefix, outcome)


def write_outcome(store: Store, prefix: str, outcome: Drilled) -> None:
    """Write what a drill came to beside its backup, where that can be written to."""
    document = json.dumps(outcome.model_dump(mode="json", exclude_none=True), indent=2) + "\n"
    with suppress(Failure):
        store.put(layout.drill_key(prefix, outcome.backup_id), document.encode(), overwrite=True)
