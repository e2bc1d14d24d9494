"""What is still to be told of a Backup that ended: decided by the write that ends it, then done once by a Job."""

from __future__ import annotations

from typing import Any

from avalanche_contract.notification import Told
from avalanche_operator.api.backup import BackupSpec, BackupStatus
from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.notifications.build import Telling
from avalanche_operator.notifications.decide import event_of, failing_before, told_lately, wanted
from avalanche_operator.notifications.run import advance
from avalanche_operator.policies.decide import backups_of, earlier_than
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
    own = backups_of(await around.gateway.list("Backup", namespace), policy_name)
    earlier = earlier_than(own, found)
    event = event_of(after.phase, failing=failing_before(earlier))
    if event == "Failed" and told is None and told_lately(earlier, after.failure_reason, around.now()):
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
