"""Find out whether a storage and sources are usable: everything that a backup will ask of them, at small scale."""

from __future__ import annotations

from avalanche_backup import catalog, layout, ownership
from avalanche_backup.errors import (
    ObjectExists,
    ObjectMissing,
    SourceInvalid,
    StorageInvalid,
    StorageUnavailable,
)
from avalanche_backup.pipeline.fanout import Destination, living
from avalanche_backup.sources.opening import open_source
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import attempt, open_destination
from avalanche_backup.verbs.keys import named, recipients_for
from avalanche_contract.request import ProbeRequest
from avalanche_contract.result import ProbeResult, Result


def run(request: ProbeRequest, context: Context) -> Result:
    """Probe what the request names; first what costs nothing.

    :raises Failure: the first thing that is not usable, with what to do about it.
    """
    probed = ProbeResult()
    recipients = recipients_for(request.encryption)
    if request.storage is not None:
        store = open_store(request.storage)
        probed = _read_only(store) if request.read_only else _read_write(store, context)
    _check_owners(request)
    versions = {}
    for number, source in enumerate(request.sources):
        scratch = context.scratch / f"source-{number}"
        scratch.mkdir(parents=True, exist_ok=True)
        found = open_source(source, scratch).inspect(estimate=False)
        if found.empty:
            raise SourceInvalid(found.empty, reason="SourceEmpty")
        versions[source.name] = found.version
    return Result(
        nonce=request.nonce,
        verb="probe",
        verdict="Succeeded",
        reason="Usable",
        message=_sentence(request, versions, tuple(each.text for each in recipients)),
        probe=probed.model_copy(update={"server_versions": versions}),
    )


def _check_owners(request: ProbeRequest) -> None:
    """Refuse a folder that is another's. One that cannot be reached is the storage's own probe's to tell, where others can.

    :raises Failure: a folder is another's, or none can be reached.
    """
    opened = [open_destination(place) for place in request.places]

    def check(each: Destination) -> None:
        ownership.check_owner(each.store, each.prefix, request.writer, claim=False, adopting=True)

    attempt(opened, check)
    for each in opened:
        if each.failure is not None and each.failure.reason in ("OwnedByAnother", "OwnerUnknown"):
            raise each.failure
    if opened:
        living(opened)


def _sentence(request: ProbeRequest, versions: dict[str, str], recipients: tuple[str, ...]) -> str:
    found = ", ".join(f"{name}: {version}" for name, version in versions.items())
    where = "the storage can be read" if request.read_only else "the storage can be written, read and listed"
    sealed = f"encrypted for {named(recipients)}" if recipients else ""
    return "; ".join(part for part in (where if request.storage else "", found, sealed) if part)


def _read_only(store: Store) -> ProbeResult:
    next(iter(store.list("")), None)
    known = catalog.read_json(store, layout.STORAGE_FILE) or {}
    return ProbeResult(storage_id=str(known.get("id", "")))


def _read_write(store: Store, context: Context) -> ProbeResult:
    """Write once and read back; the two small objects stay, and are used again."""
    next(iter(store.list("")), None)
    _write_probe(store)
    try:
        catalog.read_document(store, layout.PROBE_FILE)
    except ObjectMissing:
        raise StorageUnavailable(f"storage {store.name}: what was just written cannot be read back") from None
    _check_conditional(store)
    skew = _clock_skew(store, context)
    return ProbeResult(
        storage_id=catalog.storage_id(store), conditional_writes=store.conditional, clock_skew_seconds=skew
    )


def _write_probe(store: Store) -> None:
    try:
        store.put(layout.PROBE_FILE, b'{"purpose": "written by probe: may be deleted"}\n')
    except ObjectExists:
        return
    except StorageInvalid as refused:
        if refused.reason != "NotSupported":
            raise
        raise _without_conditions(store, "refuses a create-only write") from None


def _check_conditional(store: Store) -> None:
    """Refuse a store that overwrites; one whose single writer was accepted is believed instead."""
    if not store.conditional:
        return
    try:
        store.put(layout.PROBE_FILE, b"{}\n")
    except ObjectExists:
        return
    raise _without_conditions(store, "overwrites an object that a create-only write must leave alone")


def _without_conditions(store: Store, what: str) -> StorageInvalid:
    return StorageInvalid(
        f"storage {store.name} {what} (If-None-Match): two backups could destroy each other there; use a store with "
        "conditional writes, or accept a single writer in its conditionalWrites",
        reason="NoConditionalWrites",
    )


def _clock_skew(store: Store, context: Context) -> int:
    """Compare our clock with the store's, where a write has just been made."""
    stamp = f"{layout.PROBE_FILE}.clock"
    store.put(stamp, b"{}\n", overwrite=True)
    found = store.head(stamp)
    now = context.now()
    return round((now - (found.modified if found else now)).total_seconds())
