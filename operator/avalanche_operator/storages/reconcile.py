"""One look at a BackupStorage: read it, its claim and its probe; decide; write the status once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from avalanche_operator.api.common import ProbeStatus
from avalanche_operator.api.storage import BackupStorageSpec, BackupStorageStatus
from avalanche_operator.jobs.build import JobPlan, Placement, fingerprint, job
from avalanche_operator.jobs.mounts import storage_part
from avalanche_operator.jobs.placement import place
from avalanche_operator.jobs.probing import AGAIN_SECONDS, next_probe, recorded, usable, verdict_of
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.kube.conditions import Verdict, find_condition, merge_conditions, ready
from avalanche_operator.kube.events import changed, tell
from avalanche_operator.kube.queue import Key
from avalanche_operator.settings import Surroundings
from avalanche_operator.storages.build import probe_job, probe_request

Object = dict[str, Any]


@dataclass(frozen=True)
class Decision:
    """What one look comes to."""

    verdict: Verdict
    probe: ProbeStatus | None
    storage_id: str | None
    create: JobPlan | None = None
    discard: str | None = None
    """The Job whose outcome is recorded now."""
    again_seconds: float | None = None


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one storage."""
    found = await around.gateway.get("BackupStorage", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    spec = BackupStorageSpec.model_validate(found["spec"])
    status = BackupStorageStatus.model_validate(found.get("status") or {})
    decision = await _decide(found, spec, status, around)
    if decision.create is not None:
        await around.gateway.create(job(decision.create))
    await _write(found, status, decision, around)
    if decision.discard is not None:
        ended = await around.gateway.get("Job", key.namespace, decision.discard)
        if ended is not None:
            await around.gateway.delete(ended)
    return decision.again_seconds


async def _decide(
    found: Object, spec: BackupStorageSpec, status: BackupStorageStatus, around: Surroundings
) -> Decision:
    placement = await placement_of(found, spec, around)
    if isinstance(placement, Verdict):
        return Decision(placement, status.probe, status.storage_id, again_seconds=10.0)
    request = probe_request(found, spec, around.settings)
    print_ = fingerprint(request)
    number, wait = next_probe(status.probe, print_, around.now())
    if wait > 0:
        return Decision(_known(found, print_, status), status.probe, status.storage_id, again_seconds=wait)
    plan = probe_job(found, spec, around.settings, number, placement)
    try:
        outcome = await look(around.gateway, found, plan.name, request.nonce)
    except NameTaken as taken:
        verdict = Verdict("Ready", "False", "NameTaken", str(taken))
        return Decision(verdict, status.probe, status.storage_id, again_seconds=30.0)
    if outcome.state == "Ended":
        probe = recorded(status.probe, number, print_, outcome, around.now())
        _, wait = next_probe(probe, print_, around.now())
        told = outcome.result.probe if usable(outcome) and outcome.result else None
        storage_id = (told.storage_id if told else None) or status.storage_id
        return Decision(
            verdict_of(outcome), probe, storage_id, discard=plan.name, again_seconds=min(wait, AGAIN_SECONDS)
        )
    create = plan if outcome.state == "Missing" else None
    verdict = _known(found, print_, status, waiting=outcome.message)
    return Decision(verdict, status.probe, status.storage_id, create=create, again_seconds=10.0)


def _known(found: Object, print_: str, status: BackupStorageStatus, waiting: str = "") -> Verdict:
    """Repeat what is known of this very spec while a probe runs; else it is not known yet."""
    before = find_condition((found.get("status") or {}).get("conditions") or (), "Ready")
    if before and status.probe and status.probe.fingerprint == print_ and before["reason"] not in _PASSING:
        return Verdict("Ready", before["status"], before["reason"], before.get("message", ""))
    message = "a Job finds out whether the storage is usable" + (f": {waiting}" if waiting else "")
    return Verdict("Ready", "Unknown", "Probing", message)


_PASSING = ("ClaimNotFound", "ClaimInUse", "ClaimsOnTwoNodes", "NameTaken")
"""Reasons that no probe gave: they say nothing once they are over."""


async def placement_of(found: Object, spec: BackupStorageSpec, around: Surroundings) -> Placement | Verdict:
    """Find where a pod must run that mounts this storage."""
    _, mounts = storage_part(found["metadata"]["name"], spec)
    if not mounts.claims:
        return Placement()
    namespace = found["metadata"]["namespace"]
    claims = await around.gateway.list("PersistentVolumeClaim", namespace)
    return place(mounts, claims, await around.gateway.list("Pod", namespace))


async def _write(
    found: Object, status: BackupStorageStatus, decision: Decision, around: Surroundings
) -> None:
    before = (found.get("status") or {}).get("conditions") or ()
    generation = found["metadata"]["generation"]
    verdicts = ready(decision.verdict)
    changed_to = status.model_copy(
        update={"observed_generation": generation, "probe": decision.probe, "storage_id": decision.storage_id}
    )
    document = changed_to.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["conditions"] = merge_conditions(before, verdicts, generation=generation, now=around.now())
    if document != found.get("status") and await around.gateway.apply_status(found, document) is not None:
        await tell(around.gateway, found, changed(before, verdicts, "Ready"), around.now())
