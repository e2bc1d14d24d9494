"""Verify several backups of a policy: those first that were not verified for longest, within what one run may read.

So every backup that is kept is read again after some nights, the old ones too, and a night costs no more than it may. A
backup that lacks a good copy somewhere comes before that, because a verification heals it; where that cannot be done, the
others have their turn all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from avalanche_backup import catalog, ownership, removal
from avalanche_backup.catalog import Found
from avalanche_backup.errors import BackupMissing, StorageUnavailable, VerificationFailed
from avalanche_backup.pipeline.fanout import Destination, living
from avalanche_backup.removal import Shelf
from avalanche_backup.verbs import verify
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import attempt, open_destination
from avalanche_backup.verbs.examined import DAMAGED, Examined
from avalanche_contract.request import Rotation, VerifyRequest
from avalanche_contract.result import Checked, Listed, Result

NAMED_MAX = 20
PAGE = 200
"""How many IDs one line of the log holds."""


@dataclass(frozen=True)
class Candidate:
    """One backup that may be read."""

    backup_id: str
    size_bytes: int
    """0 where its metadata cannot be read: then nothing is."""
    verified: datetime
    """When any copy was last read."""
    lacking: bool = False
    """A place that answers has no good copy."""


class Order:
    """Whose turn it is, within what one run may read. Pure."""

    def __init__(self, candidates: Iterable[Candidate], limits: Rotation, *, heal: bool) -> None:
        self._waiting = sorted(candidates, key=_age)
        self._limits = limits
        self._heal = heal
        self._backups = self._bytes = 0

    def __iter__(self) -> Iterator[Candidate]:
        while self._waiting and (candidate := self._next()) is not None:
            self._waiting.remove(candidate)
            yield candidate

    def was_read(self, candidate: Candidate, *, whole: bool, judged: bool = True) -> None:
        """Count one that was read; the first that could not be healed is over and above, and no other is put first.

        One that could not be ``judged`` has no new verdict, and is first again the next night: it takes nobody's turn.
        """
        if not judged:
            return
        if self._heal and candidate.lacking and not whole:
            self._heal = False
            return
        self._backups += candidate.size_bytes > 0
        self._bytes += candidate.size_bytes

    def _next(self) -> Candidate | None:
        lacking = next((each for each in self._waiting if each.lacking), None) if self._heal else None
        found = lacking or self._waiting[0]
        return found if self._has_room(found) else None

    def _has_room(self, candidate: Candidate) -> bool:
        if candidate.size_bytes == 0 or self._backups == 0:
            return True
        most = self._limits.max_bytes
        return self._backups < self._limits.max_backups and (
            most is None or self._bytes + candidate.size_bytes <= most
        )


def run(
    request: VerifyRequest, rotation: Rotation, context: Context, found_out: Callable[[Examined], None]
) -> Result:
    """Verify the backups whose turn it is; each is told in a line as soon as it was read.

    :raises VerificationFailed: of at least one no copy is good; the others were read all the same.
    :raises Failure: no place can be looked into, or any longer.
    """
    places = [open_destination(each) for each in (rotation.place, *request.others)]
    shelves = _survey(places, rotation)
    _list(places, shelves, context)
    candidates = candidates_of(shelves, context.now())
    order, done = Order(candidates, rotation, heal=request.heal), list[Examined]()
    silent, silent_before = list[StorageUnavailable](), False
    for candidate in order:
        examined = verify.examine(places, candidate.backup_id, context, heal=request.heal)
        if isinstance(examined.failure, BackupMissing):
            continue  # a cleanup was faster
        found_out(examined)
        context.report.checked(_checked(examined, context))
        done.append(examined)
        if isinstance(examined.failure, StorageUnavailable):
            silent.append(examined.failure)
            if silent_before:
                raise examined.failure  # every other one would fail like it
        silent_before = isinstance(examined.failure, StorageUnavailable)
        whole = all(each.failure is None for each in examined.seen)
        order.was_read(candidate, whole=whole, judged=examined.is_judged)
    _refuse_damage(done, len(candidates))
    if silent:
        raise silent[0]
    distrusted = sorted({each for shelf in shelves for each in shelf.distrusted})
    return Result(
        nonce=request.nonce,
        verb="verify",
        verdict="Succeeded",
        reason="TombstonesNotTrusted" if distrusted else _reason(done),
        message="; ".join([_sentence(done, len(candidates)), *removal.told_of(distrusted)]),
        verified_time=context.now(),
        entry_count=len(done),
    )


def _refuse_damage(done: Sequence[Examined], total: int) -> None:
    """End as a failure where a backup is damaged, or where none could be read.

    :raises Failure: it is so.
    """
    if any(each.good is None and each.damaged for each in done):
        raise VerificationFailed(_sentence(done, total))
    failures = [each.failure for each in done if each.failure is not None]
    if failures and len(failures) == len(done):
        raise failures[0]


def _list(places: Sequence[Destination], shelves: Sequence[Shelf], context: Context) -> None:
    """Tell what is there, page by page, and where that was looked for: what is not among it is in none of those places."""
    names = tuple(each.store.name for each in places if each.failure is None)
    ids = sorted({each for shelf in shelves for each in _ids(shelf)})
    for start in range(0, max(1, len(ids)), PAGE):
        context.report.listed(Listed(storages=names, backup_ids=tuple(ids[start : start + PAGE])))


def _ids(shelf: Shelf) -> Iterable[str]:
    return (*shelf.named, *shelf.damaged_ids, *shelf.tombstones)


def candidates_of(shelves: Sequence[Shelf], now: datetime) -> list[Candidate]:
    """Bring together what lies in each place; what is being removed anywhere is left out."""
    leaving = {each for shelf in shelves for each in shelf.tombstones}
    ids = {each for shelf in shelves for each in (*shelf.named, *shelf.damaged_ids)} - leaving
    known = [{each.metadata.backup_id: each for each in shelf.backups} for shelf in shelves]
    read = [shelf.read(now) for shelf in shelves]
    times = {each: [found[each] for found in read if each in found] for each in ids}
    return [
        _candidate(each, shelves, [places.get(each) for places in known], times[each], now)
        for each in sorted(ids)
    ]


def _candidate(
    backup_id: str,
    shelves: Sequence[Shelf],
    found: Sequence[Found | None],
    read: Sequence[datetime],
    now: datetime,
) -> Candidate:
    there = [each for each in found if each is not None]
    good = [_looks_good(shelf, each) for shelf, each in zip(shelves, found, strict=True)]
    return Candidate(
        backup_id=backup_id,
        size_bytes=max((each.metadata.size_bytes for each in there), default=0),
        verified=max(
            [*(catalog.verified_time(each.metadata, each.verification, now) for each in there), *read],
            default=catalog.NEVER,
        ),
        lacking=any(good) and not all(good),
    )


def _looks_good(shelf: Shelf, found: Found | None) -> bool:
    return found is not None and shelf.is_complete(found) and catalog.verification_of(found) != DAMAGED


def _age(candidate: Candidate) -> tuple[datetime, str]:
    return candidate.verified, candidate.backup_id


def _survey(places: Sequence[Destination], rotation: Rotation) -> list[Shelf]:
    """Look at every place that answers, and is ours.

    :raises Failure: none does, or is.
    """
    found: list[Shelf] = []

    def look(each: Destination) -> None:
        ownership.check_owner(each.store, each.prefix, rotation.writer, claim=False)
        found.append(removal.survey(each.store, each.prefix))

    attempt(places, look)
    living(places)
    return found


def _checked(examined: Examined, context: Context) -> Checked:
    now, failure = context.now(), examined.failure
    good = examined.good is not None
    return Checked(
        backup_id=examined.backup_id,
        status="Verified" if good else "VerificationFailed" if examined.damaged else "NotVerified",
        reason=examined.reason,
        message=examined.message[:1024],
        verified_time=now if failure is None else None,
        copies=examined.copies(now),
    )


def _reason(done: Sequence[Examined]) -> str:
    if any(each.good is None for each in done):
        return "BackupsNotRead"
    reasons = {each.reason for each in done}
    return next((each for each in ("CopiesIncomplete", "Healed") if each in reasons), "Verified")


def _sentence(done: Sequence[Examined], total: int) -> str:
    good = [each for each in done if each.good is not None]
    damaged = [each.message for each in done if each.good is None and each.damaged]
    unread = [each.message for each in done if each.good is None and not each.damaged]
    parts = [f"{len(good)} of {total} backups were read and found whole"]
    for what, found in (("damaged", damaged), ("not read", unread)):
        parts += [f"{len(found)} {what}: {'; '.join(found[:NAMED_MAX])}"] if found else []
    parts += [each.message for each in good if each.reason in ("CopiesIncomplete", "Healed")][:NAMED_MAX]
    return "; ".join(parts)
