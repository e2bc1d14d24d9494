"""The CronJobs of a policy: applied where the name is free or ours, removed where they are ours."""

from __future__ import annotations

from typing import Any

from avalanche_operator.jobs.observe import controlled_by
from avalanche_operator.jobs.run import NameTaken
from avalanche_operator.kube.gateway import Gateway

Object = dict[str, Any]


async def apply_owned(policy: Object, wanted: Object, gateway: Gateway) -> None:
    """Make a CronJob as it should be; what others changed in it is set back.

    :raises NameTaken: there is one of its name that is not the policy's.
    """
    meta = wanted["metadata"]
    there = await gateway.get("CronJob", meta["namespace"], meta["name"])
    if there is not None and not controlled_by(there, policy["metadata"]["uid"]):
        raise NameTaken(f"CronJob {meta['name']} exists and is not ours: delete or rename it")
    made = await gateway.apply(wanted)
    if there is not None:  # applying leaves what others added: a ttlSecondsAfterFinished, another container
        await gateway.replace_spec(made, wanted["spec"])


async def remove_owned(policy: Object, name: str, gateway: Gateway) -> None:
    """Delete a CronJob that the policy no longer wants, with its Jobs."""
    there = await gateway.get("CronJob", policy["metadata"]["namespace"], name)
    if there is not None and controlled_by(there, policy["metadata"]["uid"]):
        await gateway.delete(there)
