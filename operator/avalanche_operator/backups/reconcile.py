"""One look at a Backup: read its policy, Job, pods and log; decide; write the status once."""

from __future__ import annotations

from typing import Any

from avalanche_contract.notification import Told as Notified
from avalanche_operator.api.backup import TERMINAL, BackupSpec, BackupStatus
from avalanche_operator.backups import lookup, telling
from avalanche_operator.backups.asking import ask_storages
from avalanche_operator.backups.decide import (
    again_seconds,
    ended,
    is_lost,
    under_way,
)
from avalanche_operator.backups.runs import Watched, read_run
from avalanche_operator.backups.write import write_status
from avalanche_operator.keeping.backup import look_at_kept
from avalanche_operator.kube.queue import Key
from avalanche_operator.notifications.run import let_go
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
NOTIFYING_SECONDS = 3.0
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
        return await _after_the_end(watched)
    if watched.spec.origin == "Discovered":
        return None  # who reads its storage writes what it is
    after, told = await _look(watched)
    if after.phase in TERMINAL:
        notification = await telling.owed(found, after, told, around)
        after = after.model_copy(update={"notification": notification})
    await write_status(found, after, around)
    if after.phase in TERMINAL:
        return 0.0
    now = around.now()
    return max(again_seconds(after, found, now), lookup.wait_seconds(after.lookup, now))


async def _after_the_end(watched: Watched) -> float | None:
    """Tell what is still to be told, once, and let the Jobs go."""
    notification = await telling.tell(watched.found, watched.status, watched.around)
    if notification != watched.status.notification:
        changed = watched.status.model_copy(update={"notification": notification})
        await write_status(watched.found, changed, watched.around)
        return 0.0
    await _let_go(watched)
    await let_go(watched.namespace, watched.status.notification, watched.around.gateway)
    again = await look_at_kept(watched.found, watched.around)
    pending = notification is not None and notification.state == "Pending"
    return min(NOTIFYING_SECONDS, again or NOTIFYING_SECONDS) if pending else again


async def _look(watched: Watched) -> tuple[BackupStatus, Notified | None]:
    """Give the status, and whom the run's own pod told."""
    told, status = await read_run(watched)
    result = told.outcome.result
    notified = result.notification if result is not None else None
    if is_lost(told):
        return await ask_storages(watched, status, told), notified
    if told.outcome.state == "Ended":
        return ended(status, told), notified
    return under_way(status, told, watched.found, watched.around.now()), notified


async def _let_go(watched: Watched) -> None:
    """Let the Job of a manual run go some time after its result was recorded."""
    if watched.status.job is None:
        return
    there = await watched.around.gateway.get("Job", watched.namespace, watched.status.job)
    if there is not None and "ttlSecondsAfterFinished" not in there["spec"]:
        change = {"spec": {"ttlSecondsAfterFinished": KEPT_SECONDS}}
        await watched.around.gateway.patch("Job", watched.namespace, watched.status.job, change)
