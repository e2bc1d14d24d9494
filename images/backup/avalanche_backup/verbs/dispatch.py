"""From a request to the verb that carries it out."""

from __future__ import annotations

from avalanche_backup.verbs import catalog, notify, probe, restore, telling
from avalanche_backup.verbs.context import Context
from avalanche_contract.request import (
    BackupRequest,
    CatalogRequest,
    NotifyRequest,
    ProbeRequest,
    Request,
    RestoreRequest,
    VerifyRequest,
)
from avalanche_contract.result import Result


def run(request: Request, context: Context) -> Result:
    """Carry a request out.

    :raises Failure: it could not be; the reason, the message and the exit code are in it.
    """
    match request:
        case BackupRequest():
            return telling.back_up(request, context)
        case VerifyRequest():
            return telling.check(request, context)
        case RestoreRequest():
            return restore.run(request, context)
        case ProbeRequest():
            return probe.run(request, context)
        case CatalogRequest():
            return catalog.run(request, context)
        case NotifyRequest():
            return notify.run(request, context)
