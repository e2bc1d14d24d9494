"""One look at what lies in a storage: read the page that is due, and show it, a bounded number of writes at a time.

A page is recorded only when all of it is shown: whoever is killed in between reads the same page again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from avalanche_contract import names
from avalanche_contract.request import CatalogRequest
from avalanche_contract.result import Entry
from avalanche_operator.api.backup import BackupStatus
from avalanche_operator.api.storage import BackupStorageSpec, BackupStorageStatus
from avalanche_operator.applying.schedule import ScheduleInvalid, resolve
from avalanche_operator.backups.write import write_status
from avalanche_operator.discovery.build import discovered, page_job, page_request
from avalanche_operator.discovery.decide import (
    Due,
    Page,
    after_reading,
    failed,
    identity_of,
    is_forsaken,
    next_page,
    page_of,
    policy_of,
    recorded,
    runs_of,
    verdict,
)
from avalanche_operator.jobs.build import Placement, PlanImpossible, fingerprint, job
from avalanche_operator.jobs.probing import refused
from avalanche_operator.jobs.run import NameTaken, look, read_answer
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
BATCH = 100
"""So many Backups are written in one look: ten thousand of them are no burst."""
PAUSE_SECONDS, WAITING_SECONDS = 5.0, 5.0
LATER_SECONDS = 60.0


@dataclass(frozen=True)
class Read:
    """What one look came to."""

    status: BackupStorageStatus
    verdict: Verdict
    discard: str | None = None
    """The Job whose page is recorded now."""
    again_seconds: float = LATER_SECONDS


async def look_at_contents(
    found: Object,
    spec: BackupStorageSpec,
    status: BackupStorageStatus,
    placement: Placement,
    around: Surroundings,
) -> Read:
    """Go on reading a storage that is usable; each obstacle is a verdict."""
    try:
        schedule = resolve(spec.sync_schedule, found["metadata"]["uid"])
        policies = await around.gateway.list("BackupPolicy", found["metadata"]["namespace"])
        first = page_request(found, spec, around.settings, policies=policies)
        due = next_page(status, fingerprint(first), schedule, around.now())
        if due.wait_seconds > 0:
            return Read(status, verdict(status), again_seconds=due.wait_seconds)
        request = first.model_copy(update={"after": due.after})
        return await _look(_Reading(found, spec, status, placement, around), request, due, fingerprint(first))
    except ScheduleInvalid as invalid:
        return Read(status, Verdict("Synced", "False", invalid.reason, str(invalid)))
    except PlanImpossible as impossible:
        return Read(status, Verdict("Synced", "False", impossible.reason, str(impossible)))
    except NameTaken as taken:
        return Read(status, Verdict("Synced", "False", "NameTaken", str(taken)))
    except Refused as error:
        return Read(status, replace(refused(error), type="Synced"))


@dataclass(frozen=True)
class _Reading:
    found: Object
    spec: BackupStorageSpec
    status: BackupStorageStatus
    placement: Placement
    around: Surroundings


async def _look(reading: _Reading, request: CatalogRequest, due: Due, mark: str) -> Read:
    found, status, around = reading.found, reading.status, reading.around
    plan = page_job(found, reading.spec, request, due.number, (reading.placement, around.settings))
    outcome = await look(around.gateway, found, plan.name, request.nonce)
    if outcome.state == "Missing":
        await around.gateway.create(job(plan))
    if outcome.state != "Ended":
        return Read(status, verdict(status), again_seconds=WAITING_SECONDS)
    meta = found["metadata"]
    page = None
    if outcome.pod is not None:
        answer = await read_answer(around.gateway, meta["namespace"], outcome.pod, request.nonce)
        page = page_of(meta["name"], request, outcome, answer, around.now())
    if page is None:
        after = failed(status, outcome, due, mark, around.now())
        return Read(after, verdict(after), plan.name, WAITING_SECONDS)
    if not await _show(page, meta["namespace"], around):
        return Read(status, verdict(status), again_seconds=PAUSE_SECONDS)
    after = recorded(status, page, due, mark)
    return Read(after, verdict(after), plan.name, PAUSE_SECONDS if page.cursor is not None else LATER_SECONDS)


async def _show(page: Page, namespace: str, around: Surroundings) -> bool:
    """Bring Backups in line with a page; say whether all of it is shown.

    Jobs are listed before Backups: a run whose Job is gone by then has its Backup already.
    """
    gateway, room = around.gateway, BATCH
    runs = runs_of(await gateway.list("Job", namespace, {names.LABEL_VERB: "backup"}))
    known: set[tuple[str, str]] = set()
    async for each in gateway.iterate("Backup", namespace):
        identity, backup_id = identity_of(each)
        if room > 0 and is_forsaken(each, page, around.now()):
            await gateway.delete(each)
            room -= 1
            continue
        after = after_reading(each, page, around.now())
        known.add((identity, backup_id or (after.backup_id if after is not None else None) or ""))
        if after is None:
            continue
        if room == 0 or not await _write(each, after, page, around):
            return False
        room -= 1
    nameless = {identity for identity, backup_id in known if not backup_id}
    for (identity, backup_id), (entry, status) in page.entries.items():
        if identity in runs or identity in nameless or (identity, backup_id) in known:
            continue
        try:
            made = await _create(entry, namespace, around) if room else None
        except Refused as error:
            _note(page, f"{entry.prefix}{backup_id}", error)
            continue
        if made is None or not await _write(made, status, page, around):
            return False
        room -= 1
    return True


async def _create(entry: Entry, namespace: str, around: Surroundings) -> Object | None:
    """Create the Backup of an entry, by another name where another run has the plain one; ``None``: somebody was faster."""
    wanted = discovered(entry, namespace, policy_of(entry))
    made = await around.gateway.create(wanted)
    if made is not None:
        return made
    there = await around.gateway.get("Backup", namespace, wanted["metadata"]["name"])
    if there is None or identity_of(there) in (
        (entry.run_identity, ""),
        (entry.run_identity, entry.backup_id),
    ):
        return None
    return await around.gateway.create(discovered(entry, namespace, policy_of(entry), distinct=True))


async def _write(backup: Object, status: BackupStatus, page: Page, around: Surroundings) -> bool:
    """Write a status; one that the API server never takes is told with what cannot be read."""
    try:
        return await write_status(backup, status, around)
    except Refused as error:
        _note(page, f"{status.prefix}{status.backup_id}", error)
        return True


def _note(page: Page, key: str, error: Refused) -> None:
    """Note with what cannot be read what the API server never takes.

    :raises Refused: it is not that; the next look may do.
    """
    if not error.mended_by_spec:
        raise error
    page.unreadable[key] = error.message[:300]
