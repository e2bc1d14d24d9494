"""Tell what only the control plane saw. It holds no password: this pod does."""

from __future__ import annotations

from avalanche_backup.errors import NotificationFailed
from avalanche_backup.notifications.message import Occurrence
from avalanche_backup.notifications.send import tell
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.telling import where
from avalanche_contract.request import NotifyRequest
from avalanche_contract.result import Result

TRIES = 3


def run(request: NotifyRequest, context: Context) -> Result:
    """Tell everybody who wants to know, each at most once.

    :raises NotificationFailed: somebody could not be told, after three tries.
    """
    happened = Occurrence(
        event=request.event,
        subject=f"{request.backup_type} backup",
        where=where(request.writer),
        reason=request.reason,
        message=request.message,
        time=request.time,
        backup_id=request.backup,
        run_identity=request.run_identity,
    )
    told = tell(request.notifications, happened, tries=TRIES)
    if told is not None:
        context.report.told(told)
        if told.failed:
            raise NotificationFailed("; ".join(f"{name}: {why}" for name, why in told.failed.items()))
    sent = told.sent if told else ()
    return Result(
        nonce=request.nonce,
        verb="notify",
        verdict="Succeeded",
        reason="Notified" if sent else "NobodyAsked",
        message=f"told: {', '.join(sent)}" if sent else "nobody wants to know of this",
    )
