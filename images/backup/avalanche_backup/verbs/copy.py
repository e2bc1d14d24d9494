"""Carry a copy request out: from the first place that has a good copy."""

from __future__ import annotations

from collections.abc import Sequence

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.errors import BackupMissing, Failure, StorageUnavailable, VerificationFailed
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.verbs import copying
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import open_destination
from avalanche_contract.request import CopyRequest
from avalanche_contract.result import Result


def run(request: CopyRequest, context: Context) -> Result:
    """Copy one backup; one that is there already is left as it is.

    :raises BackupMissing: no place has it.
    :raises VerificationFailed: no place has a good copy; nothing was committed.
    :raises Failure: the target cannot be written to, or has another backup with this ID.
    """
    target = open_destination(request.target)
    if target.failure is not None:
        raise target.failure
    sources = [open_destination(each) for each in request.sources]
    used, made = _from_any(sources, target, request.backup_id, context)
    found = catalog.find(target.store, target.prefix, request.backup_id)
    context.report.entry(catalog.entry(target.store, found))
    return _result(request, found, used, target, made=made)


def _from_any(
    sources: Sequence[Destination], target: Destination, backup_id: str, context: Context
) -> tuple[Destination, bool]:
    """Try one source after the other; give the one that did, and whether there was anything to do."""
    first: Failure | None = None
    for each in sources:
        try:
            if each.failure is not None:
                raise each.failure
            return each, copying.copy(each, target, backup_id, context.copied)
        except (BackupMissing, VerificationFailed, StorageUnavailable) as failure:
            if first is None or isinstance(first, BackupMissing):
                first = failure
    raise first or BackupMissing(f"there is no backup {backup_id}")


def _result(
    request: CopyRequest, found: Found, used: Destination, target: Destination, *, made: bool
) -> Result:
    metadata = found.metadata
    told = (
        f"copied from {used.store.name} to {target.store.name}"
        if made
        else f"is in {target.store.name} already"
    )
    return Result(
        nonce=request.nonce,
        verb="copy",
        verdict="Succeeded",
        reason="Copied" if made else "AlreadyThere",
        message=f"{metadata.backup_id} {'was ' if made else ''}{told}",
        backup_id=metadata.backup_id,
        run_identity=metadata.run.identity,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
    )
