"""One look at a Backup: read its policy, Job, pods and log; decide; write the status once."""

from __future__ import annotations

from typing import Any

from avalanche_operator.api.backup import TERMINAL, BackupSpec, BackupStatus
from avalanche_operator.backups import lookup
from avalanche_operator.backups.asking import ask_storages
from avalanche_operator.backups.decide import (
    again_seconds,
    condition,
    copies_complete,
    ended,
    is_lost,
    under_way,
)
from avalanche_operator.backups.runs import Watched, read_run
from avalanche_operator.kube.conditions import merge_conditions, ready
from avalanche_operator.kube.events import changed, write_status
from avalanche_operator.kube.queue import Key
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
KEPT_SECONDS = 600
"""How long a Job of ours stays after its result was recorded, for who wants to read its log."""


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one Backup."""
    found = await around.gateway.get("Backup", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    status = BackupStatus.model_validate(found.get("status") or {})
    watched = Watched(found, BackupSpec.model_validate(found["spec"]), status, around)
    if status.phase in TERMINAL:
        await _let_go(watched)
        return None
    after = await _look(watched)
    await _write(watched, after)
    if after.phase in TERMINAL:
        return 0.0
    now = around.now()
    return max(again_seconds(after, found, now), lookup.wait_seconds(after.lookup, now))


async def _look(watched: Watched) -> BackupStatus:
    told, status = await read_run(watched)
    if is_lost(told):
        return await ask_storages(watched, status, told)
    if told.outcome.state == "Ended":
        return ended(status, told)
    return under_way(status, told, watched.found, watched.around.now())


async def _write(watched: Watched, after: BackupStatus) -> None:
    found, around = watched.found, watched.around
    generation = found["metadata"]["generation"]
    before = (found.get("status") or {}).get("conditions") or ()
    verdict = condition(after)
    complete = copies_complete(after)
    verdicts = (*ready(verdict, stalled=after.phase in TERMINAL), *((complete,) if complete else ()))
    document = after.model_copy(update={"observed_generation": generation, "conditions": ()}).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    news = changed(before, verdicts, "Ready") if after.phase in TERMINAL else None
    await write_status(around.gateway, found, document, news=news, now=around.now())


async def _let_go(watched: Watched) -> None:
    """Let the Job of a manual run go some time after its result was recorded."""
    if watched.status.job is None:
        return
    there = await watched.around.gateway.get("Job", watched.namespace, watched.status.job)
    if there is not None and "ttlSecondsAfterFinished" not in there["spec"]:
        change = {"spec": {"ttlSecondsAfterFinished": KEPT_SECONDS}}
        await watched.around.gateway.patch("Job", watched.namespace, watched.status.job, change)
