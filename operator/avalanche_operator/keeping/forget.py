"""Deleting a Backup object that the operator made, so that it does not come back from its Job."""

from __future__ import annotations

from typing import Any

from avalanche_contract.names import ANNOTATION_FORGOTTEN
from avalanche_operator.kube.gateway import Gateway

Object = dict[str, Any]


async def forget(backup: Object, gateway: Gateway) -> None:
    """Mark the Job, then delete the Backup: killed between, the next look does the rest. No data is deleted."""
    reference, namespace = backup["spec"].get("job"), backup["metadata"]["namespace"]
    there = await gateway.get("Job", namespace, reference["name"]) if reference else None
    if there is not None and there["metadata"]["uid"] == reference["uid"]:
        phase = str((backup.get("status") or {}).get("phase") or "Failed")
        change = {"metadata": {"annotations": {ANNOTATION_FORGOTTEN: phase}}}
        await gateway.patch("Job", namespace, reference["name"], change)
    await gateway.delete(backup)
