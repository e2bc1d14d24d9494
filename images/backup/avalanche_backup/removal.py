"""Removing backups, and what dead attempts left behind; resumable at every point.

A removal is: tombstone, metadata, data, what lies beside, tombstone. While the metadata is there, nothing is lost and
the next cleanup decides anew; once it is gone, the tombstone names every object that still goes (Barman BAR-244).
Only objects that carry our names are ever touched, and none that another backup's metadata names.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from avalanche_backup import layout
from avalanche_backup.catalog import Damaged, Found, read_json, read_one
from avalanche_backup.errors import RemovalRefused, StorageInvalid
from avalanche_backup.holds import is_kept, is_young
from avalanche_backup.metadata import MetadataInvalid
from avalanche_backup.pipeline.signing import Signer, check_signature
from avalanche_backup.storage.base import ObjectInfo, Store
from avalanche_contract.base import format_time
from avalanche_contract.names import backup_id as make_id
from avalanche_contract.names import parse_backup_id

CLOCK_TOLERANCE = timedelta(minutes=15)
NAMED_MAX = 20
MOVED_ON = 5
"""By how many seconds an ID is looked for beyond the one in an object's name."""


@dataclass(frozen=True)
class Shelf:
    """Everything that lies in the folder of one policy."""

    prefix: str
    objects: tuple[ObjectInfo, ...]
    backups: tuple[Found, ...]
    damaged: tuple[Damaged, ...]
    tombstones: tuple[str, ...]
    """IDs of backups whose removal is under way."""
    distrusted: tuple[str, ...] = ()
    """IDs of backups of which a tombstone says so that nobody who is trusted signed: it hides nothing."""

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Give the size of each object."""
        return {each.key: each.size for each in self.objects}

    @cached_property
    def restoring(self) -> frozenset[str]:
        """Give the IDs of backups that restores have chosen, at some time."""
        split = (layout.split_object_key(each.key) for each in self.objects)
        return frozenset(each[0] for each in split if each and layout.is_restoring(each[1]))

    def read(self, until: datetime) -> dict[str, datetime]:
        """Give when backups were last read until a moment, of those whose verdict could not be written, by ID."""
        return layout.newest_reads(self.sizes, until)

    @cached_property
    def damaged_ids(self) -> frozenset[str]:
        """Give the IDs of backups whose metadata cannot be read."""
        split = (layout.split_metadata_key(each.key) for each in self.damaged)
        return frozenset(each[1] for each in split if each)

    @cached_property
    def named(self) -> dict[str, frozenset[str]]:
        """Give the keys of the data of each backup, by its ID."""
        return {each.metadata.backup_id: frozenset(data_keys(each)) for each in self.backups}

    @cached_property
    def duplicates(self) -> frozenset[str]:
        """Give the IDs of copied metadata: what it names is another's, whose ID the objects carry."""
        count = Counter(key for keys in self.named.values() for key in keys)
        return frozenset(
            backup_id
            for backup_id, keys in self.named.items()
            if any(count[key] > 1 and not _carries(key, backup_id) for key in keys)
        )

    def is_complete(self, found: Found) -> bool:
        """Say whether everything that a backup consists of is there, in the right size."""
        folder = layout.folder(self.prefix, layout.type_of(found.metadata.backup_id))
        return bool(found.metadata.artifacts) and all(
            self.sizes.get(f"{folder}{each.file}") == each.size_bytes for each in found.metadata.artifacts
        )

    def own_keys(self, backup_id: str, keys: Iterable[str]) -> list[str]:
        """Leave out what other backups need: a copied metadata file must not take the data of the first one along."""
        others = {key for other, found in self.named.items() if other != backup_id for key in found}
        unknown = self.damaged_ids - {backup_id}
        return [
            key
            for key in keys
            if key not in others and (split := layout.split_object_key(key)) and split[0] not in unknown
        ]


def data_keys(found: Found) -> list[str]:
    """Give the keys of what a backup consists of."""
    folder = layout.folder(found.prefix, layout.type_of(found.metadata.backup_id))
    return [f"{folder}{each.file}" for each in found.metadata.artifacts]


def _carries(key: str, backup_id: str) -> bool:
    split = layout.split_object_key(key)
    return split is not None and split[0] == backup_id


def survey(store: Store, prefix: str) -> Shelf:
    """Look at everything beneath a policy's folder."""
    listed = [each for folder in layout.folders(prefix) for each in store.list(folder)]
    objects = list({each.key: each for each in listed}.values())  # a list may name an object twice
    found = _read_all(store, [each.key for each in objects if layout.split_metadata_key(each.key)])
    split = [pair for each in objects if (pair := layout.split_object_key(each.key))]
    told = sorted({backup_id for backup_id, rest in split if layout.is_tombstone(rest)})
    believed = [each for each in told if not store.trusted_keys or is_being_removed(store, prefix, each)]
    return Shelf(
        prefix=prefix,
        objects=tuple(objects),
        backups=tuple(each for each in found if isinstance(each, Found)),
        damaged=tuple(each for each in found if isinstance(each, Damaged)),
        tombstones=tuple(believed),
        distrusted=tuple(each for each in told if each not in believed),
    )


def is_being_removed(store: Store, prefix: str, backup_id: str) -> bool:
    """Say whether a tombstone lies beside a backup; where only signed ones are trusted, one that is signed for this place."""
    key = layout.tombstone_key(prefix, backup_id)
    there = store.head(key) is not None
    if not there or not store.trusted_keys:
        return there
    document = read_json(store, key) or {}
    named = (document.get("backup_id"), document.get("prefix")) == (backup_id, prefix)
    return named and _is_signed(document, store.trusted_keys)


def told_of(distrusted: Sequence[str]) -> list[str]:
    """Say that somebody laid tombstones who is not trusted."""
    named = ", ".join(distrusted[:NAMED_MAX])
    told = f"a tombstone that nobody who is trusted signed says that they are being removed, and is not believed: {named}"
    return [told] if distrusted else []


def _is_signed(document: dict[str, Any], trusted: Sequence[str]) -> bool:
    try:
        check_signature(json.dumps(document).encode(), trusted, "tombstone")
    except MetadataInvalid:
        return False
    return True


def _read_all(store: Store, keys: Iterable[str]) -> list[Found | Damaged | None]:
    """Read metadata; one that the storage does not give costs no other its turn, as long as it gives any.

    :raises StorageInvalid: it gives none.
    """
    found: list[Found | Damaged | None] = []
    refused: list[StorageInvalid] = []
    for key in keys:
        try:
            found.append(read_one(store, key))
        except StorageInvalid as failure:
            refused.append(failure)
            found.append(Damaged(key, failure.message, failure.reason))
    if refused and len(refused) == len(found):
        raise refused[0]
    return found


def remove(
    store: Store,
    shelf: Shelf,
    backup_id: str,
    *,
    keys: Iterable[str],
    reasons: Iterable[str],
    now: datetime,
    signer: Signer | None = None,
) -> bool:
    """Remove one backup and its data; ``False`` where a hold has come meanwhile, and it stays.

    Without a ``signer`` a removal that is broken off is not resumed where signed tombstones alone are trusted: what it left is
    named by no metadata, and goes as such.

    :raises RemovalRefused: our clock is ahead of the storage's, which decided on this.
    :raises StorageInvalid: ``DeleteRefused`` where the storage does not let it be deleted.
    """
    own, key = shelf.own_keys(backup_id, keys), layout.tombstone_key(shelf.prefix, backup_id)
    files = [each.rpartition("/")[2] for each in own]
    tombstone = {
        "backup_id": backup_id, "time": format_time(now), "reasons": list(reasons), "files": files,
        "prefix": shelf.prefix,
    }  # fmt: skip
    tombstone = signer.sign_tombstone(tombstone) if signer is not None else tombstone
    try:
        store.put(key, (json.dumps(tombstone, indent=2) + "\n").encode(), overwrite=True)
        _refuse_a_fast_clock(store, key, now)
    except StorageInvalid as failure:
        if failure.reason != "StorageFull":  # a full disk must not keep us from making room
            raise
    # Written after the tombstone and before the metadata goes, a hold is always seen: here or by who wrote it.
    kept = is_kept(store, shelf.prefix, backup_id, now)
    with _told(store):
        if kept:
            store.delete(key)
            return False
        store.delete(layout.metadata_key(shelf.prefix, backup_id))
        _remove_rest(store, shelf, backup_id, own)
    return True


def resume(store: Store, shelf: Shelf, backup_id: str, now: datetime) -> tuple[str, ...] | None:
    """Bring a removal to its end that lost the metadata already, and give its reasons.

    ``None`` where nothing was lost yet: the tombstone goes, but for a young one, whose owner may be at work.
    """
    key = layout.tombstone_key(shelf.prefix, backup_id)
    tombstone = read_json(store, key)
    if tombstone is None:
        return None
    with _told(store):
        if store.head(layout.metadata_key(shelf.prefix, backup_id)) is not None:
            if not is_young(tombstone, now):
                store.delete(key)
            return None
        if tombstone.get("backup_id") != backup_id:
            return None  # damaged: what it left becomes an orphan
        folder = layout.folder(shelf.prefix, layout.type_of(backup_id))
        names = [f"{folder}{name}" for name in _strings(tombstone.get("files")) if "/" not in name]
        _remove_rest(store, shelf, backup_id, shelf.own_keys(backup_id, names))
    return _strings(tombstone.get("reasons"))


def _remove_rest(store: Store, shelf: Shelf, backup_id: str, keys: Iterable[str]) -> None:
    several = (layout.restoring_keys(shelf.prefix, backup_id), layout.read_keys(shelf.prefix, backup_id))
    for key in (*keys, *(each.key for each in shelf.objects if each.key.startswith(several))):
        store.delete(key)
    keep_last = layout.tombstone_key
    for beside in (layout.verification_key, layout.told_key, layout.drill_key, layout.hold_key, keep_last):
        store.delete(beside(shelf.prefix, backup_id))


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _refuse_a_fast_clock(store: Store, key: str, now: datetime) -> None:
    """Compare our clock with the storage's at what was just written: a fast one would let everything expire (kopia)."""
    written = store.head(key)
    if written is None or now - written.modified <= CLOCK_TOLERANCE:
        return
    store.delete(key)
    ahead = int((now - written.modified).total_seconds()) // 60
    raise RemovalRefused(
        f"the clock here is {ahead} minutes ahead of the one of storage {store.name}: nothing was removed; set it right",
        reason="ClockSkew",
    )


@contextmanager
def _told(store: Store) -> Iterator[None]:
    """Say plainly that a storage is append-only, instead of trying for ever."""
    try:
        yield
    except StorageInvalid as refused:
        raise StorageInvalid(
            f"storage {store.name} does not let backups be removed: {refused.message}", reason="DeleteRefused"
        ) from None


def forsaken_before(shelf: Shelf, now: datetime, grace: timedelta) -> datetime | None:
    """Give the moment before which nobody can still be writing what lies there; ``None`` where nothing tells it.

    It is told by the storage's clock alone, against the newest object there: a clock of ours that is fast must not make
    an upload under way look old.
    """
    newest = max((each.modified for each in shelf.objects), default=None)
    return min(now, newest) - grace if newest is not None else None


def orphans(shelf: Shelf, before: datetime | None) -> tuple[ObjectInfo, ...]:
    """Give the objects of ours that no backup names, last written before a moment.

    Where metadata cannot be read, what it names is not known: all stays.
    """
    if shelf.damaged or before is None:
        return ()
    named = {key for keys in shelf.named.values() for key in keys}
    newest = {layout.type_of(each): _moment(each) for each in sorted(shelf.named, key=_moment)}
    found = []
    for each in shelf.objects:
        split = layout.split_object_key(each.key)
        if split is None or each.key in named or each.modified > before:
            continue
        backup_id, rest = split
        if backup_id in shelf.named and rest.endswith(".json"):
            continue  # beside a backup that is there
        success = newest.get(layout.type_of(backup_id))
        if layout.split_attempt_key(each.key) and (success is None or _moment(backup_id) > success):
            continue  # a failed run that no success has followed yet: the next one is told of as a recovery
        found.append(each)
    return tuple(found)


def _moment(backup_id: str) -> datetime:
    return parse_backup_id(backup_id)[1]


def remove_abandoned(store: Store, prefix: str, before: datetime | None) -> int:
    """Remove what killed writers left of uploads that never ended, and say how many those were (Barman BAR-674)."""
    if before is None:
        return 0
    removed = 0
    for folder in layout.folders(prefix):
        with suppress(
            StorageInvalid
        ):  # the key may not ask, or the store does not tell: its lifecycle rules do it
            removed += store.remove_abandoned(folder, before)
    return removed


def remove_orphans(store: Store, shelf: Shelf, left_over: Iterable[ObjectInfo]) -> int:
    """Remove what dead attempts left, and say how many objects that were; none where the list was not whole.

    :raises StorageInvalid: the storage does not let it be deleted.
    """
    found = list(left_over)
    if any(_was_passed_over(store, shelf, each.key) for each in found):
        return 0
    with _told(store):
        for each in found:
            store.delete(each.key)
    return len(found)


def _was_passed_over(store: Store, shelf: Shelf, key: str) -> bool:
    """Say whether there is metadata that the list left out, and that may name the object (restic#1246).

    A run whose ID was taken at its commit moves on by seconds, and its objects keep their names.
    """
    backup_type, moment = parse_backup_id((layout.split_object_key(key) or ("", ""))[0])
    candidates = (make_id(backup_type, moment + timedelta(seconds=number)) for number in range(MOVED_ON))
    return any(
        each not in shelf.named and store.head(layout.metadata_key(shelf.prefix, each)) is not None
        for each in candidates
    )
