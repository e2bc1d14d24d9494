"""One look at a BackupPolicy: read, decide, then CronJob, probe, Backups of scheduled runs, and the status once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from avalanche_contract import names
from avalanche_contract.base import format_time
from avalanche_operator.api.common import ApiModel, ProbeStatus
from avalanche_operator.api.policy import BackupPolicySpec, BackupPolicyStatus, Identity
from avalanche_operator.applying.applied import apply_to
from avalanche_operator.applying.build import Applied, cron_job, cron_job_name, probe_job
from avalanche_operator.applying.owned import apply_owned
from avalanche_operator.applying.schedule import ScheduleInvalid, next_time, resolve, zone
from avalanche_operator.backups.build import scheduled_backup
from avalanche_operator.drilling.policy import Drills, apply_drill, look_at_drills
from avalanche_operator.jobs.build import PlanImpossible, fingerprint, job
from avalanche_operator.jobs.observe import controlled_by
from avalanche_operator.jobs.probing import known, next_probe, recorded, refused, verdict_of
from avalanche_operator.jobs.run import NameTaken, look
from avalanche_operator.keeping.decide import forgotten_phase
from avalanche_operator.keeping.policy import Kept, apply_cleanup, forget_superfluous, look_at_cleanups
from avalanche_operator.kube.conditions import Verdict, merge_conditions, ready
from avalanche_operator.kube.events import news, write_status
from avalanche_operator.kube.gateway import Refused
from avalanche_operator.kube.queue import Key
from avalanche_operator.objectives.policy import Aimed, look_at_objectives
from avalanche_operator.policies.decide import Runs, Tally, paused, stranded, surplus_jobs
from avalanche_operator.policies.missing import Slots, look_at_slots, runs_known
from avalanche_operator.settings import Surroundings
from avalanche_operator.verifying.policy import Read, apply_verification, look_at_verifications

Object = dict[str, Any]
AGAIN_SECONDS = 600.0
CLOCK_TOLERANCE = timedelta(minutes=15)
"""So far the clocks of nodes may be ahead; data from later than that is from a clock that is wrong."""
CLAIMS_AGAIN_SECONDS = 60.0
"""A claim moves with the pods that use it, and the CronJob's runs must go where it is."""


@dataclass(frozen=True)
class Looked:
    """What one look at whether the policy is usable came to."""

    verdict: Verdict
    probe: ProbeStatus | None
    stalled: bool = False
    schedule: str | None = None
    next_schedule: datetime | None = None
    identity: Identity | None = None
    discard: str | None = None
    again_seconds: float = AGAIN_SECONDS
    copies: Verdict | None = None
    """CopiesComplete, where there are several destinations."""


async def reconcile(key: Key, around: Surroundings) -> float | None:
    """Look at one policy."""
    found = await around.gateway.get("BackupPolicy", key.namespace, key.name)
    if found is None or found["metadata"].get("deletionTimestamp"):
        return None
    status = BackupPolicyStatus.model_validate(found.get("status") or {})
    looked = await _look(found, status, around)
    kept = await look_at_cleanups(found, around)
    read = await look_at_verifications(found, around)
    drills = await look_at_drills(found, around)
    scheduled = await around.gateway.get("CronJob", key.namespace, cron_job_name(found))
    jobs = await _runs_of(found, scheduled, around)
    tally = await _count(key, jobs, around)  # after what they said of its backups is shown
    created = await _show_runs(found, jobs, tally.phases, around)
    restores = await around.gateway.list("RestoreRequest", key.namespace)
    runs = runs_known(scheduled, jobs, tally.last_slot)
    slots = await look_at_slots(found, looked.schedule, runs, around)
    aimed = await look_at_objectives(found, tally.newest, restores, drills.status, around)
    parts = (scheduled, slots, kept, read, drills, aimed)
    state = _State(tally.runs(status), paused(restores, key.name), *parts)
    if await _write(found, looked, state, around):  # what is forgotten was counted before
        await forget_superfluous(found, tally.failed, around)
    await _tidy(found, looked, surplus(found, jobs, tally.phases), around)
    soon = 1.0 if created or slots.pending else looked.again_seconds
    return min(each for each in (soon, aimed.again_seconds, drills.again_seconds) if each is not None)


async def _look(found: Object, status: BackupPolicyStatus, around: Surroundings) -> Looked:
    """Apply the CronJob, and find out whether everything that it needs is usable; each obstacle is a verdict."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    before = Looked(Verdict("Ready", "Unknown", "Pending"), status.probe, identity=status.identity)
    try:
        where = zone(spec.time_zone)
        schedule = resolve(spec.schedule, found["metadata"]["uid"], spec.jitter_seconds)
        coming = None if spec.suspend else next_time(schedule, where, around.now())
        timed = replace(before, schedule=schedule, next_schedule=coming)
        return await _look_at_parts(found, timed, around)
    except ScheduleInvalid as invalid:
        return replace(before, verdict=Verdict("Ready", "False", invalid.reason, str(invalid)), stalled=True)
    except PlanImpossible as impossible:
        verdict = Verdict("Ready", "False", impossible.reason, str(impossible))
        return replace(before, verdict=verdict, stalled=True)
    except NameTaken as taken:
        verdict = Verdict("Ready", "False", "NameTaken", str(taken))
        return replace(before, verdict=verdict, again_seconds=30.0)
    except Refused as error:
        return replace(
            before, verdict=refused(error), stalled=error.mended_by_spec, again_seconds=CLAIMS_AGAIN_SECONDS
        )


async def _look_at_parts(found: Object, timed: Looked, around: Surroundings) -> Looked:
    applied, obstacle = await apply_to(found, around)
    if applied is None:
        return replace(timed, verdict=obstacle or timed.verdict, again_seconds=10.0)
    await apply_owned(found, cron_job(applied, timed.schedule or ""), around.gateway)
    await apply_cleanup(applied, around)
    await apply_verification(applied, around)
    await apply_drill(applied, around)
    looked = replace(timed, identity=applied.identity, copies=applied.copies)
    if applied.unplaceable:  # its CronJob is suspended
        looked = replace(looked, next_schedule=None)
    if obstacle is not None:
        return replace(looked, verdict=obstacle, again_seconds=5.0)
    await _end_stranded(applied, around)
    return await _probe(applied, looked, around)


async def _end_stranded(applied: Applied, around: Surroundings) -> None:
    """End the runs that wait for a node that their claims have left, so that the next ones may start."""
    nodes = applied.placement.nodes
    if not nodes:
        return
    labels = {names.LABEL_OWNER_UID: applied.policy["metadata"]["uid"], names.LABEL_VERB: "backup"}
    pods = await around.gateway.list("Pod", applied.namespace, labels)
    for name in stranded(pods, nodes, around.now()):
        await around.gateway.patch("Job", applied.namespace, name, {"spec": {"activeDeadlineSeconds": 1}})


async def _probe(applied: Applied, looked: Looked, around: Surroundings) -> Looked:
    """Repeat what the last probe said, or have another one."""
    mark = fingerprint(probe_job(applied, 0).request)
    number, wait = next_probe(looked.probe, mark, around.now())
    longest = CLAIMS_AGAIN_SECONDS if applied.sources()[1].claims else AGAIN_SECONDS
    verdict = known(looked.probe, mark, "a Job finds out whether the sources can be read")
    if wait > 0:
        return replace(looked, verdict=verdict, again_seconds=min(wait, longest))
    plan = probe_job(applied, number)
    outcome = await look(around.gateway, applied.policy, plan.name, plan.request.nonce)
    if outcome.state == "Ended":
        probe = recorded(looked.probe, number, mark, outcome, around.now())
        _, wait = next_probe(probe, mark, around.now())
        again = min(wait, longest)
        return replace(
            looked, verdict=verdict_of(outcome), probe=probe, discard=plan.name, again_seconds=again
        )
    if outcome.state == "Missing":
        await around.gateway.create(job(plan))
    return replace(looked, verdict=verdict, again_seconds=10.0)


async def _runs_of(found: Object, scheduled: Object | None, around: Surroundings) -> list[Object]:
    """Name the Jobs whose controller is our CronJob; their specs, a request in each, are not kept in memory."""
    if scheduled is None:
        return []
    meta, uid = found["metadata"], scheduled["metadata"]["uid"]
    labels = {names.LABEL_OWNER_UID: meta["uid"], names.LABEL_VERB: "backup"}
    return [
        {"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata": each["metadata"]}
        async for each in around.gateway.iterate("Job", meta["namespace"], labels=labels)
        if controlled_by(each, uid)
    ]


async def _count(key: Key, jobs: list[Object], around: Surroundings) -> Tally:
    """Count the policy's Backups, one page of them in memory at a time."""
    tally = Tally(jobs, around.now() + CLOCK_TOLERANCE)
    fields = {"spec.policyRef.name": key.name}
    async for each in around.gateway.iterate("Backup", key.namespace, fields=fields):
        tally.add(each)
    return tally


async def _show_runs(
    found: Object, jobs: list[Object], phases: Mapping[str, str], around: Surroundings
) -> bool:
    """Create the Backup of each Job that the CronJob started, also of those that it started while we were away.

    A Backup may have been forgotten after its Job was listed: the Job says so by now, for it is marked first.
    """
    new = [each for each in jobs if each["metadata"]["uid"] not in phases and not forgotten_phase(each)]
    for each in new:
        meta = each["metadata"]
        now = await around.gateway.get("Job", meta["namespace"], meta["name"])
        if now is not None and now["metadata"]["uid"] == meta["uid"] and not forgotten_phase(now):
            await _show(found, each, around)
    return bool(new)


async def _show(found: Object, run: Object, around: Surroundings) -> None:
    """Create the Backup of one Job. Another run may have its plain name, and a list may be of before it was made."""
    wanted = scheduled_backup(found, run, cron_job_name(found))
    if await around.gateway.create(wanted) is not None:
        return
    there = await around.gateway.get("Backup", wanted["metadata"]["namespace"], wanted["metadata"]["name"])
    if there is not None and (there["spec"].get("job") or {}).get("uid") != run["metadata"]["uid"]:
        await around.gateway.create(scheduled_backup(found, run, cron_job_name(found), distinct=True))


def surplus(found: Object, jobs: list[Object], phases: Mapping[str, str]) -> list[Object]:
    """Give the Jobs beyond the policy's limits."""
    spec = BackupPolicySpec.model_validate(found["spec"])
    good, bad = spec.successful_jobs_history_limit, spec.failed_jobs_history_limit
    return surplus_jobs(jobs, phases, good=good, bad=bad)


async def _tidy(found: Object, looked: Looked, jobs: list[Object], around: Surroundings) -> None:
    """Delete the Jobs whose outcome is recorded and that are not kept for their logs."""
    for each in jobs:
        await around.gateway.delete(each)
    if looked.discard is not None:
        ended = await around.gateway.get("Job", found["metadata"]["namespace"], looked.discard)
        if ended is not None:
            await around.gateway.delete(ended)


@dataclass(frozen=True)
class _State:
    """What is shown besides Ready."""

    runs: Runs
    paused: Verdict | None
    scheduled: Object | None
    slots: Slots
    kept: Kept
    read: Read
    drills: Drills
    aimed: Aimed

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Give the conditions."""
        verified = self.read.verdict(self.runs.damaged)
        proven = (self.kept.verdict, verified, self.drills.verdict, self.aimed.verdict)
        told = (self.runs.verdict, *proven, self.paused)
        return tuple(each for each in told if each)


async def _write(found: Object, looked: Looked, state: _State, around: Surroundings) -> bool:
    """Write the status, and say whether it is as it should be."""
    before = (found.get("status") or {}).get("conditions") or ()
    generation = found["metadata"]["generation"]
    verdicts = [
        *ready(looked.verdict, stalled=looked.stalled),
        *((looked.copies,) if looked.copies else ()),
        *state.verdicts,
    ]
    cron_status = (state.scheduled or {}).get("status") or {}
    document: Object = {
        "observedGeneration": generation,
        "conditions": merge_conditions(before, verdicts, generation=generation, now=around.now()),
        "schedule": looked.schedule,
        "probe": _document(looked.probe),
        "identity": _document(looked.identity),
        "lastScheduleTime": cron_status.get("lastScheduleTime"),
        "nextScheduleTime": format_time(looked.next_schedule) if looked.next_schedule else None,
        "lastSuccessfulTime": state.runs.last_successful,
        "slots": _document(state.slots.counted),
        "missedRuns": state.slots.missed,
        "notification": _document(state.slots.notification),
        "consecutiveFailures": state.runs.failures,
        "lastFailedTime": state.runs.last_failed,
        "backupCount": state.runs.succeeded,
        "sizeBytes": state.runs.size_bytes,
        "lastCleanup": _document(state.kept.last),
        "objectives": _document(state.aimed.status),
        "lastDrill": _document(state.drills.last),
        "drills": _document(state.drills.status) or None,
        "lastVerification": _document(state.read.last),
        "lastVerifiedTime": format_time(time) if (time := state.read.last_verified_time) else None,
    }
    document = {name: value for name, value in document.items() if value is not None}
    if document == found.get("status"):
        return True
    told = news(before, verdicts, "Ready", "RetentionApplied", "BackupsVerified", "Drilled", "ObjectivesMet")
    return await write_status(around.gateway, found, document, news=told, now=around.now())


def _document(part: ApiModel | None) -> Object | None:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True) if part is not None else None
