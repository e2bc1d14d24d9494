"""List what is in a storage, a page at a time. Named like the module it asks: this one answers requests."""

from __future__ import annotations

from collections.abc import Iterator

from avalanche_backup import catalog
from avalanche_backup.catalog import Damaged, Found
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_contract.request import CatalogRequest
from avalanche_contract.result import Result

PAGE_MAX_BYTES = 1024 * 1024
"""A page is read out of a log, of which the API server gives a few MiB at most."""


def run(request: CatalogRequest, context: Context) -> Result:
    """Report one page of entries; the result says how many there were and where the next page begins."""
    store = open_store(request.storage)
    count, size, damaged = 0, 0, 0
    last, cursor = request.after, None
    for key, found in _after(store, request):
        if count == request.limit or size > PAGE_MAX_BYTES:
            cursor = last
            break
        last = key
        if isinstance(found, Damaged):
            damaged += 1
        elif request.run_identity in (None, found.metadata.run.identity):
            entry = catalog.entry(store, found)
            context.report.entry(entry)
            count, size = count + 1, size + len(entry.model_dump_json())
    return Result(
        nonce=request.nonce,
        verb="catalog",
        verdict="Succeeded",
        reason="Listed",
        message=f"{count} backups" + (f"; {damaged} metadata files cannot be read" if damaged else ""),
        entry_count=count,
        next_cursor=cursor,
    )


def _after(store: Store, request: CatalogRequest) -> Iterator[tuple[str, Found | Damaged]]:
    prefixes = sorted(request.prefixes or catalog.prefixes(store))
    for prefix in prefixes:
        for key in catalog.metadata_keys(store, prefix):
            if key <= request.after:
                continue
            found = catalog.read_one(store, key)
            if found is not None:
                yield key, found
