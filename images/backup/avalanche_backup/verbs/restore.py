"""Restore a backup: plan, or carry out the plan that was approved.

Nothing is touched before the plan still fits and every stored byte was read and found right: before, unless a source does so
by itself. Of an encrypted backup nothing is read before an identity is there that opens it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, StorageInvalid, VerificationFailed
from avalanche_backup.holds import end_of_restore, keep_for_restore
from avalanche_backup.locks import KeptLocks
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_backup.sources.base import Incoming, Proof
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.artifacts import Reader, open_artifact, read_stored, read_whole
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import open_destination
from avalanche_backup.verbs.keys import identities_for
from avalanche_backup.verbs.plan import Target, make_plan, open_targets
from avalanche_contract.request import RestoreRequest
from avalanche_contract.result import Plan, Result
from avalanche_contract.storage import Place


def run(request: RestoreRequest, context: Context) -> Result:
    """Plan or restore.

    :raises RestoreRefused: the target is untouched.
    :raises IdentityMissing: nothing that was given opens the backup; the target is untouched.
    :raises VerificationFailed: the artifact is damaged; the target is untouched.
    :raises RestoreFailed: the target is marked, or was rolled back, as the message says.
    """
    place = request.backup.place
    store = open_store(place.storage)
    found = catalog.find(store, place.prefix, request.backup.backup_id)
    with ExitStack() as stack:
        writable = stack.enter_context(_kept(request, context, store, found))
        reader = Reader(store, found, identities_for(found, request.backup.identity))
        if request.mode == "Plan":
            return _plan(request, context, store, found)
        # After a disaster there may be no more than a read-only key: no backup is written there either.
        wanted = [each for each in request.locks if writable or each != place]
        locks = stack.enter_context(KeptLocks(lock_places(wanted), request.request_uid, context.now))
        return _execute(request, context, _Chosen(reader, locks))


class PlanChanged(RestoreRefused):
    """What is at the target is not what was approved: there is a new plan."""

    default_reason = "PlanChanged"


@dataclass(frozen=True)
class _Chosen:
    """What is restored, and the locks without which it is not."""

    reader: Reader
    locks: KeptLocks


@contextmanager
def _kept(request: RestoreRequest, context: Context, store: Store, found: Found) -> Iterator[bool]:
    """Keep the backup from cleanups until the request has ended; where it is killed, until the hold expires.

    Gives whether the storage can be written to: what is read-only cannot be kept, nor cleaned up.
    """
    where = store, found.prefix, found.metadata.backup_id, request.request_uid
    writable = False
    with suppress(StorageInvalid):
        keep_for_restore(*where, context.now())
        writable = True
    ended = True
    try:
        yield writable
        ended = request.mode == "Execute"
    except PlanChanged:
        ended = False
        raise
    finally:
        if ended:
            with suppress(Failure):
                end_of_restore(*where)


def lock_places(wanted: Sequence[Place]) -> list[tuple[Store, str]]:
    """Open every place where a lock belongs; one that cannot be opened is left out where its folder lies elsewhere too.

    :raises Failure: it does not.
    """
    opened = [open_destination(each) for each in wanted]
    there = {each.prefix for each in opened if each.failure is None}
    for each in opened:
        if each.failure is not None and each.prefix not in there:
            raise each.failure
    return [(each.store, each.prefix) for each in opened if each.failure is None]


def _plan(request: RestoreRequest, context: Context, store: Store, found: Found) -> Result:
    plan = make_plan(request, store, found, open_targets(request, found, context.scratch))
    context.report.plan(plan)
    return _result(request, plan, "Planned", f"{plan.backup_id} can be restored")


def _execute(request: RestoreRequest, context: Context, chosen: _Chosen) -> Result:
    store, found = chosen.reader.store, chosen.reader.found
    targets = open_targets(request, found, context.scratch)
    plan = make_plan(request, store, found, targets)
    if plan.needs_approval and plan.digest != request.approved_plan:
        following = request.model_copy(update={"plan_number": request.plan_number + 1})
        context.report.plan(make_plan(following, store, found, targets))
        raise PlanChanged(
            "what is at the target is no longer what was approved: look at the new plan, and approve that one"
        )
    proofs = [_proof(target, targets) for target in targets]  # asked once: what is there may change meanwhile
    for target, proof in zip(targets, proofs, strict=True):
        _check_artifact(context, chosen.reader, target.artifact, proof)
    done = _restore_all(context, chosen, targets, [each == "Decoded" for each in proofs])
    context.report.progress("Verifying", "", 0, None)
    return _result(request, plan, "Restored", "; ".join(done))


def _proof(target: Target, targets: Sequence[Target]) -> Proof:
    """Say what is found right before anything is touched; of several targets everything: the first does not come back."""
    way = target.swap if target.chosen.strategy == "Swap" else target.source
    return way.proof(target.artifact.model_dump()) if len(targets) == 1 else "Decoded"


def _check_artifact(context: Context, reader: Reader, artifact: ArtifactMetadata, proof: Proof) -> None:
    if proof == "None":
        return
    read, total = (
        (read_stored, artifact.size_bytes) if proof == "Stored" else (read_whole, artifact.source_bytes)
    )
    done = 0
    try:
        for length in read(reader, artifact):
            done += length
            context.report.progress("Checking", artifact.source, done, total)
    except VerificationFailed as failure:
        raise VerificationFailed(
            f"{failure.message}. The target is untouched", reason=failure.reason
        ) from None


def _restore_all(
    context: Context, chosen: _Chosen, targets: Sequence[Target], proven: Sequence[bool]
) -> list[str]:
    done: list[str] = []
    for target, known in zip(targets, proven, strict=True):
        try:
            done.append(_restore_one(context, chosen, target, proven=known))
        except Failure as failure:
            if not done:
                raise
            raise RestoreFailed(
                f"{target.artifact.source}: {failure.message}. Done before: {'; '.join(done)}",
                reason=failure.reason,
            ) from None
    return done


class _Read:
    """What is read while it is restored, and whether that was all of it."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self.ended = chunks, False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks
        self.ended = True


def _restore_one(context: Context, chosen: _Chosen, target: Target, *, proven: bool) -> str:
    """Restore. Where that fails within what was not ``proven`` before, that is read again: is it damaged, or was it something else?

    :raises VerificationFailed: it is damaged; the target is untouched.
    """
    artifact = target.artifact
    scratch = context.scratch / f"restore-{artifact.source}"
    scratch.mkdir(parents=True, exist_ok=True)

    def progress(done: int) -> None:
        context.report.progress("Restoring", artifact.source, done, artifact.source_bytes)

    progress(0)
    with ExitStack() as stack:
        read = _Read(stack.enter_context(open_artifact(chosen.reader, artifact)))
        restore: Callable[..., str] = target.source.restore
        if target.chosen.strategy == "Swap":
            index = _index(chosen.reader, artifact.source, stack)
            restore = partial(target.swap.restore, keep=target.keep, index=index)
        chunks = chosen.locks.guard(iter(read))
        try:
            done = restore(Incoming(chunks, artifact.model_dump(), scratch, progress, target.paths))
        except Failure as failure:
            marked = failure.reason == "RestoreIncomplete"  # whatever else is wrong, it is not untouched
            if not (proven or read.ended or marked):
                _check_artifact(context, chosen.reader, artifact, "Decoded")
            raise
    return done + _about_globals(chosen.reader.found, artifact.source)


def _index(reader: Reader, source: str, stack: ExitStack) -> Iterator[bytes] | None:
    """Open the index of a files backup, where it has one."""
    artifacts = reader.found.metadata.artifacts
    each = next((a for a in artifacts if a.role == "index" and a.source == source), None)
    return stack.enter_context(open_artifact(reader, each)) if each else None


def _about_globals(found: Found, source: str) -> str:
    """Say where roles are that were not restored: they are the server's, and others may live by them."""
    each = next((a for a in found.metadata.artifacts if a.role == "globals" and a.source == source), None)
    return f" (roles and tablespaces were not restored; by hand: {each.restore_command})" if each else ""


def _result(request: RestoreRequest, plan: Plan, reason: str, message: str) -> Result:
    return Result(
        nonce=request.nonce,
        verb="restore",
        verdict="Succeeded",
        reason=reason,
        message=message,
        backup_id=plan.backup_id,
        checksum=plan.checksum,
        snapshot_time=plan.snapshot_time,
        plan_digest=plan.digest,
    )
