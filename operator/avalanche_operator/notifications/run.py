"""Starting the Job that tells, and reading what it came to: found again by its name, so that it runs once."""

from __future__ import annotations

from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.jobs.build import job, nonce_of
from avalanche_operator.jobs.run import look
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.notifications.build import Telling, notify_job
from avalanche_operator.notifications.decide import settled
from avalanche_operator.settings import Surroundings

KEPT_SECONDS = 600


async def advance(telling: Telling, around: Surroundings) -> NotificationStatus:
    """Start the Job where there is none, and give what is known: ``Pending`` until it ended."""
    nonce = nonce_of(telling.owner["metadata"]["uid"], around.settings.cluster_uid)
    outcome = await look(around.gateway, telling.owner, telling.job_name, nonce)
    if outcome.state == "Missing":
        await around.gateway.create(job(notify_job(telling, around.settings)))
    if outcome.state != "Ended":
        return telling.pending
    return settled(telling.pending, outcome, telling.job_name)


async def let_go(namespace: str, recorded: NotificationStatus | None, gateway: Gateway) -> None:
    """Let the Job go some time after what it came to was recorded."""
    if recorded is None or recorded.job is None or recorded.state == "Pending":
        return
    there = await gateway.get("Job", namespace, recorded.job)
    if there is not None and "ttlSecondsAfterFinished" not in there["spec"]:
        change = {"spec": {"ttlSecondsAfterFinished": KEPT_SECONDS}}
        await gateway.patch("Job", namespace, recorded.job, change)
