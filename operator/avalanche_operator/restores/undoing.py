"""Which RestoreRequest another one may take back. Pure."""

from __future__ import annotations

from typing import Any

from avalanche_operator.api.restore import TERMINAL, PinnedBackup, RestoreRequestSpec, RestoreRequestStatus
from avalanche_operator.restores.targets import NotYet, RestoreImpossible

Object = dict[str, Any]


def backup_of_undone(name: str, undone: Object | None) -> PinnedBackup:
    """Give the backup whose restore is taken back.

    One that failed may have been killed while it switched: what it left is looked for at the target.

    :raises RestoreImpossible: the request is gone, is an undo itself, or kept nothing. :raises NotYet: it is under way.
    """
    if undone is None:
        raise RestoreImpossible(
            "RestoreNotFound",
            f"RestoreRequest {name} does not exist: what it kept is taken back by hand, see docs/restore.md",
        )
    spec = RestoreRequestSpec.model_validate(undone["spec"])
    status = RestoreRequestStatus.model_validate(undone.get("status") or {})
    if spec.undo is not None or (status.phase == "Succeeded" and not spec.keep_previous):
        raise RestoreImpossible(
            "NothingKept",
            f"RestoreRequest {name} kept nothing: only a restore with keepPrevious can be undone",
        )
    if status.phase not in TERMINAL:
        raise NotYet(f"RestoreRequest {name} has not ended")
    if status.backup is None:
        raise RestoreImpossible("NothingKept", f"RestoreRequest {name} chose no backup, and restored nothing")
    return status.backup
