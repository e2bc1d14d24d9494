"""What stands in the way of letting the Job of a restore go. Reads only.

No backup may capture a half-restored target, wherever the operator is killed. That is kept by the data plane: a
restore takes a lock in the place of every policy that reads the target before it touches anything, and a backup reads that
lock before its sources and once more before it commits. Where it is held, or is not as it was, the backup is Skipped; so
it is when the restore began and ended in between.

Waiting for backups that run is for their sake: they are good still. Those whose Job is older than the restore's own,
which lies suspended, are waited for; both times are the API server's. A run that begins later is not, or a policy that runs
every minute would hold a restore up for ever: it succeeds if it ends before the restore begins, and is Skipped if not. Nor
is a run waited for whose pod does not run: it finds the lock. No backup waits for a restore, so nothing waits in a circle.

The locks are those of the policies that there were when the Job was created. Where a policy reads the target only since then, the
Job is not let go: another plan is made.
"""

from __future__ import annotations

from typing import Any

from avalanche_contract import names
from avalanche_operator.applying.build import cron_job_name
from avalanche_operator.backups.build import scheduled_backup
from avalanche_operator.jobs.observe import is_finished
from avalanche_operator.jobs.run import look_at
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.restores.build import Prepared

Object = dict[str, Any]


async def running_backup(prepared: Prepared, held: Object, gateway: Gateway) -> str | None:
    """Give the Backup that reads the target and ran already when ``held``, the restore's Job, was created."""
    namespace, since = held["metadata"]["namespace"], held["metadata"]["creationTimestamp"]
    for job in await gateway.list("Job", namespace, {names.LABEL_VERB: "backup"}):
        if is_finished(job) or job["spec"].get("suspend") or job["metadata"]["creationTimestamp"] > since:
            continue
        name = await _backup_of(job, prepared.readers, gateway)
        if name is not None and (await look_at(gateway, job, "")).state == "Running":
            return f"Backup {name} reads the target: waiting for its end; delete Job {job['metadata']['name']} to go on at once"
    return None


async def _backup_of(job: Object, readers: tuple[Object, ...], gateway: Gateway) -> str | None:
    """Name the Backup that a Job makes, where its policy is one of these."""
    meta = job["metadata"]
    kind, owner_uid = (meta["labels"].get(each) for each in (names.LABEL_OWNER_KIND, names.LABEL_OWNER_UID))
    if kind == "BackupPolicy":
        policy = next((each for each in readers if each["metadata"]["uid"] == owner_uid), None)
        if policy is None:
            return None
        return str(scheduled_backup(policy, job, cron_job_name(policy))["metadata"]["name"])
    name = (meta.get("annotations") or {}).get(names.ANNOTATION_OWNER, "")
    backup = await gateway.get("Backup", meta["namespace"], name)
    if backup is None or backup["metadata"]["uid"] != owner_uid:
        return None
    known = {each["metadata"]["name"] for each in readers}
    return name if backup["spec"]["policyRef"]["name"] in known else None
