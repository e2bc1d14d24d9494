"""Verifying several backups: one message for all damage that is new, not one a backup."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.output import ConsoleReport
from avalanche_backup.errors import Failure

if TYPE_CHECKING:
    from avalanche_backup.metadata import BackupMetadata

Verdict = tuple[str, str, str, str]
"""Backup ID, status, reason, message."""
DAMAGED = "VerificationFailed"
NAMED_MAX = 20


def known_damage(configuration: Configuration, backup_ids: list[str]) -> set[str]:
    """Give those that were found damaged before: people know of them."""
    return {
        each
        for found in _verdicts(configuration, backup_ids)
        for each, verdict in found.items()
        if verdict.get("status") == DAMAGED
    }


def oldest(configuration: Configuration, backups: Iterable[BackupMetadata], count: int) -> list[str]:
    """Give the IDs of those that were not verified for longest, in any place."""
    from avalanche_backup.catalog import verified_time  # noqa: PLC0415

    known = {each.backup_id: each for each in backups}
    now = datetime.now(UTC)
    verdicts, read = _verdicts(configuration, list(known)), _reads(configuration, now)

    def age(backup_id: str) -> tuple[datetime, datetime, str]:
        own = known[backup_id]
        times = [verified_time(own, found.get(backup_id), now) for found in verdicts]
        times += [found[backup_id] for found in read if backup_id in found]
        return max(times, default=own.completion_time), own.timestamp, backup_id

    return sorted(known, key=age)[:count]


def _verdicts(configuration: Configuration, backup_ids: list[str]) -> list[dict[str, dict[str, Any]]]:
    """Give the verdicts that lie in each place that answers, by backup ID."""
    from avalanche_backup import catalog, layout  # noqa: PLC0415 - `--help` needs none of it
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    found: list[dict[str, dict[str, Any]]] = []
    for place in configuration.places:
        with suppress(Failure, ValueError):  # the verification itself says what is wrong
            store = open_store(place.storage)
            keys = {each: layout.verification_key(place.prefix, each) for each in backup_ids}
            found.append({each: catalog.read_json(store, key) or {} for each, key in keys.items()})
    return found


def _reads(configuration: Configuration, now: datetime) -> list[dict[str, datetime]]:
    """Give what each place that answers notes of readings whose verdict it did not take, by backup ID."""
    from avalanche_backup import catalog  # noqa: PLC0415 - as above
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    found: list[dict[str, datetime]] = []
    for place in configuration.places:
        with suppress(Failure, ValueError):
            found.append(catalog.read_times(open_store(place.storage), place.prefix, now))
    return found


def tell_of_damage(configuration: Configuration, verdicts: list[Verdict], known: set[str]) -> None:
    """Tell of what was not damaged, or not known to be, before."""
    from avalanche_backup.notifications.message import Occurrence  # noqa: PLC0415
    from avalanche_backup.notifications.send import tell  # noqa: PLC0415

    new = [each for each in verdicts if each[1] == DAMAGED and each[0] not in known]
    new = [each for each in new if not _is_noted(configuration, each)]
    if not new:
        return
    one = new[0][0] if len(new) == 1 else ""
    happened = Occurrence(
        event="VerificationFailed",
        subject=f"backup {one}" if one else f"{len(new)} backups",
        where=socket.gethostname(),
        reason=", ".join(sorted({reason for _, _, reason, _ in new})),
        message="; ".join(f"{named}: {message}" for named, _, _, message in new[:NAMED_MAX]),
        time=datetime.now(UTC),
        backup_id=one,
    )
    told = tell(configuration.notifications, happened)
    if told is not None:
        ConsoleReport().told(told)
        if told.sent:
            _note(configuration, new)
    structlog.get_logger().error("backups are damaged", backups=[named for named, _, _, _ in new])


def _is_noted(configuration: Configuration, verdict: Verdict) -> bool:
    """Say whether people know of this damage, though a storage took no second verdict that would say so."""
    from avalanche_backup import catalog  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    for place in configuration.places:
        with suppress(Failure, ValueError):
            if catalog.told_of(open_store(place.storage), place.prefix, verdict[0], verdict[3]):
                return True
    return False


def _note(configuration: Configuration, told: list[Verdict]) -> None:
    """Note that people know, wherever the verdict itself could not be written."""
    from avalanche_backup import catalog, layout  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    for place in configuration.places:
        for named, _, _, message in told:
            with suppress(Failure, ValueError):
                store = open_store(place.storage)
                verdict = catalog.read_json(store, layout.verification_key(place.prefix, named)) or {}
                if verdict.get("status") != DAMAGED:
                    catalog.remember_told(store, place.prefix, named, message=message, now=datetime.now(UTC))
