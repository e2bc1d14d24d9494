"""Read every copy of one backup whole and compare it with its metadata. The verdict is written beside each.

An encrypted backup is decoded where the identity is given; where it is not, size and SHA-256 of the stored bytes are
compared, and the answer says that this is all. A copy that is missing or damaged is made anew from a good one where the
request says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from avalanche_backup import catalog, layout, removal
from avalanche_backup.catalog import Found
from avalanche_backup.errors import (
    BackupMissing,
    Failure,
    StorageInvalid,
    VerificationFailed,
)
from avalanche_backup.metadata import combined_checksum, recipients_of
from avalanche_backup.pipeline.encryption import Identity
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.verbs import copying
from avalanche_backup.verbs.artifacts import Reader, read_whole
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import differs, open_destination
from avalanche_backup.verbs.examined import DAMAGED, Examined, Seen
from avalanche_backup.verbs.keys import identities_for, named
from avalanche_contract.base import Credential, format_time
from avalanche_contract.request import BackupReference, VerifyRequest
from avalanche_contract.result import Result


def _forget(examined: Examined) -> None:
    del examined


def run(
    request: VerifyRequest,
    backup: BackupReference,
    context: Context,
    found_out: Callable[[Examined], None] = _forget,
) -> Result:
    """Verify one backup wherever it should lie; it is good where one copy is. ``found_out`` hears what was found.

    :raises VerificationFailed: no copy is good; the verdict was written beside each.
    :raises BackupMissing: it is in none of the places.
    :raises IdentityMissing: the identity that was given is missing or does not fit; nothing was read or written.
    """
    places = [open_destination(each) for each in (backup.place, *request.others)]
    examined = examine(places, backup.backup_id, context, identity=backup.identity, heal=request.heal)
    found_out(examined)
    if examined.failure is not None:
        raise examined.failure
    return _result(request, context, examined)


def examine(
    places: Sequence[Destination],
    backup_id: str,
    context: Context,
    *,
    identity: Credential | None = None,
    heal: bool = False,
) -> Examined:
    """Read every copy of a backup, heal where that is asked for, and write the verdict beside each.

    :raises IdentityMissing: the identity that was given is missing or does not fit; nothing was read or written.
    """
    looked = [_look(each, backup_id) for each in places]
    found = next((each.found for each in looked if each.found is not None), None)
    identities = identities_for(found, identity, needed=False) if found else ()
    seen = _same_only([_verify(each, identities, context) for each in looked], backup_id)
    seen = [_with_told(each, backup_id) for each in seen]
    examined = Examined(backup_id, tuple(seen))
    good = examined.good
    if good is not None and good.found is not None:
        if heal:
            seen = [_healed(each, good, context) for each in seen]
        reader = Reader(good.place.store, good.found, identities)
        decoded = all(reader.decodes(each) for each in good.found.metadata.artifacts)
        told = "" if decoded else f"not decoded: {_sealed(good.found)}, and no identity was given"
        examined = Examined(backup_id, tuple(seen), told)
    _record(examined, context)
    return examined


def remember_told(examined: Examined, context: Context) -> None:
    """Write beside damaged copies that people know of them: told is told once, whoever verifies next."""
    for each in examined.damaged:
        told = each.failure.message if each.failure else ""
        _write(each, examined.backup_id, context, status=DAMAGED, message=told, told=True)


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
        found = catalog.find(place.store, place.prefix, backup_id)
        return Seen(place, found, before=found.verification or {})
    except BackupMissing as missing:
        if missing.reason in ("MetadataInvalid", "SignatureInvalid"):
            return _unreadable(place, backup_id, missing)
        return Seen(place, None, missing)
    except Failure as failure:
        return Seen(place, None, failure)


def _unreadable(place: Destination, backup_id: str, missing: BackupMissing) -> Seen:
    try:
        copying.refuse_newer(place, backup_id)
        before = catalog.read_json(place.store, layout.verification_key(place.prefix, backup_id)) or {}
    except Failure as failure:
        return Seen(place, None, failure)
    return Seen(place, None, VerificationFailed(missing.message, reason=missing.reason), before=before)


def _verify(seen: Seen, identities: Sequence[Identity], context: Context) -> Seen:
    if seen.found is None:
        return seen
    try:
        verify(Reader(seen.place.store, seen.found, identities), context)
    except VerificationFailed as failure:
        backup_id = seen.found.metadata.backup_id
        if _is_leaving(seen.place, backup_id):
            gone = BackupMissing(f"{backup_id} was removed from {seen.place.store.name} meanwhile")
            return replace(seen, found=None, failure=gone)
        return replace(seen, failure=failure)
    except Failure as failure:
        return replace(seen, failure=failure)
    return seen


def _with_told(seen: Seen, backup_id: str) -> Seen:
    """Look also beside a damaged copy for what could not be written into its verdict: that people know of it."""
    if not seen.damaged or seen.told_time or seen.failure is None:
        return seen
    place, told = seen.place, None
    with suppress(Failure):
        told = catalog.told_of(place.store, place.prefix, backup_id, seen.failure.message)
    return replace(seen, before={**seen.before, "status": DAMAGED, "told_time": told}) if told else seen


def _is_leaving(place: Destination, backup_id: str) -> bool:
    """Say whether a removal has come meanwhile: what it takes away is not damaged."""
    with suppress(Failure):
        gone = place.store.head(layout.metadata_key(place.prefix, backup_id)) is None
        return gone or removal.is_being_removed(place.store, place.prefix, backup_id)
    return False


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
        return replace(
            seen,
            found=catalog.find(seen.place.store, seen.place.prefix, backup_id),
            failure=None,
            healed=True,
        )
    except Failure as failure:
        told = f"{seen.failure.message}; it could not be made anew: {failure.message}"
        return replace(seen, failure=type(seen.failure)(told, reason=seen.failure.reason))


def _record(examined: Examined, context: Context) -> None:
    for each in examined.seen:
        if each.failure is None:
            _write(each, examined.backup_id, context, status="Verified", message=examined.told)
        elif each.damaged:
            _write(each, examined.backup_id, context, status=DAMAGED, message=each.failure.message)


def _write(
    seen: Seen, backup_id: str, context: Context, *, status: str, message: str, told: bool = False
) -> None:
    place, now = seen.place, context.now()
    told_time = None if status != DAMAGED else format_time(now) if told else seen.told_time
    try:
        catalog.write_verification(
            place.store,
            place.prefix,
            backup_id,
            status=status,
            message=message,
            now=now,
            told_time=told_time,
        )
    except StorageInvalid:  # read-only, or append-only: the verdict is told all the same
        where = place.store, place.prefix, backup_id
        with suppress(StorageInvalid):
            if told:
                catalog.remember_told(*where, message=message, now=now)
            else:  # or it would be its turn again each night
                catalog.remember_read(*where, status=status, message=message, now=now)


def _result(request: VerifyRequest, context: Context, examined: Examined) -> Result:
    good = examined.good
    if good is None or good.found is None:
        raise BackupMissing(f"there is no good copy of {examined.backup_id}")
    metadata, copies = good.found.metadata, examined.copies(context.now())
    if len(copies) > 1:
        entry = catalog.entry(good.place.store, good.found)
        context.report.entry(entry.model_copy(update={"copies": copies}))
    return Result(
        nonce=request.nonce,
        verb="verify",
        verdict="Succeeded",
        reason=examined.reason,
        message=examined.message,
        backup_id=metadata.backup_id,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
        verified_time=context.now(),
        copies=tuple(each.brief for each in copies) if len(copies) > 1 else (),
    )


def _sealed(found: Found) -> str:
    return f"it is encrypted for {named(recipients_of(found.metadata.artifacts))}"
