"""Which backups exist. A backup is its metadata file: written last, create-only, and that is the commit.

Reads and writes documents beside the data through a store; knows no source and does not move data.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from avalanche_backup import layout
from avalanche_backup.errors import (
    BackupMissing,
    Failure,
    ObjectExists,
    ObjectMissing,
    StorageInvalid,
    StorageUnavailable,
)
from avalanche_backup.metadata import BackupMetadata, MetadataInvalid, read_metadata, write_metadata
from avalanche_backup.pipeline.signing import check_signature
from avalanche_backup.storage.base import Store
from avalanche_contract.base import format_time, parse_time
from avalanche_contract.names import BACKUP_TYPES, BackupType, backup_id, policy_prefix
from avalanche_contract.result import Artifact, Entry, VerificationStatus

DOCUMENT_MAX_BYTES = 16 * 1024 * 1024
"""Far above any metadata; below what would hurt a small pod."""
NAMES = 100
"""How many seconds an ID moves on at most."""
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """One committed backup, where it lies, and the last verdict on it."""

    prefix: str
    metadata: BackupMetadata
    verification: dict[str, Any] | None = None


@dataclass(frozen=True)
class Damaged:
    """A metadata file that cannot be read: shown, never counted, never deleted."""

    key: str
    message: str
    reason: str = "MetadataInvalid"
    """``SignatureInvalid`` where it can be read, and nobody who is trusted signed it."""


def read_document(store: Store, key: str) -> bytes:
    """Read a small object whole.

    :raises ObjectMissing: there is none.
    :raises StorageInvalid: it is far too large to be one of ours.
    """
    data = bytearray()
    with store.read(key) as chunks:
        for chunk in chunks:
            data += chunk
            if len(data) > DOCUMENT_MAX_BYTES:
                raise StorageInvalid(f"{key} is too large to be a document of ours", reason="DocumentInvalid")
    return bytes(data)


def read_json(store: Store, key: str) -> dict[str, Any] | None:
    """Read a small JSON object; ``None`` where there is none, an empty one where it cannot be read."""
    try:
        found = json.loads(read_document(store, key))
    except ObjectMissing:
        return None
    except (ValueError, RecursionError):
        return {}
    except StorageInvalid as failure:
        if (
            failure.reason != "DocumentInvalid"
        ):  # too large; whatever else it is, it is not the document's fault
            raise
        return {}
    return found if isinstance(found, dict) else {}


def commit(store: Store, prefix: str, metadata: BackupMetadata) -> None:
    """Make a backup exist. A lost answer is no failure: what lies there afterwards decides.

    :raises ObjectExists: another run committed under this ID.
    :raises StorageUnavailable: what the metadata names is no longer there.
    """
    for name in (each.file for each in metadata.artifacts):
        # A run may take longer than the day after which a cleanup takes objects without metadata for left over.
        if store.head(f"{layout.folder(prefix, metadata.backup_type)}{name}") is None:
            raise StorageUnavailable(f"{name} was removed by somebody while the run was under way")
    put_once(store, layout.metadata_key(prefix, metadata.backup_id), write_metadata(metadata))


def put_once(store: Store, key: str, document: bytes) -> None:
    """Write a document create-only; that just this lies there already is no failure.

    :raises ObjectExists: another one does.
    """
    try:
        store.put(key, document)
    except Failure:
        if not _holds(store, key, document):
            raise


def find(store: Store, prefix: str, wanted: str) -> Found:
    """Give one backup.

    :raises BackupMissing: there is none of this ID, or its metadata cannot be read.
    """
    try:
        key = layout.metadata_key(prefix, wanted)
    except ValueError as error:
        raise BackupMissing(str(error)) from None
    found = read_one(store, key)
    if found is None:
        raise BackupMissing(f"there is no backup {wanted} in {store.locate(prefix)}")
    if isinstance(found, Damaged):
        raise BackupMissing(
            f"the metadata of {wanted} {'is not trusted' if found.reason == 'SignatureInvalid' else 'cannot be read'}: "
            f"{found.message}",
            reason=found.reason,
        )
    return found


def read_one(store: Store, key: str) -> Found | Damaged | None:
    """Give the backup of one metadata key; ``None`` where the key is not one, or the object went away."""
    place = layout.split_metadata_key(key)
    if place is None:
        return None
    prefix, named = place
    try:
        metadata = _read_trusted(store, key)
    except ObjectMissing:
        return None
    except MetadataInvalid as error:
        return Damaged(key, str(error), error.reason)
    except StorageInvalid as error:
        if error.reason != "DocumentInvalid":  # the storage itself: nothing is known of the document
            raise
        return Damaged(key, str(error))
    strange = _misplaced(metadata, prefix, named)
    if strange is not None:
        return Damaged(key, strange)
    return Found(prefix, metadata, read_json(store, layout.verification_key(prefix, named)))


def _read_trusted(store: Store, key: str) -> BackupMetadata:
    """Read metadata; where its storage trusts some keys alone, one of them has signed it."""
    document = read_document(store, key)
    metadata = read_metadata(document)
    if store.trusted_keys:
        check_signature(document, store.trusted_keys)
    return metadata


def _misplaced(metadata: BackupMetadata, prefix: str, named: str) -> str | None:
    """Say that metadata is of another backup or policy than where it lies: swapped in, it is none of this one's.

    A folder of a machine without Kubernetes has no name, and takes what was downloaded.
    """
    if (metadata.backup_id, metadata.backup_type) != (named, layout.type_of(named)):
        return f"it names {metadata.backup_type} backup {metadata.backup_id[:64]}"
    run = metadata.run
    if prefix and run.policy and not f"/{prefix}".endswith(f"/{policy_prefix(run.namespace, run.policy)}"):
        return f"it is of policy {run.namespace[:64]}/{run.policy[:64]}, whose folder is another one"
    return None


def metadata_keys(store: Store, prefix: str, types: tuple[BackupType, ...] = BACKUP_TYPES) -> Iterator[str]:
    """Give the metadata keys beneath the folder of one policy, type by type."""
    for folder in sorted(layout.folder(prefix, each) for each in types):
        yield from sorted(each.key for each in store.list(folder) if layout.split_metadata_key(each.key))


def backups(store: Store, prefix: str, types: tuple[BackupType, ...] = BACKUP_TYPES) -> list[Found | Damaged]:
    """Give every backup of one policy, the oldest first within a type; damaged metadata is among them."""
    found = (read_one(store, key) for key in metadata_keys(store, prefix, types))
    return [each for each in found if each is not None]


def prefixes(store: Store, within: str = "") -> list[str]:
    """Find the folders of policies in a storage: whatever holds metadata."""
    keys = (layout.split_metadata_key(each.key) for each in store.list(within))
    return sorted({place[0] for place in keys if place is not None})


def taken_ids(
    store: Store, prefix: str, backup_type: BackupType, moment: datetime
) -> dict[str, Found | Damaged]:
    """Give the backups of one type that are named by a moment, or by one of the :data:`NAMES` seconds after it.

    The first name is read itself: a list may be older than what was just committed.
    """
    first = moment.replace(microsecond=0)
    ids = [backup_id(backup_type, first + timedelta(seconds=number)) for number in range(NAMES)]
    keys = {layout.metadata_key(prefix, each): each for each in ids}
    days = sorted({key.rpartition("_metadata")[0][: -len("_hhmmss")] for key in keys})
    listed = {each.key for day in days for each in store.list(day) if each.key in keys}
    found = {keys[key]: read_one(store, key) for key in sorted({next(iter(keys)), *listed})}
    return {named: each for named, each in found.items() if each is not None}


def free_id(backup_type: BackupType, moment: datetime, taken: Sequence[str]) -> str:
    """Give the ID of a run: its second, or the next one that no other run has.

    :raises StorageUnavailable: there is none for minutes.
    """
    first = moment.replace(microsecond=0)
    ids = (backup_id(backup_type, first + timedelta(seconds=number)) for number in range(NAMES))
    wanted = next((each for each in ids if each not in taken), None)
    if wanted is None:
        raise StorageUnavailable(f"every name for {NAMES} seconds after {first} is taken")
    return wanted


def storage_id(store: Store) -> str:
    """Give the UUID of a place, which is given to it where it has none."""
    known = read_json(store, layout.STORAGE_FILE)
    if known is None:
        with suppress(ObjectExists):
            store.put(layout.STORAGE_FILE, json.dumps({"id": str(uuid.uuid4())}).encode())
        known = read_json(store, layout.STORAGE_FILE) or {}
    return str(known.get("id", ""))


def write_verification(
    store: Store,
    prefix: str,
    named: str,
    *,
    status: str,
    message: str,
    now: datetime,
    told_time: str | None = None,
) -> None:
    """Write the last verdict on a backup beside it; ``told_time`` is when people were told of that damage."""
    document = {"backup_id": named, "status": status, "message": message, "verified_time": format_time(now)}
    document |= {"told_time": told_time} if told_time else {}
    store.put(layout.verification_key(prefix, named), json.dumps(document, indent=2).encode(), overwrite=True)


def remember_read(store: Store, prefix: str, named: str, *, status: str, message: str, now: datetime) -> None:
    """Note create-only, by its name, that a backup was read: for a storage that takes no second write of a verdict.

    Of two notes of one second the first stays.
    """
    document = {"backup_id": named, "status": status, "message": message, "verified_time": format_time(now)}
    with suppress(ObjectExists):
        store.put(layout.read_key(prefix, named, now), json.dumps(document, indent=2).encode())


def read_times(store: Store, prefix: str, until: datetime) -> dict[str, datetime]:
    """Give when backups were last read by such notes until a moment, by ID; most storages have none."""
    keys = (each.key for folder in layout.folders(prefix) for each in store.list(folder))
    return layout.newest_reads(keys, until)


def remember_told(store: Store, prefix: str, named: str, *, message: str, now: datetime) -> None:
    """Note create-only that people know of some damage: for a storage that takes no second write of a verdict."""
    document = {"backup_id": named, "message": message, "told_time": format_time(now)}
    store.put(layout.told_key(prefix, named), json.dumps(document, indent=2).encode())


def told_of(store: Store, prefix: str, named: str, message: str) -> str | None:
    """Give when people were told of just this damage, as :func:`remember_told` noted it."""
    found = read_json(store, layout.told_key(prefix, named)) or {}
    return str(found["told_time"]) if found.get("message") == message and found.get("told_time") else None


def verification_of(found: Found) -> VerificationStatus:
    """Give the last verdict on a backup: without a later one that of its commit, which read it back and decoded it."""
    if found.verification is None:
        return "Verified"
    told = found.verification.get("status")
    return next((known for known in get_args(VerificationStatus) if known == told), "NotVerified")


def verified_time(metadata: BackupMetadata, verification: dict[str, Any] | None, now: datetime) -> datetime:
    """Say when a copy was last read: its commit read it back, unless what lies beside it cannot be understood, or is yet to come."""
    told = parse_time((verification or {}).get("verified_time"))
    read = told or (NEVER if verification else metadata.completion_time)
    return read if read <= now else NEVER


def entry(store: Store, found: Found) -> Entry:
    """Tell a backup as the control plane reads it."""
    metadata = found.metadata
    folder = layout.folder(found.prefix, metadata.backup_type)
    verdict = found.verification or {}
    return Entry(
        backup_id=metadata.backup_id,
        backup_type=metadata.backup_type,
        run_identity=metadata.run.identity,
        namespace=metadata.run.namespace,
        policy=metadata.run.policy,
        policy_uid=metadata.run.policy_uid,
        prefix=found.prefix,
        start_time=metadata.start_time,
        completion_time=metadata.completion_time,
        snapshot_time=metadata.snapshot_time,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
        compression=metadata.artifacts[0].compression if metadata.artifacts else "None",
        status="Succeeded" if metadata.status == "succeeded" else "Suspect",
        reason=metadata.anomalies[0].reason if metadata.anomalies else "",
        message=metadata.error_message or "",
        location=store.locate(layout.metadata_key(found.prefix, metadata.backup_id)),
        artifacts=tuple(
            Artifact(
                source=each.source,
                kind=each.kind,
                object=f"{folder}{each.file}",
                size_bytes=each.size_bytes,
                checksum=f"sha256:{each.sha256}",
                source_bytes=each.source_bytes,
                source_checksum=f"sha256:{each.source_sha256}",
                entries=_count(each.statistics.get("entries")),
            )
            for each in metadata.artifacts
            if each.role == "data"
        ),
        warnings=tuple(metadata.warnings[:10]),
        verification=verification_of(found),
        verified_time=parse_time(verdict.get("verified_time")) or metadata.completion_time,
    )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _holds(store: Store, key: str, document: bytes) -> bool:
    """Say whether just this lies there: another attempt of the same run names other objects.

    :raises Failure: that cannot be found out; it must not be taken for a no.
    """
    try:
        return read_document(store, key) == document
    except ObjectMissing:
        return False
