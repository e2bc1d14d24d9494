"""Take a restore back: plan, or carry out the plan that was approved. No backup is read; what the restore kept aside is enough."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused
from avalanche_backup.locks import KeptLocks
from avalanche_backup.sources.base import Kept, Swap, TargetState
from avalanche_backup.sources.opening import open_source, open_swap
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.restore import PlanChanged, lock_places
from avalanche_contract.names import switch_id
from avalanche_contract.request import UndoRequest
from avalanche_contract.result import Plan, Result, TargetPlan
from avalanche_contract.source import Source


@dataclass(frozen=True)
class Undone:
    """One target, and what it will be again."""

    source: Source
    swap: Swap
    kept: Kept
    standing: str
    """What is there now, and goes."""
    state: TargetState
    """The same for a person, and who uses it."""
    sizes: tuple[int, int]
    """Bytes that are there now, and that come back; 0 where they are not known."""

    @property
    def target(self) -> str:
        """Name it to a person."""
        return self.swap.target


def run(request: UndoRequest, context: Context) -> Result:
    """Plan or undo.

    :raises RestoreRefused: nothing was kept, or it cannot come back; the target is untouched.
    :raises RestoreFailed: the target is as the message says.
    """
    if request.mode == "Plan":
        plan = make_plan(request, open_targets(request, context))
        context.report.plan(plan)
        return _result(request, plan, "Planned", "the restore can be undone")
    with ExitStack() as stack:
        stack.enter_context(KeptLocks(lock_places(request.locks), request.request_uid, context.now))
        undone = open_targets(request, context)
        plan = make_plan(request, undone)
        if plan.digest != request.approved_plan:
            following = request.model_copy(update={"plan_number": request.plan_number + 1})
            context.report.plan(make_plan(following, undone))
            raise PlanChanged(
                "what would be undone is no longer what was approved: look at the new plan, and approve that one"
            )
        return _result(request, plan, "Undone", "; ".join(_undo_all(undone, context)))


def open_targets(request: UndoRequest, context: Context) -> tuple[Undone, ...]:
    """Find what was kept at each target; without a restore's UID at those of them where something was.

    :raises RestoreRefused: nothing, or of several restores, or it cannot come back.
    """
    found = [
        each
        for number, source in enumerate(request.targets)
        if (each := _open(request, source, number, context))
    ]
    if not found:
        raise RestoreRefused(
            "no restore kept anything there: only one with keepPrevious can be undone, and only once",
            reason="NothingKept",
        )
    for each in found:
        if obstacle := each.swap.undo_obstacle(each.kept):
            raise RestoreRefused(
                f"{each.target}: the restore cannot be undone: {obstacle}", reason="UndoNotPossible"
            )
    return tuple(found)


def make_plan(request: UndoRequest, undone: tuple[Undone, ...]) -> Plan:
    """Bring together what a person approves. An undo always waits for it: what was written since the restore goes."""
    document = {
        "undo": [request.cluster_uid, request.request_uid, request.plan_number, request.restore_uid],
        "targets": [[each.target, each.kept.name, each.kept.switch, each.standing] for each in undone],
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    return Plan(
        digest=f"sha256:{digest}",
        targets=tuple(_describe(each) for each in undone),
        needs_approval=True,
        estimated_seconds=5,
    )


def _open(request: UndoRequest, source: Source, number: int, context: Context) -> Undone | None:
    scratch = context.scratch / f"undo-{number}"
    scratch.mkdir(parents=True, exist_ok=True)
    swap = open_swap(source, scratch, switch_id(request.request_uid))
    kept = [
        each
        for each in swap.kept()
        if not request.restore_uid or each.switch == switch_id(request.restore_uid)
    ]
    if len(kept) > 1:
        raise RestoreRefused(
            f"{swap.target}: several restores kept something ({', '.join(each.name for each in kept)}): say which one is undone",
            reason="SeveralKept",
        )
    if not kept:
        return None
    (only,) = kept
    return Undone(source, swap, only, swap.standing(), _state(source, scratch), swap.sizes(only))


def _state(source: Source, scratch: Path) -> TargetState:
    """Look at the target as the plan of a restore does; what would stand in the way of a restore is nothing to an undo."""
    with suppress(Failure):
        return open_source(source, scratch).inspect_target({})
    return TargetState("HoldsData", "not known")


def _describe(undone: Undone) -> TargetPlan:
    killed = undone.kept.unfinished
    brought = "a restore that was killed while it switched" if killed else "what the restore brought"
    now, back = undone.sizes
    return TargetPlan(
        artifact=undone.source.name,
        kind=undone.source.kind,
        target=undone.target,
        state="HoldsData",
        found=f"{brought}: {undone.state.found}{_bytes(now)}",
        used_by=undone.state.used_by[:10],
        size_bytes=0,
        source_bytes=back,
        strategy="Swap",
        action=f"what was there before the restore ({undone.kept.name}{_bytes(back)}) takes its place again; what was restored, and was written since, goes",
    )


def _bytes(size: int) -> str:
    return f", {size:,} bytes" if size else ""


def _undo_all(undone: tuple[Undone, ...], context: Context) -> list[str]:
    done: list[str] = []
    for each in undone:
        context.report.progress("Restoring", each.source.name, 0, None)
        try:
            done.append(each.swap.undo(each.kept))
        except Failure as failure:
            if not done:
                raise
            raise RestoreFailed(
                f"{each.source.name}: {failure.message}. Undone before: {'; '.join(done)}",
                reason=failure.reason,
            ) from None
    return done


def _result(request: UndoRequest, plan: Plan, reason: str, message: str) -> Result:
    return Result(
        nonce=request.nonce,
        verb="undo",
        verdict="Succeeded",
        reason=reason,
        message=message,
        plan_digest=plan.digest,
    )
