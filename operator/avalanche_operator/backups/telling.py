"""What is still to be told of a Backup that ended: decided by the write that ends it, then done once by a Job."""

from __future__ import annotations

from typing import Any

from avalanche_contract.base import format_time
from avalanche_contract.notification import Told
from avalanche_operator.api.backup import BackupSpec, BackupStatus
from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.backups.decide import is_at_home
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.decide import Past, event_of, order_of, wanted
from avalanche_operator.notifications.run import advance
from avalanche_operator.settings import Surroundings

Object = dict[str, Any]


async def owed(
    found: Object, after: BackupStatus, told: Told | None, around: Surroundings
) -> NotificationStatus | None:
    """Say who still has to be told how a run ended, once its own pod told whom it could."""
    namespace, policy_name = found["metadata"]["namespace"], found["spec"]["policyRef"]["name"]
    policy = await around.gateway.get("BackupPolicy", namespace, policy_name)
    channels = BackupPolicySpec.model_validate(policy["spec"]).notifications if policy else ()
    if not channels:
        return None
    after_start = format_time(after.start_time) if after.start_time else None
    past = Past(order_of({**found, "status": {"startTime": after_start}}))
    fields = {"spec.policyRef.name": policy_name}
    async for each in around.gateway.iterate("Backup", namespace, fields=fields):
        if is_at_home(each):
            past.add(each)
    event = event_of(after.phase, failing=past.failing)
    if event == "Failed" and told is None and past.told_lately(after.failure_reason, around.now()):
        return None
    return wanted(channels, event, told) if event is not None else None


async def tell(found: Object, status: BackupStatus, around: Surroundings) -> NotificationStatus | None:
    """Go on telling what is pending."""
    pending = status.notification
    if pending is None or pending.state != "Pending":
        return pending
    spec = BackupSpec.model_validate(found["spec"])
    policy = await around.gateway.get("BackupPolicy", found["metadata"]["namespace"], spec.policy_ref.name)
    if policy is None:
        gone = {"state": "NotSent", "channels": (), "message": "the policy that says how is gone"}
        return pending.model_copy(update=gone)
    telling = Telling(
        owner=found,
        policy=policy,
        pending=pending,
        reason=status.failure_reason or status.phase or "",
        message=status.message or "",
        time=status.completion_time or around.now(),
        run_identity=status.run_identity or spec.run_identity or "",
    )
    return await advance(telling, around)
