"""The objectives of one policy: judged at every look, and at the very moment at which one is missed; told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_operator.api.drill import DrillsStatus
from avalanche_operator.api.objectives import ObjectivesStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.run import advance, let_go
from avalanche_operator.objectives.decide import after, judged, measured
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
TELLING_SECONDS = 1.0


@dataclass(frozen=True)
class Aimed:
    """What is shown of objectives; nothing where there are none."""

    verdict: Verdict | None = None
    status: ObjectivesStatus | None = None
    again_seconds: float | None = None
    """When the answer changes as time passes, or telling goes on."""


async def look_at_objectives(
    found: Object,
    newest: datetime | None,
    restores: Iterable[Object],
    drills: DrillsStatus | None,
    around: Surroundings,
) -> Aimed:
    """Judge them, and go on telling; ``newest`` is the moment of the data of the newest good backup."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    if spec.objectives is None or spec.objectives.aims_at_nothing:
        return Aimed()
    status = BackupPolicyStatus.model_validate(found.get("status") or {}).objectives or ObjectivesStatus()
    meta, now = found["metadata"], around.now()
    took = measured(restores, meta["name"], drills)
    created = datetime.fromisoformat(meta["creationTimestamp"])
    verdict, due = judged(spec.objectives, newest=newest, found=took, created=created, now=now)
    status = await _told(found, status, verdict, around)
    shown = {
        "recovery_point_time": newest,
        "recovery_seconds": took.seconds if took else None,
        "measured_by": took.by if took else None,
    }
    status = after(status.model_copy(update=shown), verdict, spec.notifications, now)
    pending = status.notification is not None and status.notification.state == "Pending"
    waits = [TELLING_SECONDS] if pending else []
    waits += [max(0.0, (due - now).total_seconds())] if due is not None else []
    return Aimed(verdict, status, min(waits, default=None))


async def _told(
    found: Object, status: ObjectivesStatus, verdict: Verdict, around: Surroundings
) -> ObjectivesStatus:
    """Go on telling what an earlier look has written down, and let the Job of what is told go."""
    pending = status.notification
    await let_go(found["metadata"]["namespace"], pending, around.gateway)
    if pending is None or pending.state != "Pending":
        return status
    fits = (pending.event == "ObjectiveMissed") == (verdict.status == "False")
    telling = Telling(
        owner=found,
        policy=found,
        pending=pending,
        reason=verdict.reason if fits else pending.event,
        message=verdict.message if fits else "it has changed again since",
        time=pending.slot or around.now(),
    )
    return status.model_copy(update={"notification": await advance(telling, around)})
