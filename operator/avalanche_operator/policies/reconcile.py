"""One look at a BackupPolicy: read, decide, then CronJob, probe, Backups of scheduled runs, and the status once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract import names
from avalanche_contract.base import format_time
from avalanche_operator.api.common import ProbeStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus
from avalanche_operator.backups.build import scheduled_backup
from avalanche_operator.jobs.build import PlanImpossible, fingerprint, job
from avalanche_operator.jobs.observe import controlled_by
from avalanche_operator.jobs.probing import next_probe, recorded, verdict_of
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.kube.conditions import Verdict, find_condition, merge_conditions, ready
from avalanche_operator.kube.events import changed, tell
from avalanche_operator.kube.queue import Key
from avalanche_operator.policies.applied import apply_to
from avalanche_operator.policies.build import Applied, cron_job, cron_job_name, probe_job
from avalanche_operator.policies.decide import Runs, backups_of, missing_backups, paused, summarize
from avalanche_operator.policies.schedule import ScheduleInvalid, next_time, resolve, zone
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]
AGAIN_SECONDS = 600.0


@dataclass(frozen=True)
class Looked:
    """What one look at whether the policy is usable came to."""

    verdict: Verdict
    probe: ProbeStatus | None
    stalled: bool = False
    schedule: str | None = None
    next_schedule: datetime | None = None
    discard: str | None = None
    again_seconds: float = AGAIN_SECONDS


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one policy."""
    found = await around.gateway.get("BackupPolicy", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    status = BackupPolicyStatus.model_validate(found.get("status") or {})
    looked = await _look(found, status, around)
    own = backups_of(await around.gateway.list("Backup", key.namespace), key.name)
    scheduled = await around.gateway.get("CronJob", key.namespace, cron_job_name(found))
    created = await _show_runs(found, own, scheduled, around)
    restores = await around.gateway.list("RestoreRequest", key.namespace)
    await _write(found, looked, _State(summarize(own), paused(restores, key.name), scheduled), around)
    if looked.discard is not None:
        ended = await around.gateway.get("Job", key.namespace, looked.discard)
        if ended is not None:
            await around.gateway.delete(ended)
    return 1.0 if created else looked.again_seconds


async def _look(found: Object, status: BackupPolicyStatus, around: Surroundings) -> Looked:
    """Apply the CronJob, and find out whether everything that it needs is usable."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    try:
        schedule = resolve(spec.schedule, found["metadata"]["uid"])
        coming = None if spec.suspend else next_time(schedule, zone(spec.time_zone), around.now())
        applied, obstacle = await apply_to(found, around)
        if applied is None:
            verdict = obstacle or Verdict("Ready", "Unknown", "Pending")
            return Looked(verdict, status.probe, schedule=schedule, next_schedule=coming, again_seconds=10.0)
        await _apply_cron_job(applied, schedule, around)
    except ScheduleInvalid as invalid:
        verdict = Verdict("Ready", "False", invalid.reason, str(invalid))
        return Looked(verdict, status.probe, stalled=True)
    except PlanImpossible as impossible:
        verdict = Verdict("Ready", "False", impossible.reason, str(impossible))
        return Looked(verdict, status.probe, stalled=True)
    except NameTaken as taken:
        return Looked(Verdict("Ready", "False", "NameTaken", str(taken)), status.probe, again_seconds=30.0)
    if obstacle is not None:
        return Looked(obstacle, status.probe, schedule=schedule, next_schedule=coming, again_seconds=5.0)
    return await _probe(applied, status, (schedule, coming), around)


async def _apply_cron_job(applied: Applied, schedule: str, around: Surroundings) -> None:
    """Make the CronJob as it should be, where the name is free or ours; what others changed in it is set back."""
    wanted = cron_job(applied, schedule)
    meta = wanted["metadata"]
    there = await around.gateway.get("CronJob", meta["namespace"], meta["name"])
    if there is not None and not controlled_by(there, applied.policy["metadata"]["uid"]):
        raise NameTaken(f"CronJob {meta['name']} exists and is not ours: delete or rename it")
    await around.gateway.apply(wanted)


async def _probe(
    applied: Applied, status: BackupPolicyStatus, timing: tuple[str, datetime | None], around: Surroundings
) -> Looked:
    schedule, coming = timing
    mark = fingerprint(probe_job(applied, 0).request)
    number, wait = next_probe(status.probe, mark, around.now())
    known = _known(applied.policy, mark, status)
    if wait > 0:
        again = min(wait, AGAIN_SECONDS)
        return Looked(known, status.probe, schedule=schedule, next_schedule=coming, again_seconds=again)
    plan = probe_job(applied, number)
    outcome = await look(around.gateway, applied.policy, plan.name, plan.request.nonce)
    if outcome.state == "Ended":
        probe = recorded(status.probe, number, mark, outcome, around.now())
        _, wait = next_probe(probe, mark, around.now())
        return Looked(
            verdict_of(outcome), probe, schedule=schedule, next_schedule=coming, discard=plan.name,
            again_seconds=min(wait, AGAIN_SECONDS),
        )  # fmt: skip
    if outcome.state == "Missing":
        await around.gateway.create(job(plan))
    return Looked(known, status.probe, schedule=schedule, next_schedule=coming, again_seconds=10.0)


def _known(found: Object, mark: str, status: BackupPolicyStatus) -> Verdict:
    """Repeat what a probe of this very request said; else it is not known yet."""
    before = find_condition((found.get("status") or {}).get("conditions") or (), "Ready")
    if before and status.probe and status.probe.fingerprint == mark and before["reason"] == "Usable":
        return Verdict("Ready", "True", "Usable", before.get("message", ""))
    if (
        before
        and status.probe
        and status.probe.fingerprint == mark
        and status.probe.failures
        and before["status"] == "False"
    ):
        return Verdict("Ready", "False", before["reason"], before.get("message", ""))
    return Verdict("Ready", "Unknown", "Probing", "a Job finds out whether the sources can be read")


async def _show_runs(
    found: Object, own: list[Object], scheduled: Object | None, around: Surroundings
) -> bool:
    """Create the Backup of each Job that the CronJob started, also of those that it started while we were away."""
    meta = found["metadata"]
    labels = {names.LABEL_OWNER_UID: meta["uid"], names.LABEL_VERB: "backup"}
    jobs = await around.gateway.list("Job", meta["namespace"], labels)
    new = missing_backups(jobs, own, scheduled)
    for each in new:
        taken = await around.gateway.create(scheduled_backup(found, each, cron_job_name(found))) is None
        if taken:
            await around.gateway.create(scheduled_backup(found, each, cron_job_name(found), distinct=True))
    return bool(new)


@dataclass(frozen=True)
class _State:
    """What is shown besides Ready."""

    runs: Runs
    paused: Verdict | None
    scheduled: Object | None


async def _write(found: Object, looked: Looked, state: _State, around: Surroundings) -> None:
    before = (found.get("status") or {}).get("conditions") or ()
    generation = found["metadata"]["generation"]
    verdicts = [
        *ready(looked.verdict, stalled=looked.stalled),
        *(each for each in (state.runs.verdict, state.paused) if each),
    ]
    cron_status = (state.scheduled or {}).get("status") or {}
    document: Object = {
        "observedGeneration": generation,
        "conditions": merge_conditions(before, verdicts, generation=generation, now=around.now()),
        "schedule": looked.schedule,
        "probe": looked.probe.model_dump(mode="json", by_alias=True, exclude_none=True)
        if looked.probe
        else None,
        "lastScheduleTime": cron_status.get("lastScheduleTime"),
        "nextScheduleTime": format_time(looked.next_schedule) if looked.next_schedule else None,
        "lastSuccessfulTime": state.runs.last_successful,
        "consecutiveFailures": state.runs.failures,
        "backupCount": state.runs.succeeded,
        "sizeBytes": state.runs.size_bytes,
    }
    document = {name: value for name, value in document.items() if value is not None}
    if document != found.get("status") and await around.gateway.apply_status(found, document) is not None:
        await tell(around.gateway, found, changed(before, verdicts, "Ready"), around.now())
