"""List what is in a storage, a page at a time. Named like the module it asks: this one answers requests.

Pages follow the order of the keys, so that a page says all that there is between its cursors, and what is not among it is
not there. What metadata says is somebody else's word: a document that would burst a page is told as unreadable.
"""

from __future__ import annotations

from collections.abc import Iterator

from avalanche_backup import catalog, layout
from avalanche_backup.catalog import Damaged, Found
from avalanche_backup.holds import read_hold
from avalanche_backup.metadata import MetadataInvalid
from avalanche_backup.pipeline.signing import check_signature
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_contract.log import write_line
from avalanche_contract.names import BACKUP_TYPES
from avalanche_contract.request import CatalogRequest
from avalanche_contract.result import Entry, Result, Unreadable

PAGE_MAX_BYTES = 1024 * 1024
"""A page is read out of a log, of which the API server gives a few MiB at most."""
ENTRY_MAX_BYTES = 64 * 1024
"""Far above any entry: 16 artifacts, 10 warnings."""
MESSAGE_MAX = 300


def run(request: CatalogRequest, context: Context) -> Result:
    """Report one page of entries; the result says how many there were and where the next page begins."""
    store = open_store(request.storage)
    count, size, unreadable = 0, 0, 0
    last, cursor = request.after, None
    for key, found in _after(store, request):
        if count + unreadable == request.limit or size > PAGE_MAX_BYTES:
            cursor = last
            break
        last = key
        told = _told(store, key, found, _trusted(request, key))
        if isinstance(told, Unreadable):
            if request.run_identity is None:
                context.report.unreadable(told)
                unreadable, size = unreadable + 1, size + _length(told)
        elif request.run_identity in (None, told.run_identity):
            context.report.entry(told)
            count, size = count + 1, size + _length(told)
    return Result(
        nonce=request.nonce,
        verb="catalog",
        verdict="Succeeded",
        reason="Listed",
        message=f"{count} backups" + (f"; {unreadable} metadata files cannot be read" if unreadable else ""),
        entry_count=count,
        next_cursor=cursor,
    )


def _length(told: Entry | Unreadable) -> int:
    """Give how many bytes of the log it takes: a name in Chinese takes six for each of its characters."""
    return len(write_line("", "entry", told))


def _trusted(request: CatalogRequest, key: str) -> tuple[str, ...]:
    """Give whom the policy trusts in whose folder a key lies."""
    place = layout.split_metadata_key(key)
    return (request.trusted_keys or {}).get(place[0], ()) if place is not None else ()


def _told(store: Store, key: str, found: Found | Damaged, trusted: tuple[str, ...]) -> Entry | Unreadable:
    if isinstance(found, Damaged):
        return Unreadable(key=key, message=found.message[:MESSAGE_MAX])
    entry = catalog.entry(store, found)
    if entry.status == "Suspect":
        said = read_hold(store, found.prefix, entry.backup_id)
        entry = entry.model_copy(update={"anomaly_accepted": said.anomaly_accepted})
    if trusted:
        try:
            check_signature(catalog.read_document(store, key), trusted)
        except MetadataInvalid as invalid:
            distrust = {"verification": "VerificationFailed", "distrust": str(invalid)[:MESSAGE_MAX]}
            entry = entry.model_copy(update=distrust)
    if _length(entry) > ENTRY_MAX_BYTES:
        return Unreadable(key=key, message="its metadata is far too long to be one of ours")
    return entry


def _after(store: Store, request: CatalogRequest) -> Iterator[tuple[str, Found | Damaged]]:
    """Give what lies after the cursor, in the order of the keys."""
    prefixes = request.prefixes or catalog.prefixes(store, request.within or "")
    folders = sorted(
        (layout.folder(prefix, kind), prefix, kind) for prefix in prefixes for kind in BACKUP_TYPES
    )
    for _, prefix, kind in folders:
        for key in catalog.metadata_keys(store, prefix, (kind,)):
            if key <= request.after:
                continue
            found = catalog.read_one(store, key)
            if found is not None:
                yield key, found
