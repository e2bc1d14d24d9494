"""From a request to the verb that carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from avalanche_backup.verbs import (
    catalog,
    cleanup,
    copy,
    delete,
    drill,
    hold,
    notify,
    probe,
    restore,
    telling,
    undo,
)
from avalanche_backup.verbs.context import Context
from avalanche_contract.request import (
    BackupRequest,
    CatalogRequest,
    CleanupRequest,
    CopyRequest,
    DeleteRequest,
    DrillRequest,
    HoldRequest,
    NotifyRequest,
    ProbeRequest,
    Request,
    RestoreRequest,
    UndoRequest,
    VerifyRequest,
)
from avalanche_contract.result import Result

VERBS: Mapping[type[Any], Callable[[Any, Context], Result]] = {
    BackupRequest: telling.back_up,
    VerifyRequest: telling.check,
    CopyRequest: copy.run,
    RestoreRequest: restore.run,
    UndoRequest: undo.run,
    ProbeRequest: probe.run,
    CatalogRequest: catalog.run,
    NotifyRequest: notify.run,
    CleanupRequest: cleanup.run,
    HoldRequest: hold.run,
    DeleteRequest: delete.run,
    DrillRequest: drill.run,
}


def run(request: Request, context: Context) -> Result:
    """Carry a request out.

    :raises Failure: it could not be; the reason, the message and the exit code are in it.
    """
    return VERBS[type(request)](request, context)
