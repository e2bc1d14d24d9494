"""Remove what retention does not keep: each backup gets a verdict with its reasons, and removals are resumable.

Every place of a policy decides for itself, as if it were alone: where copies stopped coming, none ages away. What is
held, or chosen by a restore, in one place stays in all of them. A place that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from avalanche_backup import catalog, layout, ownership, removal, retention
from avalanche_backup.catalog import Found
from avalanche_backup.errors import Failure, RemovalRefused, UsageInvalid
from avalanche_backup.holds import Hold, is_kept_for_restore, read_hold
from avalanche_backup.pipeline.signing import Signer
from avalanche_backup.removal import Shelf
from avalanche_backup.retention import Candidate, State, Verdict
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import signer_of
from avalanche_contract.names import parse_backup_id
from avalanche_contract.request import CleanupRequest
from avalanche_contract.result import Decision, Result
from avalanche_contract.storage import Place


@dataclass
class Spot:
    """One place: what lies there, what retention says of it, and why nothing more is done there."""

    store: Store
    shelf: Shelf
    signer: Signer | None = None
    ended: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Removals that were brought to their end: why, by ID."""
    verdicts: tuple[Verdict, ...] = ()
    failure: Failure | None = None

    @cached_property
    def going(self) -> dict[str, Verdict]:
        """Give the verdicts on what does not stay, by ID."""
        return {each.backup_id: each for each in self.verdicts if not each.keep}


@dataclass(frozen=True)
class Said:
    """What keeps backups, in any of the places: what people said, and which ones restores have chosen."""

    holds: dict[str, Hold]
    restoring: frozenset[str]

    def of(self, backup_id: str) -> Hold:
        """Give what was said of one backup."""
        return self.holds.get(backup_id, Hold())


@dataclass(frozen=True)
class _Counts:
    gone: int
    total: int
    left_over: int
    damaged: int
    distrusted: tuple[str, ...] = ()


def run(request: CleanupRequest, context: Context) -> Result:
    """Decide on every backup of a policy, and remove what does not stay.

    :raises RemovalRefused: more than ``max_delete_percent`` would go from a place; nothing was removed.
    :raises Failure: of the first place where something went wrong; the others were cleaned up all the same.
    """
    zone, now = _zone(request.time_zone), context.now()
    spots, failures = _look(request, now)
    if not spots:
        raise failures[0]
    if not failures:
        _tell_ended(spots, context)
    said = _heard(spots, now)
    for spot in spots:
        spot.verdicts = _decide(request, spot.shelf, said, now, zone)
    told = _merged(spots, said)
    for each in told.values():
        context.report.decision(each)
    refusals = [
        text for spot in spots if (text := retention.too_many(spot.verdicts, request.max_delete_percent))
    ]
    grace = timedelta(seconds=request.orphan_seconds)
    damaged = sum(len(each.shelf.damaged) for each in spots)
    distrusted = tuple(sorted({named for each in spots for named in each.shelf.distrusted}))
    if request.dry_run:
        left_over = sum(
            len(removal.orphans(each.shelf, removal.forsaken_before(each.shelf, now, grace)))
            for each in spots
        )
        going = sum(each.verdict == "Remove" for each in told.values())
        return _result(request, _Counts(going, len(told), left_over, damaged, distrusted), refusals)
    if refusals:
        raise RemovalRefused(f"{refusals[0]}: look at what `cleanup --dry-run` says, then allow it")
    # Left-overs first: a disk that is full gets room for tombstones.
    swept = sum(_swept(each, now, grace) for each in spots)
    gone = sum(_remove(each, spots, context, now, whole=not failures) for each in told.values())
    failures += [each.failure for each in spots if each.failure is not None]
    if failures:
        raise failures[0]
    return _result(request, _Counts(gone, len(told), swept, damaged, distrusted), [])


def _look(request: CleanupRequest, now: datetime) -> tuple[list[Spot], list[Failure]]:
    """Look at every place, and bring removals to their end that were broken off; give the places that answer."""
    spots: list[Spot] = []
    failures: list[Failure] = []
    for place in (request.place, *request.others):
        try:
            spots.append(_survey(request, place, now))
        except Failure as failure:
            failures.append(failure)
    return spots, failures


def _survey(request: CleanupRequest, place: Place, now: datetime) -> Spot:
    store = open_store(place.storage)
    ownership.check_owner(store, place.prefix, request.writer, claim=False)
    shelf = removal.survey(store, place.prefix)
    signer = signer_of(request.signing_key)
    for each in () if request.dry_run else shelf.distrusted:
        with suppress(Failure):  # told with the result; where it cannot go, it hides nothing all the same
            store.delete(layout.tombstone_key(place.prefix, each))
    if request.dry_run or not shelf.tombstones:
        return Spot(store, shelf, signer)
    looked = {each: removal.resume(store, shelf, each, now) for each in shelf.tombstones}
    ended = {each: reasons for each, reasons in looked.items() if reasons is not None}
    return Spot(
        store, replace(removal.survey(store, place.prefix), distrusted=shelf.distrusted), signer, ended
    )


def _tell_ended(spots: Iterable[Spot], context: Context) -> None:
    """Tell of removals that an earlier cleanup began, where nothing of the backup is left in any place."""
    there = {each for spot in spots for each in (*spot.shelf.named, *spot.shelf.damaged_ids)}
    for backup_id, reasons in {each: why for spot in spots for each, why in spot.ended.items()}.items():
        if backup_id not in there:
            decision = Decision(backup_id=backup_id, verdict="Remove", reasons=reasons, removed=True)
            context.report.decision(decision)


def _heard(spots: Iterable[Spot], now: datetime) -> Said:
    """Read what was said, where something was: most backups have no document beside them, and cost no request."""
    holds: dict[str, Hold] = {}
    restoring: set[str] = set()
    for spot in spots:
        shelf = spot.shelf
        for backup_id in (*shelf.named, *shelf.damaged_ids):
            if layout.hold_key(shelf.prefix, backup_id) in shelf.sizes:
                said = read_hold(spot.store, shelf.prefix, backup_id)
                holds[backup_id] = said.together(holds.get(backup_id, Hold()))
        restoring |= {
            each for each in shelf.restoring if is_kept_for_restore(spot.store, shelf.prefix, each, now)
        }
    return Said(holds, frozenset(restoring))


def _decide(
    request: CleanupRequest, shelf: Shelf, said: Said, now: datetime, zone: ZoneInfo
) -> tuple[Verdict, ...]:
    keep, rules = request.retention, None
    if keep is not None:
        rules = retention.Retention(
            keep.keep_last, keep.keep_daily, keep.keep_weekly, keep.keep_monthly, keep.keep_yearly
        )
    candidates = [_candidate(shelf, each, said) for each in shelf.backups]
    candidates += [_unreadable(each, said) for each in sorted(shelf.damaged_ids)]
    return retention.decide(candidates, rules, now, zone)


def _candidate(shelf: Shelf, found: Found, said: Said) -> Candidate:
    metadata, backup_id = found.metadata, found.metadata.backup_id
    hold = said.of(backup_id)
    backup_type, moment = parse_backup_id(backup_id)
    return Candidate(
        backup_id=backup_id,
        group=f"{metadata.run.policy_uid}/{backup_type}",
        moment=moment,
        state=_state(shelf, found, hold),
        manual=metadata.run.identity.startswith("manual/"),
        held=hold.held,
        restoring=backup_id in said.restoring,
        expiration=hold.expiration,
        depends_on=tuple(metadata.depends_on),
    )


def _unreadable(backup_id: str, said: Said) -> Candidate:
    backup_type, moment = parse_backup_id(backup_id)
    return Candidate(backup_id, f"/{backup_type}", moment, "Unreadable", held=said.of(backup_id).held)


def _state(shelf: Shelf, found: Found, said: Hold) -> State:
    if found.metadata.backup_id in shelf.duplicates:
        return "Duplicate"
    if found.metadata.status != "succeeded" and not said.anomaly_accepted:
        return "Suspect"
    return catalog.verification_of(found) if shelf.is_complete(found) else "Incomplete"


def _merged(spots: Iterable[Spot], said: Said) -> dict[str, Decision]:
    """Give one decision for each backup, the oldest first: it stays where one place keeps it."""
    found: dict[str, Decision] = {}
    for verdict in (each for spot in spots for each in spot.verdicts):
        hold = said.of(verdict.backup_id)
        new = Decision(
            backup_id=verdict.backup_id,
            verdict="Keep" if verdict.keep else "Remove",
            reasons=verdict.reasons,
            held=hold.held,
            expiration_time=hold.expiration,
        )
        found[verdict.backup_id] = _joined(found.get(verdict.backup_id), new)
    order = sorted(found, key=lambda each: (parse_backup_id(each)[1], each))
    return {each: found[each] for each in order}


def _joined(one: Decision | None, other: Decision) -> Decision:
    if one is None or one.verdict != other.verdict:
        return other if one is None or other.verdict == "Keep" else one
    return one.model_copy(update={"reasons": tuple(dict.fromkeys(one.reasons + other.reasons))})


def _swept(spot: Spot, now: datetime, grace: timedelta) -> int:
    before = removal.forsaken_before(spot.shelf, now, grace)
    try:
        left_over = removal.orphans(spot.shelf, before)
        swept = removal.remove_orphans(spot.store, spot.shelf, left_over)
        return swept + removal.remove_abandoned(spot.store, spot.shelf.prefix, before)
    except Failure as failure:
        spot.failure = failure
        return 0


def _remove(told: Decision, spots: Iterable[Spot], context: Context, now: datetime, *, whole: bool) -> bool:
    """Remove a backup from every place that does not keep it; tell and count it where nothing of it is left anywhere."""
    left = not whole or told.verdict == "Keep"
    for spot in spots:
        verdict = spot.going.get(told.backup_id)
        if verdict is not None:
            left = not _remove_from(spot, verdict, now) or left
    if not left:
        context.report.decision(told.model_copy(update={"removed": True}))
    return not left


def _remove_from(spot: Spot, verdict: Verdict, now: datetime) -> bool:
    if spot.failure is not None:
        return False
    keys = sorted(spot.shelf.named[verdict.backup_id])
    try:
        return removal.remove(
            spot.store,
            spot.shelf,
            verdict.backup_id,
            keys=keys,
            reasons=verdict.reasons,
            now=now,
            signer=spot.signer,
        )
    except Failure as failure:
        spot.failure = failure
        return False


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageInvalid(f"time zone {name!r} is not known: use a name such as Europe/Berlin") from None


def _result(request: CleanupRequest, counts: _Counts, refusals: list[str]) -> Result:
    future = "would be " if request.dry_run else ""
    parts = [f"{counts.gone} of {counts.total} backups {future}removed"]
    if counts.left_over:
        parts.append(f"{counts.left_over} objects and uploads that no backup names {future}removed")
    if counts.damaged:
        parts.append(f"{counts.damaged} metadata files cannot be read: they and what they may name stay")
    parts += removal.told_of(counts.distrusted)
    parts += [f"a cleanup would refuse this: {each}" for each in refusals]
    return Result(
        nonce=request.nonce,
        verb="cleanup",
        verdict="Succeeded",
        reason="Planned" if request.dry_run else "CleanedUp",
        message="; ".join(parts),
        entry_count=counts.total,
    )
