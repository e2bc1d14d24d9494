"""Where things lie beneath a place's prefix: pure functions from names to keys, and back.

::

    owner.json
    database/database_20241122_020000.sql.gz            one artifact of a single source
    full/full_20241101_040000_<source>.sql.gz           one of several
    …/…_metadata.json                                   the commit
    …/…_verification.json  …_told.json  …_drill.json  …_hold.json  …_tombstone.json  …_attempt.json  beside it
    …/…_restoring_<12 hex>.json                         for each restore that keeps it
    …/…_read_<yyyymmddhhmmss>.json                      that it was verified then, where no verdict can be written a second time
    restore-lock.json                                   of the last restore of a target of this policy
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

from avalanche_contract.names import BACKUP_TYPES, BackupType, parse_backup_id

STORAGE_FILE = "storage.json"
PROBE_FILE = "probe.json"
OWNER_FILE = "owner.json"
LOCK_FILE = "restore-lock.json"
DRILL = "_drill.json"
_METADATA = "_metadata.json"
_ATTEMPT = "_attempt.json"
_TOMBSTONE = "_tombstone.json"
_RESTORING = "_restoring_"
_READ, _READ_TIME = "_read_", "%Y%m%d%H%M%S"
_OBJECT_KEY = re.compile(
    r"^(?:.*/)?(?P<folder>database|files|full)/(?P<id>[a-z]+_\d{8}_\d{6})(?P<rest>[._][^/]*)$"
)
_METADATA_KEY = re.compile(
    r"^(?P<prefix>.*/)?(?P<folder>database|files|full)/(?P<id>[a-z]+_\d{8}_\d{6})_metadata\.json$"
)


def folder(prefix: str, backup_type: BackupType) -> str:
    """Give the folder of one type's backups."""
    return f"{prefix}{backup_type}/"


def metadata_key(prefix: str, backup_id: str) -> str:
    """Give the key of a backup's metadata."""
    return _beside(prefix, backup_id, _METADATA)


def verification_key(prefix: str, backup_id: str) -> str:
    """Give the key of a backup's last verdict."""
    return _beside(prefix, backup_id, "_verification.json")


def told_key(prefix: str, backup_id: str) -> str:
    """Give the key of what people were told of a backup, where its verdict cannot be written a second time."""
    return _beside(prefix, backup_id, "_told.json")


def read_key(prefix: str, backup_id: str, moment: datetime) -> str:
    """Give the key of the document that says that a backup was verified at a moment, where its verdict cannot be written."""
    return f"{read_keys(prefix, backup_id)}{moment.astimezone(UTC):{_READ_TIME}}.json"


def read_keys(prefix: str, backup_id: str) -> str:
    """Give how the keys of all those documents begin."""
    return _beside(prefix, backup_id, _READ)


def newest_reads(keys: Iterable[str], until: datetime) -> dict[str, datetime]:
    """Give, of all those documents among some keys, the newest moment of each backup, by its ID.

    One of later than ``until`` is no reading that there was: it would keep a backup out of the rotation for ever.
    """
    found: dict[str, datetime] = {}
    for key in keys:
        backup_id, rest = split_object_key(key) or ("", "")
        with suppress(ValueError):
            moment = datetime.strptime(rest, f"{_READ}{_READ_TIME}.json").replace(tzinfo=UTC)
            if moment <= until:
                found[backup_id] = max(moment, found.get(backup_id, moment))
    return found


def drill_key(prefix: str, backup_id: str) -> str:
    """Give the key of what the last drill of a backup came to."""
    return _beside(prefix, backup_id, DRILL)


def hold_key(prefix: str, backup_id: str) -> str:
    """Give the key of a backup's hold."""
    return _beside(prefix, backup_id, "_hold.json")


def restoring_key(prefix: str, backup_id: str, holder: str) -> str:
    """Give the key of the document that keeps a backup for one restore."""
    mark = hashlib.sha256(holder.encode()).hexdigest()[:12]
    return f"{restoring_keys(prefix, backup_id)}{mark}.json"


def restoring_keys(prefix: str, backup_id: str) -> str:
    """Give how the keys of all documents begin that keep a backup for restores."""
    return _beside(prefix, backup_id, _RESTORING)


def tombstone_key(prefix: str, backup_id: str) -> str:
    """Give the key of the document that says that a backup is being removed."""
    return _beside(prefix, backup_id, _TOMBSTONE)


def split_object_key(key: str) -> tuple[str, str] | None:
    """Give (backup ID, rest of the name) of any object of a backup, or ``None`` for what is not ours."""
    found = _OBJECT_KEY.match(key)
    if found is None:
        return None
    try:
        return (found["id"], found["rest"]) if type_of(found["id"]) == found["folder"] else None
    except ValueError:
        return None


def is_tombstone(rest: str) -> bool:
    """Say whether the rest of an object's name is that of a tombstone."""
    return rest == _TOMBSTONE


def is_restoring(rest: str) -> bool:
    """Say whether the rest of an object's name is that of what keeps a backup for a restore."""
    return rest.startswith(_RESTORING)


def attempt_key(prefix: str, backup_id: str) -> str:
    """Give the key of the document that a failed run leaves."""
    return _beside(prefix, backup_id, _ATTEMPT)


def split_attempt_key(key: str) -> str | None:
    """Give the backup ID of the document of a failed run, or ``None`` for any other object."""
    plain = key.removesuffix(_ATTEMPT)
    return split[1] if plain != key and (split := split_metadata_key(f"{plain}{_METADATA}")) else None


def object_name(backup_id: str, source: str | None, suffix: str, attempt: int) -> str:
    """Name a stored object: ``source`` only where there are several; ``attempt`` 0 is the plain name."""
    middle = f"_{source}" if source else ""
    again = f"_{attempt}" if attempt else ""
    return f"{backup_id}{middle}{again}{suffix}"


def split_metadata_key(key: str) -> tuple[str, str] | None:
    """Give (prefix, backup ID) of a metadata's key, or ``None`` for any other object."""
    found = _METADATA_KEY.match(key)
    if found is None:
        return None
    try:
        backup_type, _ = parse_backup_id(found["id"])
    except ValueError:
        return None
    return (found["prefix"] or "", found["id"]) if backup_type == found["folder"] else None


def folders(prefix: str) -> tuple[str, ...]:
    """Give the folders of all types."""
    return tuple(folder(prefix, backup_type) for backup_type in BACKUP_TYPES)


def type_of(backup_id: str) -> BackupType:
    """Give the type that an ID names."""
    return parse_backup_id(backup_id)[0]


def _beside(prefix: str, backup_id: str, ending: str) -> str:
    return f"{folder(prefix, type_of(backup_id))}{backup_id}{ending}"
