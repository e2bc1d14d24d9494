"""Where a run writes to: opened, named and committed as one, though any of them may fail.

The order of the request is the order of every commit: of two attempts of one run, or of two runs with one name, the first
destination that both reach decides which of them has it everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from avalanche_backup import catalog, layout, ownership
from avalanche_backup.catalog import Found
from avalanche_backup.errors import (
    Failure,
    ObjectExists,
    StorageInvalid,
    StorageUnavailable,
    TargetLocked,
    mark_uncertain,
)
from avalanche_backup.locks import Lock, refuse_if_locked, refuse_if_restored
from avalanche_backup.metadata import ArtifactMetadata, BackupMetadata
from avalanche_backup.pipeline.fanout import Destination, living
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_contract.names import parse_backup_id
from avalanche_contract.request import BackupRequest
from avalanche_contract.storage import Place


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is, and the second that its backup is named by."""

    text: str
    moment: datetime


@dataclass(frozen=True)
class Unopened:
    """What stands for a store that could not even be opened: its credentials are missing."""

    name: str

    def locate(self, key: str) -> str:
        """Nothing is known of where it would be."""
        del key
        return ""


def open_destination(place: Place) -> Destination:
    """Open a place; where it cannot be, the failure is kept with it."""
    try:
        return Destination(open_store(place.storage), place.prefix)
    except Failure as failure:
        return Destination(cast("Store", Unopened(place.storage.name)), place.prefix, failure)


def open_destinations(request: BackupRequest) -> list[Destination]:
    """Open every destination, and claim the folder of each that answers.

    :raises StorageInvalid: two of them are one place (``SamePlace``): they would hold one copy.
    :raises Failure: none can be written to.
    """
    opened = [open_destination(place) for place in request.destinations]

    def claim(each: Destination) -> None:
        ownership.check_owner(each.store, each.prefix, request.writer, claim=True, adopting=True)

    attempt(opened, claim)
    if len(opened) > 1:
        _refuse_same_place(opened)
    living(opened)
    return opened


def attempt(destinations: Sequence[Destination], action: Callable[[Destination], None]) -> None:
    """Do something in each that is still written to; one that fails is left out from then on.

    :raises TargetLocked: the target is being restored, wherever that was found.
    """
    for each in [each for each in destinations if each.failure is None]:
        try:
            action(each)
        except TargetLocked:
            raise
        except Failure as failure:
            each.failure = failure


def refuse_locked(destinations: Sequence[Destination], now: datetime) -> dict[str, Lock | None]:
    """Stop a backup whose target is being restored: the lock lies in each destination that the restore could reach.

    Else give the locks as they are, by the name of their storage, for :func:`refuse_restored`.

    :raises TargetLocked: it is. :raises Failure: no destination answers.
    """
    seen: dict[str, Lock | None] = {}

    def look(each: Destination) -> None:
        seen[each.store.name] = refuse_if_locked(each.store, each.prefix, now)

    attempt(destinations, look)
    living(destinations)
    return seen


def refuse_restored(destinations: Sequence[Destination], seen: Mapping[str, Lock | None]) -> None:
    """Stop a backup, before it commits, whose target a restore has worked on since the locks were seen.

    :raises TargetLocked: one has. :raises Failure: no destination answers.
    """
    attempt(destinations, lambda each: refuse_if_restored(each.store, each.prefix, seen[each.store.name]))
    living(destinations)


def find_own(
    destinations: Sequence[Destination], request: BackupRequest, identity: RunIdentity
) -> tuple[Destination, Found] | str:
    """Give where this very run is committed already, or else the ID for it, which no other run has anywhere.

    :raises Failure: no destination answers.
    """
    taken: list[str] = []
    own: list[tuple[Destination, Found]] = []

    def look(each: Destination) -> None:
        found = catalog.taken_ids(each.store, each.prefix, request.backup_type, identity.moment)
        taken.extend(found)
        committed = (one for one in found.values() if isinstance(one, Found))
        own.extend((each, one) for one in committed if one.metadata.run.identity == identity.text)

    attempt(destinations, look)
    living(destinations)
    return own[0] if own else catalog.free_id(request.backup_type, identity.moment, taken)


def commit(
    destinations: Sequence[Destination],
    request: BackupRequest,
    metadata: BackupMetadata,
    sealed: Callable[[BackupMetadata], BackupMetadata] = lambda plain: plain,
) -> tuple[Destination, Found]:
    """Commit in every destination, and give the first that has it; what failed is left out.

    An ID that another run took meanwhile moves on by a second. What another attempt of this very run committed is given
    instead: its data is another. ``sealed`` signs what is committed.

    :raises Failure: it was committed nowhere, as far as is known.
    """
    wanted = sealed(metadata)
    for _ in range(catalog.NAMES):
        try:
            first = _commit_first(destinations, wanted)
        except ObjectExists:
            with _uncertain():
                own = find_own(destinations, request, RunIdentity(wanted.run.identity, wanted.timestamp))
            if not isinstance(own, str):
                return own
            moved = {"backup_id": own, "timestamp": parse_backup_id(own)[1]}
            wanted = sealed(metadata.model_copy(update=moved))
            continue
        attempt(destinations, lambda each, done=first, made=wanted: _commit_another(each, done, made))  # type: ignore[misc]
        return first, Found(first.prefix, wanted)
    raise StorageUnavailable("a hundred names for this backup were taken meanwhile")


def remove(destinations: Sequence[Destination], artifacts: Sequence[ArtifactMetadata], folder: str) -> None:
    """Remove objects that no metadata names, wherever that can be done."""

    def take_away(each: Destination) -> None:
        for artifact in artifacts:
            with suppress(Failure):  # a writer's key may not delete: cleanup removes what nothing names
                each.store.delete(each.key(f"{folder}{artifact.file}"))

    attempt(destinations, take_away)


def _commit_first(destinations: Sequence[Destination], metadata: BackupMetadata) -> Destination:
    for each in living(destinations):
        try:
            with _uncertain():
                catalog.commit(each.store, each.prefix, metadata)
            return each
        except ObjectExists:
            raise
        except Failure as failure:
            each.failure = failure
    with _uncertain():
        living(destinations)
    raise StorageUnavailable("no destination is left")


def _commit_another(each: Destination, done: Destination, metadata: BackupMetadata) -> None:
    if each is done:
        return
    try:
        with _uncertain():
            catalog.commit(each.store, each.prefix, metadata)
    except ObjectExists:
        raise differs(each, metadata.backup_id) from None


def differs(where: Destination, backup_id: str) -> StorageInvalid:
    """Say that another backup has this ID in one place: neither is ever replaced by the other."""
    place = where.store.locate(layout.metadata_key(where.prefix, backup_id))
    return StorageInvalid(
        f"{place} is another backup with this ID: both are kept; rename neither, compare them and keep one by hand",
        reason="CopiesDiffer",
    )


@contextmanager
def _uncertain() -> Iterator[None]:
    """Say of whatever breaks a commit off that the backup may exist all the same; nothing is tidied up then."""
    try:
        yield
    except ObjectExists:
        raise
    except BaseException as error:
        mark_uncertain(error)
        raise


def _refuse_same_place(destinations: Sequence[Destination]) -> None:
    known: dict[str, Destination] = {}

    def compare(each: Destination) -> None:
        found = catalog.storage_id(each.store)
        if found and found in known:
            raise _SamePlace(known[found], each)
        known[found] = each

    try:
        attempt(destinations, compare)
    except _SamePlace as same:
        raise StorageInvalid(str(same), reason="SamePlace") from None


class _SamePlace(Exception):
    def __init__(self, one: Destination, other: Destination) -> None:
        super().__init__(
            f"storages {one.store.name} and {other.store.name} are one place (the same storage.json): two copies there "
            "are lost together; name another place"
        )
