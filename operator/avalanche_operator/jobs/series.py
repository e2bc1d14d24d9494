"""The Jobs of a CronJob one after the other: those that ended and were not recorded yet, and all that their pods said."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract import names
from avalanche_contract.log import Answer
from avalanche_operator.jobs.observe import Outcome, controlled_by, ended_time
from avalanche_operator.jobs.run import look_at, pods_of, read_answer
from avalanche_operator.kube.gateway import Gateway

Object = dict[str, Any]
Recorded = tuple[datetime, str]
"""When the last recorded Job ended, and its name."""


@dataclass(frozen=True)
class Series:
    """The Jobs that one CronJob of an owner starts: their verb, and the nonce of what they say."""

    owner: Object
    cron_job: str
    verb: str
    nonce: str


async def ended(
    gateway: Gateway, series: Series, last: Recorded | None
) -> AsyncIterator[tuple[Object, Outcome, Answer]]:
    """Give each Job that ended and was not recorded yet, the first one first, with all that its pods said."""
    meta = series.owner["metadata"]
    cron_job = await gateway.get("CronJob", meta["namespace"], series.cron_job)
    labels = {names.LABEL_OWNER_UID: meta["uid"], names.LABEL_VERB: series.verb}
    jobs = await gateway.list("Job", meta["namespace"], labels)
    for each in unrecorded(jobs, cron_job, last):
        yield each, *await hear(gateway, each, series.nonce)


def unrecorded(jobs: Iterable[Object], cron_job: Object | None, last: Recorded | None) -> list[Object]:
    """Give the Jobs of the CronJob that ended and were not recorded yet, the first one first. Pure."""
    if cron_job is None:
        return []
    uid = cron_job["metadata"]["uid"]
    found = [
        (ended, each["metadata"]["name"], each)
        for each in jobs
        if controlled_by(each, uid) and (ended := ended_time(each)) is not None
    ]
    return [
        each
        for ended, name, each in sorted(found, key=lambda one: one[:2])
        if last is None or (ended, name) > last
    ]


async def hear(gateway: Gateway, job: Object, nonce: str) -> tuple[Outcome, Answer]:
    """Hear all pods of a Job: what the first one did before it failed, no later one can tell.

    ``complete`` is what the pod says whose result counts.
    """
    outcome, answer = await look_at(gateway, job, nonce), Answer()
    for pod in await pods_of(gateway, job):
        name = pod["metadata"]["name"]
        more = await read_answer(gateway, job["metadata"]["namespace"], name, nonce)
        answer = Answer(
            decisions=answer.decisions + more.decisions,
            checked=answer.checked + more.checked,
            listed=answer.listed + more.listed,
            drilled=more.drilled or answer.drilled,
            complete=more.complete if name == outcome.pod else answer.complete,
        )
    return outcome, answer
