"""Writing the status of a Backup: the one place, so that its conditions always follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from avalanche_operator.api.backup import TERMINAL, BackupSpec, BackupStatus
from avalanche_operator.backups.decide import condition, copies_complete, readable
from avalanche_operator.drilling.decide import condition as drilled
from avalanche_operator.keeping.decide import conditions
from avalanche_operator.kube import events
from avalanche_operator.kube.conditions import merge_conditions, ready
from avalanche_operator.settings import Surroundings
from avalanche_operator.verifying.decide import condition as verified

Object = dict[str, Any]


async def write_status(found: Object, after: BackupStatus, around: Surroundings) -> bool:
    """Write a status onto just the object that was looked at; ``False`` where it is no longer as it was."""
    generation, now = found["metadata"]["generation"], around.now()
    before = (found.get("status") or {}).get("conditions") or ()
    verdicts = (
        *ready(condition(after), stalled=after.phase in TERMINAL),
        *(each for each in (copies_complete(after), verified(after), drilled(after)) if each),
        *conditions(BackupSpec.model_validate(found["spec"]), after, generation),
    )
    document = after.model_copy(update={"observed_generation": generation, "conditions": ()}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=now)
    if document == found.get("status"):
        return True
    news = events.news(before, verdicts, "Ready", "Available", "Verified", "Drilled", "ChangeApplied")
    told = news if after.phase in TERMINAL else None
    return await events.write_status(around.gateway, found, document, news=told, now=now)


async def write_each(
    policy: Object, after: Callable[[BackupStatus], BackupStatus], around: Surroundings
) -> bool:
    """Write what ``after`` makes of the status of each Backup of a policy; say whether all of it could be written.

    One that cannot be read, which somebody else wrote, is left as it is, and stops nothing.
    """
    meta, whole = policy["metadata"], True
    fields = {"spec.policyRef.name": meta["name"]}
    async for each in around.gateway.iterate("Backup", meta["namespace"], fields=fields):
        status = readable(each)
        changed = after(status) if status is not None else None
        if changed is not None and changed != status and _is_understood(each):
            whole = await write_status(each, changed, around) and whole
    return whole


def _is_understood(backup: Object) -> bool:
    try:
        BackupSpec.model_validate(backup["spec"])
    except ValidationError:
        return False
    return True
