"""From a request to the verb that carries it out. Only that verb is loaded: the start of a run is waited for each time."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

from avalanche_backup.verbs.context import Context
from avalanche_contract import request as asked
from avalanche_contract.result import Result


def run(request: asked.Request, context: Context) -> Result:  # noqa: PLR0911 - one way out for each verb
    """Carry a request out.

    :raises Failure: it could not be; the reason, the message and the exit code are in it.
    """
    match request:
        case asked.BackupRequest():
            from avalanche_backup.verbs import telling

            return telling.back_up(request, context)
        case asked.VerifyRequest():
            from avalanche_backup.verbs import telling

            return telling.check(request, context)
        case asked.CopyRequest():
            from avalanche_backup.verbs import copy

            return copy.run(request, context)
        case asked.RestoreRequest():
            from avalanche_backup.verbs import restore

            return restore.run(request, context)
        case asked.UndoRequest():
            from avalanche_backup.verbs import undo

            return undo.run(request, context)
        case asked.ProbeRequest():
            from avalanche_backup.verbs import probe

            return probe.run(request, context)
        case asked.CatalogRequest():
            from avalanche_backup.verbs import catalog

            return catalog.run(request, context)
        case asked.NotifyRequest():
            from avalanche_backup.verbs import notify

            return notify.run(request, context)
        case asked.CleanupRequest():
            from avalanche_backup.verbs import cleanup

            return cleanup.run(request, context)
        case asked.HoldRequest():
            from avalanche_backup.verbs import hold

            return hold.run(request, context)
        case asked.DeleteRequest():
            from avalanche_backup.verbs import delete

            return delete.run(request, context)
        case asked.DrillRequest():
            from avalanche_backup.verbs import drill

            return drill.run(request, context)
