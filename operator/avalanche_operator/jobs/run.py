"""Reading one Job of ours and its pods, and what they logged. Reads only."""

from __future__ import annotations

from typing import Any

from avalanche_contract import log, names
from avalanche_operator.jobs.observe import Outcome, controlled_by, observe
from avalanche_operator.kube.gateway import Gateway

Object = dict[str, Any]
TAIL_LINES = 200


class NameTaken(Exception):
    """An object that is not ours has a name that we need."""


async def look(gateway: Gateway, owner: Object, name: str, nonce: str, *, owned: bool = True) -> Outcome:
    """Say where a Job of an owner stands.

    :raises NameTaken: there is a Job of this name that is not the owner's.
    """
    namespace, uid = owner["metadata"]["namespace"], owner["metadata"]["uid"]
    found = await gateway.get("Job", namespace, name)
    if found is None:
        return Outcome("Missing")
    own = controlled_by(found, uid) if owned else _label(found, names.LABEL_OWNER_UID) == uid
    if not own:
        raise NameTaken(f"Job {name} exists and is not ours: delete or rename it")
    return await look_at(gateway, found, nonce)


async def look_at(gateway: Gateway, job: Object, nonce: str) -> Outcome:
    """Say where a Job stands."""
    return observe(job, await pods_of(gateway, job), nonce)


async def pods_of(gateway: Gateway, job: Object) -> list[Object]:
    """Give the pods that are the Job's, the first one first."""
    meta = job["metadata"]
    found = await gateway.list("Pod", meta["namespace"], {"batch.kubernetes.io/job-name": meta["name"]})
    own = (pod for pod in found if controlled_by(pod, meta["uid"]))
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))


async def read_answer(
    gateway: Gateway, namespace: str, pod: str, nonce: str, *, whole: bool = True
) -> log.Answer:
    """Read our lines out of a pod's log; only its end where the progress will do."""
    text = await gateway.logs(namespace, pod, tail_lines=None if whole else TAIL_LINES)
    return log.read_log(text.splitlines(), nonce)


def _label(found: Object, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))
