"""Read every copy of one backup whole and compare it with its metadata. The verdict is written beside each.

An encrypted backup is decoded where the identity is given; where it is not, size and SHA-256 of the stored bytes are
compared, and the answer says that this is all. A copy that is missing or damaged is made anew from a good one where the
request says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from avalanche_backup import catalog, layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import (
    BackupMissing,
    Failure,
    IdentityMissing,
    StorageInvalid,
    VerificationFailed,
)
from avalanche_backup.metadata import BackupMetadata, combined_checksum, recipients_of
from avalanche_backup.pipeline.encryption import Identity
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.verbs import copying
from avalanche_backup.verbs.artifacts import Reader, read_whole
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import differs, open_destination
from avalanche_backup.verbs.keys import identities_for, named
from avalanche_contract.request import VerifyRequest
from avalanche_contract.result import Copy, Result


@dataclass(frozen=True)
class Seen:
    """One place, and what was found there: a good copy has no ``failure``."""

    place: Destination
    found: Found | None
    failure: Failure | None = None
    healed: bool = False

    @property
    def damaged(self) -> bool:
        """Say whether something is there, and wrong."""
        return isinstance(self.failure, VerificationFailed)

    @property
    def absent(self) -> bool:
        """Say whether nothing is there."""
        return isinstance(self.failure, BackupMissing)


def run(request: VerifyRequest, context: Context) -> Result:
    """Verify one backup wherever it should lie; it is good where one copy is.

    :raises VerificationFailed: no copy is good; the verdict was written beside each.
    :raises BackupMissing: it is in none of the places.
    :raises IdentityMissing: the identity that was given is missing or does not fit; nothing was read or written.
    """
    backup_id = request.backup.backup_id
    places = [open_destination(each) for each in (request.backup.place, *request.others)]
    looked = [_look(each, backup_id) for each in places]
    found = next((each.found for each in looked if each.found is not None), None)
    identities = identities_for(found, request.backup.identity, needed=False) if found else ()
    seen = [_verify(each, identities, context) for each in looked]
    seen = _same_only(seen, backup_id)
    good = next((each for each in seen if each.failure is None), None)
    if good is None or good.found is None:
        _record(seen, context, "")
        raise _worst(seen)
    if request.heal:
        seen = [_healed(each, good, context) for each in seen]
    metadata = good.found.metadata
    reader = Reader(good.place.store, good.found, identities)
    decoded = all(reader.decodes(each) for each in metadata.artifacts)
    told = "" if decoded else f"not decoded: {_sealed(metadata)}, and no identity was given"
    _record(seen, context, told)
    return _result(request, context, seen, good.found, told)


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


def _look(place: Destination, backup_id: str) -> Seen:
    if place.failure is not None:
        return Seen(place, None, place.failure)
    try:
        return Seen(place, catalog.find(place.store, place.prefix, backup_id))
    except BackupMissing as missing:
        if missing.reason == "MetadataInvalid":
            return Seen(place, None, VerificationFailed(missing.message, reason=missing.reason))
        return Seen(place, None, missing)
    except Failure as failure:
        return Seen(place, None, failure)


def _verify(seen: Seen, identities: Sequence[Identity], context: Context) -> Seen:
    if seen.found is None:
        return seen
    try:
        verify(Reader(seen.place.store, seen.found, identities), context)
    except Failure as failure:
        return replace(seen, failure=failure)
    return seen


def _same_only(seen: Sequence[Seen], backup_id: str) -> list[Seen]:
    """Take good copies of other bytes than the first good one for what they are: another backup with this ID."""
    first = next((each.found for each in seen if each.found is not None and each.failure is None), None)
    return [
        replace(each, failure=differs(each.place, backup_id))
        if first is not None and each.found is not None and each.failure is None
        and not copying.same_backup(each.found, first)
        else each
        for each in seen
    ]  # fmt: skip


def _healed(seen: Seen, good: Seen, context: Context) -> Seen:
    """Make a copy anew that is missing or damaged; what stands in the way of that is told with it."""
    if not (seen.damaged or seen.absent) or seen.failure is None or good.found is None:
        return seen
    backup_id = good.found.metadata.backup_id
    make = copying.replace if seen.damaged else copying.copy
    try:
        if seen.found is not None and not copying.same_backup(seen.found, good.found):
            raise differs(seen.place, backup_id)  # damaged as it is, it may be all that is left of another
        make(good.place, seen.place, backup_id, context.copied)
        return Seen(seen.place, catalog.find(seen.place.store, seen.place.prefix, backup_id), healed=True)
    except Failure as failure:
        told = f"{seen.failure.message}; it could not be made anew: {failure.message}"
        return replace(seen, failure=type(seen.failure)(told, reason=seen.failure.reason))


def _worst(seen: Sequence[Seen]) -> Failure:
    """Choose what to tell where no copy is good: damage, then a place that nobody could look into, then absence."""
    failures = [each.failure for each in seen if each.failure is not None]
    damaged = [each for each in failures if isinstance(each, VerificationFailed)]
    unclear = [each for each in failures if not isinstance(each, BackupMissing)]
    return (damaged or unclear or failures)[0]


def _record(seen: Sequence[Seen], context: Context, told: str) -> None:
    for each in seen:
        if each.found is None or isinstance(each.failure, IdentityMissing):
            continue
        if each.failure is None:
            _write(each, context, status="Verified", message=told)
        elif each.damaged:
            _write(each, context, status="VerificationFailed", message=each.failure.message)


def _write(seen: Seen, context: Context, *, status: str, message: str) -> None:
    backup_id = seen.found.metadata.backup_id if seen.found else ""
    with suppress(StorageInvalid):  # a storage that is read-only: the verdict is told all the same
        catalog.write_verification(
            seen.place.store, seen.place.prefix, backup_id, status=status, message=message, now=context.now()
        )


def _result(
    request: VerifyRequest, context: Context, seen: Sequence[Seen], found: Found, told: str
) -> Result:
    metadata = found.metadata
    copies = tuple(_copy(each, metadata, context) for each in seen)
    if len(copies) > 1:
        good = next(each.place for each in seen if each.failure is None)
        entry = catalog.entry(good.store, found)
        context.report.entry(entry.model_copy(update={"copies": copies}))
    bad = [each for each in copies if each.status != "Verified"]
    healed = [each.place.store.name for each in seen if each.healed]
    sentences = [
        f"{metadata.backup_id}: every stored byte is what was written",
        *([f"made anew in {', '.join(healed)}"] if healed else []),
        *(f"{each.storage}: {each.message}" for each in bad),
        *([told] if told else []),
    ]
    reason = "CopiesIncomplete" if bad else "Healed" if healed else "NotDecoded" if told else "Verified"
    return Result(
        nonce=request.nonce,
        verb="verify",
        verdict="Succeeded",
        reason=reason,
        message="; ".join(sentences),
        backup_id=metadata.backup_id,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
        verified_time=context.now(),
        copies=tuple(each.brief for each in copies) if len(copies) > 1 else (),
    )


def _copy(seen: Seen, metadata: BackupMetadata, context: Context) -> Copy:
    place, failure = seen.place, seen.failure
    location = place.store.locate(layout.metadata_key(place.prefix, metadata.backup_id))
    if failure is None:
        return Copy(
            storage=place.store.name,
            location=location,
            status="Verified",
            reason="Healed" if seen.healed else "",
            checksum=metadata.checksum,
            verified_time=context.now(),
        )
    status = "VerificationFailed" if seen.damaged else "NotVerified"
    reason = "CopyMissing" if seen.absent else failure.reason
    return Copy.model_validate(
        {
            "storage": place.store.name,
            "location": location,
            "status": status,
            "reason": reason,
            "message": failure.message,
        }
    )


def _sealed(metadata: BackupMetadata) -> str:
    return f"it is encrypted for {named(recipients_of(metadata.artifacts))}"
