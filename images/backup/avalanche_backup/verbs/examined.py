"""What a verification found: one backup, and how it is in each place. Values alone; :mod:`verify` reads and writes."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from avalanche_backup import layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import BackupMissing, Failure, VerificationFailed
from avalanche_backup.pipeline.fanout import Destination
from avalanche_contract.result import Copy

DAMAGED = "VerificationFailed"


@dataclass(frozen=True)
class Seen:
    """One place, and what was found there: a good copy has no ``failure``."""

    place: Destination
    found: Found | None
    failure: Failure | None = None
    healed: bool = False
    before: dict[str, Any] = field(default_factory=dict)
    """The verdict that lay beside it."""

    @property
    def damaged(self) -> bool:
        """Say whether something is there, and wrong."""
        return isinstance(self.failure, VerificationFailed)

    @property
    def absent(self) -> bool:
        """Say whether nothing is there."""
        return isinstance(self.failure, BackupMissing)

    @property
    def told_time(self) -> str | None:
        """Give when people were told of the damage that was there before."""
        told = self.before.get("told_time") if self.before.get("status") == DAMAGED else None
        return str(told) if told else None


@dataclass(frozen=True)
class Examined:
    """One backup, and how it is in each place; what was written there is the same."""

    backup_id: str
    seen: tuple[Seen, ...]
    told: str = ""
    """Why it was not decoded."""

    @property
    def good(self) -> Seen | None:
        """Give the first place that has a good copy."""
        return next((each for each in self.seen if each.failure is None), None)

    @property
    def damaged(self) -> tuple[Seen, ...]:
        """Give the places whose copy is damaged."""
        return tuple(each for each in self.seen if each.damaged)

    @property
    def is_judged(self) -> bool:
        """Say whether a verdict came of it: some copy is good, or some is damaged."""
        return self.good is not None or bool(self.damaged)

    @property
    def is_told(self) -> bool:
        """Say whether people know of all that is damaged: told is told once, not every morning."""
        return all(each.told_time for each in self.damaged)

    @property
    def failure(self) -> Failure | None:
        """Give what to tell where no copy is good: damage, then a place that nobody could look into, then absence."""
        if self.good is not None:
            return None
        failures = [each.failure for each in self.seen if each.failure is not None]
        damaged = [each for each in failures if isinstance(each, VerificationFailed)]
        unclear = [each for each in failures if not isinstance(each, BackupMissing)]
        return (damaged or unclear or failures)[0]

    @property
    def reason(self) -> str:
        """Say in one word what was found."""
        if self.failure is not None:
            return self.failure.reason
        if any(each.failure is not None for each in self.seen):
            return "CopiesIncomplete"
        if any(each.healed for each in self.seen):
            return "Healed"
        return "NotDecoded" if self.told else "Verified"

    @property
    def message(self) -> str:
        """Say in sentences what was found."""
        if self.failure is not None:
            return self.failure.message
        healed = [each.place.store.name for each in self.seen if each.healed]
        sentences = [
            f"{self.backup_id}: every stored byte is what was written",
            *([f"made anew in {', '.join(healed)}"] if healed else []),
            *(f"{each.place.store.name}: {each.failure.message}" for each in self.seen if each.failure),
            *([self.told] if self.told else []),
            *self._suspicion(),
        ]
        return "; ".join(sentences)

    def _suspicion(self) -> list[str]:
        """Say of a good copy that it is one of a suspect backup: what was written is there, and it looked wrong."""
        metadata = self.good.found.metadata if self.good and self.good.found else None
        suspect = metadata is not None and metadata.status == "suspect"
        return [f"it is suspect: {metadata.error_message}"] if metadata and suspect else []

    def copies(self, now: datetime) -> tuple[Copy, ...]:
        """Tell how it is in each place."""
        checksum = self.good.found.metadata.checksum if self.good and self.good.found else ""
        return tuple(_copy(each, self.backup_id, checksum, now) for each in self.seen)


def _copy(seen: Seen, backup_id: str, checksum: str, now: datetime) -> Copy:
    place, failure = seen.place, seen.failure
    location = place.store.locate(layout.metadata_key(place.prefix, backup_id))
    if failure is None:
        return Copy(
            storage=place.store.name,
            location=location,
            status="Verified",
            reason="Healed" if seen.healed else "",
            checksum=checksum,
            verified_time=now,
        )
    return Copy(
        storage=place.store.name,
        location=location,
        status="VerificationFailed" if seen.damaged else "NotVerified",
        reason="CopyMissing" if seen.absent else failure.reason,
        message=failure.message,
    )
