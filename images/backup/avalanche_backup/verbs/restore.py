"""Restore a backup: plan, or carry out the plan that was approved.

Nothing is touched before the plan still fits and every stored byte was read and found right; of an encrypted backup
nothing is read before an identity is there that opens it.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, StorageInvalid, VerificationFailed
from avalanche_backup.locks import KeptLocks, release_hold, write_hold
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.artifacts import Reader, open_artifact, read_whole
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import identities_for
from avalanche_backup.verbs.plan import Target, make_plan, open_targets
from avalanche_contract.request import RestoreRequest
from avalanche_contract.result import Plan, Result


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
    reader = Reader(store, found, identities_for(found, request.backup.identity))
    if request.mode == "Plan":
        return _plan(request, context, store, found)
    with ExitStack() as stack:
        places = [(open_store(each.storage), each.prefix) for each in request.locks]
        stack.enter_context(KeptLocks(places, request.request_uid, context.now))
        return _execute(request, context, reader)


def _plan(request: RestoreRequest, context: Context, store: Store, found: Found) -> Result:
    plan = make_plan(request, store, found, open_targets(request, found, context.scratch))
    with suppress(StorageInvalid):  # a read-only storage cannot be held, nor cleaned up
        write_hold(store, found.prefix, plan.backup_id, request.request_uid, context.now())
    context.report.plan(plan)
    return _result(request, plan, "Planned", f"{plan.backup_id} can be restored")


def _execute(request: RestoreRequest, context: Context, reader: Reader) -> Result:
    store, found = reader.store, reader.found
    targets = open_targets(request, found, context.scratch)
    plan = make_plan(request, store, found, targets)
    if plan.needs_approval and plan.digest != request.approved_plan:
        context.report.plan(plan)
        raise RestoreRefused(
            "what is at the target is no longer what was approved: look at the new plan, and approve that one",
            reason="PlanChanged",
        )
    _check_artifacts(context, reader, targets)
    done = _restore_all(context, reader, targets)
    context.report.progress("Verifying", "", 0, None)
    with suppress(Failure):
        release_hold(store, found.prefix, plan.backup_id)
    return _result(request, plan, "Restored", "; ".join(done))


def _check_artifacts(context: Context, reader: Reader, targets: tuple[Target, ...]) -> None:
    total = sum(each.artifact.source_bytes for each in targets)
    done = 0
    for target in targets:
        try:
            for length in read_whole(reader, target.artifact):
                done += length
                context.report.progress("Checking", target.artifact.source, done, total)
        except VerificationFailed as failure:
            raise VerificationFailed(
                f"{failure.message}. The target is untouched", reason=failure.reason
            ) from None


def _restore_all(context: Context, reader: Reader, targets: tuple[Target, ...]) -> list[str]:
    done: list[str] = []
    for target in targets:
        try:
            done.append(_restore_one(context, reader, target))
        except Failure as failure:
            if not done:
                raise
            raise RestoreFailed(
                f"{target.artifact.source}: {failure.message}. Done before: {'; '.join(done)}",
                reason=failure.reason,
            ) from None
    return done


def _restore_one(context: Context, reader: Reader, target: Target) -> str:
    artifact = target.artifact
    scratch = context.scratch / f"restore-{artifact.source}"
    scratch.mkdir(parents=True, exist_ok=True)

    def progress(done: int) -> None:
        context.report.progress("Restoring", artifact.source, done, artifact.source_bytes)

    progress(0)
    with open_artifact(reader, artifact) as chunks:
        return target.source.restore(
            chunks, artifact=artifact.model_dump(), paths=target.paths, scratch=scratch, progress=progress
        )


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
