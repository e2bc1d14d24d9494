"""Letting go of Jobs that worked for an object, also when the object is gone. The one place that does."""

from __future__ import annotations

from avalanche_contract import names
from avalanche_operator.jobs.observe import is_finished
from avalanche_operator.kube.gateway import Gateway
from avalanche_operator.kube.queue import Key


async def let_go(gateway: Gateway, owner: Key, *, verb: str, kept_seconds: int) -> None:
    """Let Jobs that ended go some time later, for who wants to read their logs; one that is suspended goes at once.

    A Job that runs is left alone: it ends by itself, and its end is another look.
    """
    labels = {names.LABEL_OWNER_KIND: owner.kind, names.LABEL_VERB: verb}
    for job in await gateway.list("Job", owner.namespace, labels):
        meta, spec = job["metadata"], job["spec"]
        if (meta.get("annotations") or {}).get(names.ANNOTATION_OWNER) != owner.name:
            continue
        if is_finished(job):
            if "ttlSecondsAfterFinished" not in spec:
                change = {"spec": {"ttlSecondsAfterFinished": kept_seconds}}
                await gateway.patch("Job", owner.namespace, meta["name"], change)
        elif spec.get("suspend"):
            await gateway.delete(job)
