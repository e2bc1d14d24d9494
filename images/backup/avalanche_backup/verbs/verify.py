"""Read one backup whole and compare it with its metadata. The verdict is written beside it.

An encrypted backup is decoded where the identity is given; where it is not, size and SHA-256 of the stored bytes are
compared, and the answer says that this is all.
"""

from __future__ import annotations

from avalanche_backup import catalog
from avalanche_backup.catalog import Found
from avalanche_backup.errors import StorageInvalid, VerificationFailed
from avalanche_backup.metadata import BackupMetadata, combined_checksum, recipients_of
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.artifacts import Reader, read_whole
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import identities_for, named
from avalanche_contract.request import VerifyRequest
from avalanche_contract.result import Result


def run(request: VerifyRequest, context: Context) -> Result:
    """Verify one backup.

    :raises VerificationFailed: it is damaged; the verdict was written beside it.
    :raises IdentityMissing: the identity that was given is missing or does not fit; nothing was read or written.
    """
    place = request.backup.place
    store = open_store(place.storage)
    found = catalog.find(store, place.prefix, request.backup.backup_id)
    reader = Reader(store, found, identities_for(found, request.backup.identity, needed=False))
    try:
        verify(reader, context)
    except VerificationFailed as failure:
        _write(store, found, context, status="VerificationFailed", message=failure.message)
        raise
    metadata = found.metadata
    decoded = all(reader.decodes(each) for each in metadata.artifacts)
    told = "" if decoded else f"not decoded: {_sealed(metadata)}, and no identity was given"
    _write(store, found, context, status="Verified", message=told)
    return Result(
        nonce=request.nonce,
        verb="verify",
        verdict="Succeeded",
        reason="Verified" if decoded else "NotDecoded",
        message=f"{metadata.backup_id}: every stored byte is what was written"
        + (f"; {told}" if told else ""),
        backup_id=metadata.backup_id,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
        verified_time=context.now(),
    )


def verify(reader: Reader, context: Context, phase: str = "Verifying") -> None:
    """Read every artifact to its end.

    :raises VerificationFailed: something is missing, damaged or incomplete.
    """
    metadata = reader.found.metadata
    if not any(each.role == "data" for each in metadata.artifacts):
        raise VerificationFailed(f"{metadata.backup_id} names no artifact", reason="MetadataInvalid")
    if combined_checksum(metadata.artifacts) != metadata.checksum:
        raise VerificationFailed(
            f"{metadata.backup_id}: the checksum is not that of its artifacts", reason="MetadataInvalid"
        )
    total = sum(each.source_bytes for each in metadata.artifacts)
    done = 0
    for artifact in metadata.artifacts:
        for length in read_whole(reader, artifact):
            done += length
            context.report.progress(phase, artifact.source, done, total)


def _sealed(metadata: BackupMetadata) -> str:
    return f"it is encrypted for {named(recipients_of(metadata.artifacts))}"


def _write(store: Store, found: Found, context: Context, *, status: str, message: str) -> None:
    try:
        catalog.write_verification(
            store, found.prefix, found.metadata.backup_id, status=status, message=message, now=context.now()
        )
    except StorageInvalid:
        return  # a storage that is read-only: the verdict is told all the same
