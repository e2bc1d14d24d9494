"""Running verbs in a test as a Job would: a context, requests, and what they reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from avalanche_backup import catalog
from avalanche_backup.metadata import BackupMetadata
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.base import Credential
from avalanche_contract.names import BackupType
from avalanche_contract.notification import Notifications, Told
from avalanche_contract.request import (
    BackupReference,
    BackupRequest,
    CatalogRequest,
    DeleteRequest,
    HoldRequest,
    RestoreRequest,
    RestoreTarget,
    Run,
    UndoRequest,
    VerifyRequest,
    Writer,
)
from avalanche_contract.result import Checked, Decision, Drilled, Entry, Listed, Plan, Result, Unreadable
from avalanche_contract.source import Source
from avalanche_contract.storage import Place, Storage

NONCE = "0123456789abcdef"
NOBODY = Notifications()
PREFIX = "edna/policy/"
WRITER = Writer(cluster_uid="cluster", namespace="edna", policy="policy", policy_uid="policy-uid")


@dataclass
class Reported:
    """What a verb told."""

    phases: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    plans: list[Plan] = field(default_factory=list)
    notifications: list[Told] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    verified: list[Checked] = field(default_factory=list)
    pages: list[Listed] = field(default_factory=list)
    damaged: list[Unreadable] = field(default_factory=list)
    drills: list[Drilled] = field(default_factory=list)

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Remember the phase."""
        del source, done_bytes, total_bytes
        self.phases.append(phase)

    def entry(self, entry: Entry) -> None:
        """Remember an entry."""
        self.entries.append(entry)

    def plan(self, plan: Plan) -> None:
        """Remember a plan."""
        self.plans.append(plan)

    def told(self, told: Told) -> None:
        """Remember who was told of what."""
        self.notifications.append(told)

    def decision(self, decision: Decision) -> None:
        """Remember a decision."""
        self.decisions.append(decision)

    def checked(self, checked: Checked) -> None:
        """Remember what was found of a backup."""
        self.verified.append(checked)

    def drilled(self, drilled: Drilled) -> None:
        """Remember what a drill came to."""
        self.drills.append(drilled)

    def listed(self, listed: Listed) -> None:
        """Remember a page of what is there."""
        self.pages.append(listed)

    def unreadable(self, found: Unreadable) -> None:
        """Remember a metadata file that says nothing."""
        self.damaged.append(found)


@dataclass(frozen=True)
class Runner:
    """One place, and the verbs on it."""

    storage: Storage
    scratch: Path
    reported: Reported = field(default_factory=Reported)
    identity: Credential | None = None
    """What opens encrypted backups."""
    others: tuple[Storage, ...] = ()
    """Where further copies go."""

    def opening(self, identity: Credential | None) -> Runner:
        """Give the same with an identity."""
        return replace(self, identity=identity)

    @property
    def place(self) -> Place:
        """Give the place of the backups."""
        return Place(storage=self.storage, prefix=PREFIX)

    @property
    def places(self) -> tuple[Place, ...]:
        """Give the place of every copy."""
        return tuple(Place(storage=each, prefix=PREFIX) for each in (self.storage, *self.others))

    @property
    def store(self) -> Store:
        """Open the store."""
        return open_store(self.storage)

    def stored(self) -> list[str]:
        """Give what lies in the storage, but for what failed runs leave."""
        return [each.key for each in self.store.list("") if not each.key.endswith("_attempt.json")]

    def attempts(self) -> list[str]:
        """Give what failed runs left."""
        return [each.key for each in self.store.list("") if each.key.endswith("_attempt.json")]

    def context(self, **more: Any) -> Context:
        """Give surroundings with a scratch folder."""
        self.scratch.mkdir(exist_ok=True)
        return Context(report=self.reported, scratch=self.scratch, **more)

    def backup(
        self,
        *sources: Source,
        kind: BackupType = "database",
        run_of: Run | None = None,
        context: Context | None = None,
        **more: Any,
    ) -> Result:
        """Back up."""
        request = BackupRequest(
            nonce=NONCE, writer=WRITER, run=run_of or Run(), backup_type=kind, sources=sources,
            destinations=self.places, **more,
        )  # fmt: skip
        return run(request, context or self.context())

    def manual(self, moment: datetime, uid: str) -> Run:
        """Name a manual run."""
        return Run(backup_uid=uid, created_time=moment)

    def verify(self, result: Result, notifications: Notifications = NOBODY, *, heal: bool = False) -> Result:
        """Verify every copy."""
        request = VerifyRequest(
            nonce=NONCE,
            backup=self.reference(result),
            others=self.places[1:],
            heal=heal,
            notifications=notifications,
        )
        return run(request, self.context())

    def run_catalog(self, **more: Any) -> Result:
        """List what is there."""
        request = CatalogRequest(nonce=NONCE, storage=self.storage, prefixes=(PREFIX,), **more)
        return run(request, self.context())

    def hold(self, backup_id: str, **said: Any) -> Result:
        """Say something of a backup."""
        request = HoldRequest(
            nonce=NONCE, backup=self.named(backup_id), others=self.places[1:], writer=WRITER, **said
        )
        return run(request, self.context())

    def delete(self, backup_id: str) -> Result:
        """Erase a backup."""
        request = DeleteRequest(
            nonce=NONCE, backup=self.named(backup_id), others=self.places[1:], writer=WRITER
        )
        return run(request, self.context())

    def plan(self, result: Result, target: Source, **more: Any) -> Plan:
        """Plan a restore."""
        run(self.request(result, target, mode="Plan", **more), self.context())
        return self.reported.plans[-1]

    def execute(self, result: Result, target: Source, approved: str | None, **more: Any) -> Result:
        """Restore."""
        return run(
            self.request(result, target, mode="Execute", approved_plan=approved, **more), self.context()
        )

    def restore(self, result: Result, target: Source, **more: Any) -> Result:
        """Plan, approve, restore."""
        return self.execute(result, target, self.plan(result, target, **more).digest, **more)

    def undo(
        self,
        target: Source,
        approved_by: str = "",
        meanwhile: Callable[[], object] = lambda: None,
        **more: Any,
    ) -> Result:
        """Plan an undo, approve it, and carry it out; ``approved_by`` is another request's UID."""
        request = UndoRequest(
            **{
                "nonce": NONCE,
                "mode": "Plan",
                "request_uid": "undo",
                "targets": (target,),
                "locks": self.places,
                **more,
            }
        )
        run(request, self.context())
        approved: dict[str, Any] = {"mode": "Execute", "approved_plan": self.reported.plans[-1].digest}
        if approved_by:
            approved["request_uid"] = approved_by
        meanwhile()
        return run(request.model_copy(update=approved), self.context())

    def request(
        self, result: Result, target: Source, *, paths: tuple[str, ...] = (), **more: Any
    ) -> RestoreRequest:
        """Give a request for one target: in place, where a test does not say otherwise."""
        targets = (RestoreTarget(artifact=target.name, target=target, paths=paths),)
        return RestoreRequest(
            **{
                "nonce": NONCE, "request_uid": "request", "backup": self.reference(result), "targets": targets,
                "locks": self.places, "strategy": "InPlace", **more,
            }
        )  # fmt: skip

    def metadata(self, result: Result) -> BackupMetadata:
        """Read what was committed."""
        return catalog.find(self.store, PREFIX, result.backup_id or "").metadata

    def reference(self, result: Result) -> BackupReference:
        """Name a backup."""
        return self.named(result.backup_id or "")

    def named(self, backup_id: str) -> BackupReference:
        """Name a backup by its ID."""
        kind: Any = backup_id.partition("_")[0]
        return BackupReference(
            place=self.place, backup_type=kind, backup_id=backup_id, identity=self.identity
        )
