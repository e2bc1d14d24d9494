"""One look at a BackupStorage: read it, its claim, its probe and a page of what is in it; decide; write the status once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from avalanche_operator.api.common import ProbeStatus
from avalanche_operator.api.storage import BackupStorageSpec, BackupStorageStatus
from avalanche_operator.discovery.decide import verdict as synced
from avalanche_operator.discovery.storage import look_at_contents
from avalanche_operator.jobs.build import JobPlan, fingerprint, job
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.jobs.placed import placed
from avalanche_operator.jobs.probing import (
    AGAIN_SECONDS,
    known,
    next_probe,
    recorded,
    refused,
    usable,
    verdict_of,
)
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.kube.conditions import Verdict, merge_conditions, ready
from avalanche_operator.kube.events import changed, write_status
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.kube.queue import Key
from avalanche_operator.settings import Surroundings
from avalanche_operator.storages.build import probe_job, probe_request
from avalanche_operator.storages.decide import skew_verdict

Object = dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """What one look comes to."""

    verdict: Verdict
    status: BackupStorageStatus
    stalled: bool = False
    create: JobPlan | None = None
    discard: tuple[str, ...] = ()
    """The Jobs whose outcome is recorded now."""
    again_seconds: float | None = None
    synced: Verdict | None = None
    """Whether Backups show what is in it; nothing is read of one that is not usable."""


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one storage."""
    found = await around.gateway.get("BackupStorage", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    spec = BackupStorageSpec.model_validate(found["spec"])
    status = BackupStorageStatus.model_validate(found.get("status") or {})
    decision = await _look(found, spec, status, around)
    await _write(found, decision, around)
    for name in decision.discard:
        ended = await around.gateway.get("Job", key.namespace, name)
        if ended is not None:
            await around.gateway.delete(ended)
    return decision.again_seconds


async def _look(
    found: Object, spec: BackupStorageSpec, status: BackupStorageStatus, around: Surroundings
) -> Decision:
    """Decide, and start the probe that is due; each obstacle is a verdict."""
    try:
        decision = await _decide(found, spec, status, around)
        if decision.create is not None:
            await around.gateway.create(job(decision.create))
        if decision.verdict.status == "True":
            return await _with_contents(found, spec, decision, around)
    except NameTaken as taken:
        return Decision(Verdict("Ready", "False", "NameTaken", str(taken)), status, again_seconds=30.0)
    except Refused as error:
        return Decision(refused(error), status, stalled=error.mended_by_spec, again_seconds=60.0)
    return decision


async def _with_contents(
    found: Object, spec: BackupStorageSpec, decision: Decision, around: Surroundings
) -> Decision:
    """Read what is in a storage that is usable."""
    _, mounts = storage_part(found["metadata"]["name"], spec)
    placement = await placed(mounts, found["metadata"]["namespace"], around.gateway)
    if isinstance(placement, Verdict):
        return decision
    read = await look_at_contents(found, spec, decision.status, placement, around)
    again = min(read.again_seconds, decision.again_seconds or AGAIN_SECONDS)
    discard = (*decision.discard, *((read.discard,) if read.discard else ()))
    return replace(
        decision, status=read.status, synced=read.verdict, discard=discard, again_seconds=max(again, 0.0)
    )


async def _decide(
    found: Object, spec: BackupStorageSpec, status: BackupStorageStatus, around: Surroundings
) -> Decision:
    meta = found["metadata"]
    _, mounts = storage_part(meta["name"], spec)
    placement = await placed(mounts, meta["namespace"], around.gateway)
    if isinstance(placement, Verdict):
        return Decision(placement, status, again_seconds=10.0)
    request = probe_request(found, spec, around.settings)
    print_ = fingerprint(request)
    number, wait = next_probe(status.probe, print_, around.now())
    if wait > 0:
        return Decision(known(status.probe, print_, _WAITING), status, again_seconds=min(wait, AGAIN_SECONDS))
    plan = probe_job(found, spec, around.settings, number, placement)
    outcome = await look(around.gateway, found, plan.name, request.nonce)
    if outcome.state == "Ended":
        after = _told(status, recorded(status.probe, number, print_, outcome, around.now()), outcome)
        _, wait = next_probe(after.probe, print_, around.now())
        return Decision(
            verdict_of(outcome), after, discard=(plan.name,), again_seconds=min(wait, AGAIN_SECONDS)
        )
    create = plan if outcome.state == "Missing" else None
    verdict = known(status.probe, print_, ": ".join(part for part in (_WAITING, outcome.message) if part))
    return Decision(verdict, status, create=create, again_seconds=10.0)


def _told(status: BackupStorageStatus, probe: ProbeStatus, outcome: Outcome) -> BackupStorageStatus:
    """Give the status with what a probe that ended said; a bad one says nothing of the place."""
    told = outcome.result.probe if usable(outcome) and outcome.result else None
    if told is None:
        return status.model_copy(update={"probe": probe})
    return status.model_copy(
        update={
            "probe": probe,
            "storage_id": told.storage_id or status.storage_id,
            "clock_skew_seconds": told.clock_skew_seconds,
        }
    )


_WAITING = "a Job finds out whether the storage is usable"


async def _write(found: Object, decision: Decision, around: Surroundings) -> None:
    before = (found.get("status") or {}).get("conditions") or ()
    generation = found["metadata"]["generation"]
    skew = skew_verdict(decision.status.clock_skew_seconds)
    told = (decision.synced or synced(decision.status), skew)
    verdicts = [*ready(decision.verdict, stalled=decision.stalled), *(each for each in told if each)]
    changed_to = decision.status.model_copy(update={"observed_generation": generation, "conditions": ()})
    document = changed_to.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    news = changed(before, verdicts, "Ready")
    await write_status(around.gateway, found, document, news=news, now=around.now())
