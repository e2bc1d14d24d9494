"""When to read a storage, what a page of it says, and what that means for a Backup. Pure.

What metadata says is somebody else's word: the folder it lies in says whose backup it is, and an entry that no Backup could
show is counted and named, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from avalanche_contract import names
from avalanche_contract.log import Answer
from avalanche_contract.request import COPIES_MAX, CatalogRequest
from avalanche_contract.result import Entry
from avalanche_operator.api.backup import BackupSpec, BackupStatus, Verification
from avalanche_operator.api.storage import BackupStorageStatus, SyncStatus
from avalanche_operator.applying.schedule import next_time
from avalanche_operator.backups.build import manual_identity, run_of_job
from avalanche_operator.backups.decide import DISTRUSTED, readable, succeeded_by_entry
from avalanche_operator.discovery.build import discovered
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.keeping.decide import missing, places_of
from avalanche_operator.kube.conditions import Verdict

Object = dict[str, Any]
Identity = tuple[str, str]
"""(run identity, backup ID)"""
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 10.0, 900.0
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_POLICY = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_CURSOR_MAX = 1100


@dataclass(frozen=True)
class Due:
    """The page that comes next, and in how many seconds it is due; 0 is now."""

    number: int
    after: str
    wait_seconds: float


def next_page(status: BackupStorageStatus, mark: str, schedule: str, now: datetime) -> Due:
    """Say which page is read next: the first one of a storage that was never read like this, else what is under way."""
    sync = status.sync or SyncStatus()
    number, after = sync.number + 1, sync.cursor or ""
    if sync.fingerprint != mark:
        return Due(number, "", 0.0)
    if sync.failures:
        pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(sync.failures - 1, 10))
        return Due(number, after, _until((sync.last_time or now) + timedelta(seconds=pause), now))
    if sync.cursor is not None or status.last_sync_time is None:
        return Due(number, after, 0.0)
    slot = next_time(schedule, ZoneInfo("Etc/UTC"), status.last_sync_time)
    return Due(number, "", _until(slot or datetime.max.replace(tzinfo=UTC), now))


def _until(moment: datetime, now: datetime) -> float:
    return max(0.0, (moment - now).total_seconds())


@dataclass(frozen=True)
class Page:
    """All that lies between two cursors: what a Backup can show, and the keys that say nothing."""

    storage: str
    began: datetime
    within: tuple[str, ...]
    """How the keys begin that were looked for."""
    after: str
    cursor: str | None
    entries: dict[Identity, tuple[Entry, BackupStatus]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """By key: why."""

    def covers(self, key: str) -> bool:
        """Say whether a key would have been seen."""
        between = self.after < key and (self.cursor is None or key <= self.cursor)
        return between and key.startswith(self.within)


def page_of(
    storage: str, request: CatalogRequest, outcome: Outcome, answer: Answer, now: datetime
) -> Page | None:
    """Read the answer of a Job; ``None`` where it is not whole: what is not in it may be there all the same."""
    result = outcome.result
    if result is None or result.verdict != "Succeeded" or not answer.complete:
        return None
    if result.entry_count is not None and result.entry_count != len(answer.entries):
        return None
    within = request.prefixes or (request.within or "",)
    page = Page(storage, outcome.started or now, within, request.after, result.next_cursor)
    page.unreadable.update({each.key: each.message for each in answer.unreadable})
    for each in answer.entries:
        told = shown(storage, each)
        key = each.prefix + each.backup_id
        if isinstance(told, str):
            page.unreadable[key] = told
        else:
            page.entries[each.run_identity, each.backup_id] = (each, told)
    return page


def policy_of(entry: Entry) -> str:
    """Name the policy whose folder a backup lies in."""
    return entry.prefix.rstrip("/").rpartition("/")[2]


def shown(storage: str, entry: Entry) -> BackupStatus | str:
    """Give the status that shows an entry, or why none can."""
    policy = policy_of(entry)
    if not entry.run_identity:
        return "it names no run that made it"
    if entry.prefix.count("/") != 2 or not _POLICY.fullmatch(policy) or len(policy) > names.POLICY_NAME_MAX:
        return f"the folder {entry.prefix[:128]!r} is none of a policy"
    try:
        names.metadata_key(entry.prefix, entry.backup_id)
        status = succeeded_by_entry(BackupStatus(storage=storage, prefix=entry.prefix), entry)
        written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        BackupSpec.model_validate({"policyRef": {"name": policy}, "runIdentity": entry.run_identity})
        return BackupStatus.model_validate(written)
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:300]
    except (ValueError, OverflowError) as error:
        return str(error)[:300]


def is_meant(backup: Object, entry: Entry) -> bool:
    """Say whether a Backup that has no status yet was made for an entry: a run may have left two of one moment."""
    policy = policy_of(entry)
    made = (discovered(entry, "", policy, distinct=each)["metadata"]["name"] for each in (False, True))
    return identity_of(backup)[0] == entry.run_identity and backup["metadata"]["name"] in made


def identity_of(backup: Object) -> Identity:
    """Say which run a Backup shows; the ID is empty until it is known."""
    status, spec = backup.get("status") or {}, backup["spec"]
    told = status.get("runIdentity") or spec.get("runIdentity") or manual_identity(backup)
    return str(told), str(status.get("backupID") or "")


def runs_of(jobs: Iterable[Object]) -> set[str]:
    """Name the runs whose Jobs are there: their policy shows them, or has shown them."""
    found = set()
    for each in jobs:
        meta = each["metadata"]
        cron = next(
            (one["name"] for one in meta.get("ownerReferences") or () if one["kind"] == "CronJob"), None
        )
        if cron is not None:
            uid = (meta.get("labels") or {}).get(names.LABEL_OWNER_UID, "")
            found.add(run_of_job(uid, each, cron)[0])
    return found


def after_reading(backup: Object, page: Page, now: datetime) -> BackupStatus | None:
    """Give the status of a Backup that a page changes, which may say that it is there, or that it is not."""
    status = readable(backup)
    after = _after(backup, status, page, now) if status is not None else None
    return after if after != status else None


def is_forsaken(backup: Object, page: Page, now: datetime) -> bool:
    """Say whether a Backup shows what a reading did not find, and another one before it did not either: it shows nothing.

    Only what was discovered: the object of a run of this cluster stays, and says that its data is gone.
    """
    status = readable(backup)
    if status is None or backup["spec"].get("origin") != "Discovered" or status.removal is None:
        return False
    seen, told = status.removal.time, status.removal.reason == "NotFound"
    before = status.model_copy(update={"removal": None})
    again = identity_of(backup) not in page.entries and _not_there(before, page, now).removal is not None
    return told and seen is not None and page.began > seen and again


def _after(backup: Object, status: BackupStatus, page: Page, now: datetime) -> BackupStatus:
    run, backup_id = identity_of(backup)
    if status.phase is None and backup["spec"].get("origin") == "Discovered":
        return next((told for entry, told in page.entries.values() if is_meant(backup, entry)), status)
    if status.phase not in ("Succeeded", "Suspect"):
        return status
    entry = page.entries.get((run, backup_id))
    if entry is not None:
        return _there(status, entry[1], foreign=backup["spec"].get("origin") == "Discovered")
    return _not_there(status, page, now)


def _there(status: BackupStatus, told: BackupStatus, *, foreign: bool) -> BackupStatus:
    """Give the status of a Backup that lies in a storage; what has its ID and other bytes there is none of its copies."""
    if told.prefix != status.prefix or (status.checksum is not None and told.checksum != status.checksum):
        return status
    back = status.removal is not None and status.removal.reason == "NotFound"
    after = status.model_copy(update={"removal": None}) if back else status
    after = after.model_copy(update={"verification": _trust(after.verification, told.verification)})
    whole = told.verification is None or told.verification.status != "VerificationFailed"
    if not whole or told.storage in {each.storage for each in status.copies}:
        return after
    copies = (*status.copies, *told.copies)[:COPIES_MAX]
    after = after.model_copy(update={"copies": copies, "storage": copies[0].storage})
    if not foreign:
        return after
    stored = places_of(after)[:COPIES_MAX]
    return after.model_copy(update={"storages": stored if len(stored) > 1 else ()})


def _trust(before: Verification | None, told: Verification | None) -> Verification | None:
    """Give the verdict on a Backup: that nobody who is trusted signed it comes and goes with what lies in storage."""
    distrusted = told is not None and told.reason == DISTRUSTED
    was = before is not None and before.reason == DISTRUSTED
    return told if distrusted or was else before


def _not_there(status: BackupStatus, page: Page, now: datetime) -> BackupStatus:
    key = names.metadata_key(status.prefix or "", status.backup_id) if status.backup_id else ""
    if (
        not page.covers(key)
        or key in page.unreadable
        or f"{status.prefix}{status.backup_id}" in page.unreadable
    ):
        return status
    lies = set(places_of(status))
    if lies != {page.storage}:
        return _without_copy(status, page, now) if page.storage in lies else status
    return missing(status, page.began, f"the reading of BackupStorage {page.storage}", now)


def _without_copy(status: BackupStatus, page: Page, now: datetime) -> BackupStatus:
    """Give the status of a Backup that lies elsewhere too, and of which one place has lost its copy."""
    left = tuple(each for each in status.copies if each.storage != page.storage)
    gone = missing(status, page.began, "", now).removal is not None
    if not gone or not left or len(left) == len(status.copies):
        return status
    return status.model_copy(update={"copies": left, "storage": left[0].storage})


def recorded(status: BackupStorageStatus, page: Page, due: Due, mark: str) -> BackupStorageStatus:
    """Give the status of a storage after a page was shown."""
    before = (status.sync if due.after else None) or SyncStatus()
    example = next((f"{key}: {why}" for key, why in page.unreadable.items()), "")
    sync = SyncStatus(
        number=due.number,
        fingerprint=mark,
        start_time=before.start_time or page.began,
        cursor=page.cursor if page.cursor is None or len(page.cursor) <= _CURSOR_MAX else None,
        backup_count=before.backup_count + len(page.entries),
        size_bytes=before.size_bytes + sum(each.size_bytes for each, _ in page.entries.values()),
        unreadable=before.unreadable + len(page.unreadable),
        example=before.example or example[:1024],
    )
    if sync.cursor is not None:
        return status.model_copy(update={"sync": sync})
    whole = {
        "backup_count": sync.backup_count,
        "size_bytes": sync.size_bytes,
        "last_sync_time": sync.start_time,
    }
    return status.model_copy(update={"sync": sync, **whole})


def failed(
    status: BackupStorageStatus, outcome: Outcome, due: Due, mark: str, now: datetime
) -> BackupStorageStatus:
    """Give the status of a storage a page of which could not be read: it is asked for again, later each time."""
    before = (status.sync if due.after else None) or SyncStatus()
    good = outcome.result is not None and outcome.result.verdict == "Succeeded"
    told = ("ResultLost", "the page was read, and its text is gone from the log") if good else (
        outcome.reason or "ResultLost", outcome.message)  # fmt: skip
    failures = status.sync.failures + 1 if status.sync is not None and status.sync.fingerprint == mark else 1
    changes = {
        "number": due.number,
        "fingerprint": mark,
        "failures": failures,
        "last_time": now,
        "reason": told[0][:128],
        "message": told[1][:1024],
    }
    return status.model_copy(update={"sync": before.model_copy(update=changes)})


def verdict(status: BackupStorageStatus) -> Verdict:
    """Say in a condition whether Backups show what is in the storage."""
    sync = status.sync
    if sync is not None and sync.failures:
        return Verdict("Synced", "False", sync.reason or "ResultLost", sync.message)
    if sync is None or status.last_sync_time is None:
        return Verdict("Synced", "Unknown", "Reading", "a Job reads what is in the storage")
    if sync.unreadable:
        told = f"{sync.unreadable} metadata files say nothing that could be shown, among them {sync.example}"
        return Verdict("Synced", "False", "MetadataUnreadable", told)
    return Verdict("Synced", "True", "Synced", f"it holds {status.backup_count} backups")
