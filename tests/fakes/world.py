"""A cluster in memory that lives: Jobs run to their end, CronJobs fire, and a bucket remembers what was committed."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from avalanche_contract import names
from avalanche_contract.base import format_time
from avalanche_contract.log import write_line, write_pages
from avalanche_contract.notification import Event, Notifications, Told
from avalanche_contract.request import (
    BackupRequest,
    CatalogRequest,
    CleanupRequest,
    DeleteRequest,
    DrillRequest,
    HoldRequest,
    NotifyRequest,
    ProbeRequest,
    Request,
    RestoreRequest,
    Rotation,
    UndoRequest,
    VerifyRequest,
)
from avalanche_contract.result import (
    Checked,
    Copy,
    Decision,
    Drilled,
    Entry,
    Listed,
    Mark,
    Plan,
    ProbeResult,
    Result,
    TargetPlan,
    dump_result,
)
from avalanche_contract.wire import parse_request
from avalanche_operator.app import LOOKS
from avalanche_operator.kube.queue import Key
from avalanche_operator.settings import Settings, Surroundings
from tests.fakes.gateway import FakeGateway

Object = dict[str, Any]
T = TypeVar("T")
NAMESPACE = "edna"
START = datetime(2026, 3, 1, 1, 59, tzinfo=UTC)
CHECKSUM = "sha256:" + "a" * 64
ROUND_SECONDS = 10


class World:
    """The operator, an API server, and the controllers and pods of Kubernetes, on one clock."""

    def __init__(self) -> None:
        self.time = START
        self.gateway = FakeGateway(lambda: self.time)
        settings = Settings(
            backup_image="localhost/backup:1", drill_image="localhost/drill:1", cluster_uid="cluster"
        )
        self.around = Surroundings(self.gateway, settings, now=lambda: self.time)
        self.bucket: dict[str, Entry] = {}
        self.restored: list[str] = []
        self.undone: list[str] = []
        self.held: dict[str, Mark] = {}
        """By backup ID: what lies beside it in the bucket."""
        self.refuse_cleanup = False
        self.rotten: dict[str, set[str]] = {}
        """By backup ID: the storages whose copy is damaged."""
        self.known_rotten: set[str] = set()
        """What people were told of."""
        self.drill_fails: str | None = None
        """The reason for which drills fail."""
        self.plan_changes_once = False
        self.clock_skew_seconds = 0
        self.lose_results_of: set[str] = set()
        """Verbs whose pods vanish after their work, before their result was seen."""
        self.down: set[str] = set()
        """Storages that do not answer."""
        self.holding: dict[str, set[str]] = {}
        """By the identity of a run: the storages that hold a copy."""
        self.unsigned: set[str] = set()
        """The IDs of backups that nobody signed."""
        self.page = 500
        """Entries in one page of a catalog."""
        self.catalog_answers: Literal["Whole", "Failed", "WithoutLog"] = "Whole"
        self.failing: str | None = None
        """The reason for which backups fail; those that may pass are tried again, and tell nobody themselves."""
        self.told: list[tuple[str, str, str]] = []
        """(event, channel, reason), in the order in which messages arrived."""
        self.deaf: set[str] = set()
        """Channels that take nothing."""

    def person(self, kind: str, name: str, spec: Object) -> Object:
        """Apply an object of ours, as a person does."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": kind,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }
        return self.gateway.put(body)

    def fire(self, policy: str, slot: datetime, verb: str = "backup") -> None:
        """Do what the CronJob controller does at a slot."""
        cron = self.gateway.objects["CronJob", NAMESPACE, names.child_name(policy, "BackupPolicy", verb)]
        template = cron["spec"]["jobTemplate"]
        owner = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": cron["metadata"]["name"],
            "uid": cron["metadata"]["uid"],
            "controller": True,
        }
        name = names.job_of_slot(cron["metadata"]["name"], slot)
        if ("Job", NAMESPACE, name) not in self.gateway.objects:
            metadata = {
                **template["metadata"],
                "name": name,
                "namespace": NAMESPACE,
                "ownerReferences": [owner],
            }
            self.gateway.put(
                {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
            )

    def change(self, kind: str, name: str, **spec: Any) -> None:
        """Change the spec of an object, as a person does; ``None`` takes a field away."""
        found = self.gateway.objects[kind, NAMESPACE, name]
        changed = {key: value for key, value in {**found["spec"], **spec}.items() if value is not None}
        if changed != found["spec"]:
            version = f"{found['metadata']['resourceVersion']}-changed"
            generation = found["metadata"]["generation"] + 1
            found["metadata"] |= {"generation": generation, "resourceVersion": version}
            found["spec"] = changed

    def look(self, kind: str, name: str) -> float | None:
        """Have the operator look at one object."""
        return finished(LOOKS[kind](Key(kind, NAMESPACE, name), self.around))

    def run(self, rounds: int = 30, each_round: Callable[[], None] = lambda: None) -> None:
        """Let everything happen; an exception of a look is what a restart leaves: nothing but the objects."""
        for _ in range(rounds):
            for kind, _, name in [key for key in sorted(self.gateway.objects) if key[0] in LOOKS]:
                try:
                    self.look(kind, name)
                except Killed:
                    continue
            self.play()
            each_round()
            self.time += timedelta(seconds=ROUND_SECONDS)

    def play(self) -> None:
        """Run every Job that may run to its end."""
        for key, job in list(self.gateway.objects.items()):
            if key[0] == "Job" and not job["spec"].get("suspend") and not job.get("status"):
                self._end(job)

    def status(self, kind: str, name: str) -> Object:
        """Give a status."""
        found: Object = self.gateway.objects[kind, NAMESPACE, name].get("status") or {}
        return found

    def condition(self, kind: str, name: str, condition: str = "Ready") -> Object:
        """Give one condition."""
        return next(
            (each for each in self.status(kind, name).get("conditions", ()) if each["type"] == condition), {}
        )

    def requests(self) -> list[Any]:
        """Give what Jobs were asked that are there, in the order of their names."""
        jobs = [each for key, each in sorted(self.gateway.objects.items()) if key[0] == "Job"]
        return [_request_of(each) for each in jobs]

    def _end(self, job: Object) -> None:
        request = _request_of(job)
        result, lines = self._work(request, job)
        meta = job["metadata"]
        moment = format_time(self.time)
        failed = result.verdict not in ("Succeeded",)
        job["status"] = {
            "startTime": moment,
            "conditions": [
                {"type": "Failed" if failed else "Complete", "status": "True", "lastTransitionTime": moment}
            ],
        }
        if request.verb in self.lose_results_of:
            self.lose_results_of.discard(request.verb)
            return
        pod = f"{meta['name']}-pod"
        self.gateway.pod_logs[pod] = "".join(f"{line}\n" for line in lines)
        terminated = {"exitCode": int(failed), "message": dump_result(result)}
        self.gateway.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "namespace": NAMESPACE,
                    "labels": {"batch.kubernetes.io/job-name": meta["name"], **meta["labels"]},
                    "ownerReferences": [
                        {"kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
                    ],
                },
                "spec": {},
                "status": {
                    "phase": "Failed" if failed else "Succeeded",
                    "containerStatuses": [{"name": names.CONTAINER, "state": {"terminated": terminated}}],
                },
            }
        )

    def _work(self, request: Request, job: Object) -> tuple[Result, list[str]]:
        base = Result(
            nonce=request.nonce, verb=request.verb, verdict="Succeeded", reason="Succeeded", message="done"
        )
        if isinstance(request, ProbeRequest):
            return self._probe(request, base), []
        if isinstance(request, BackupRequest):
            return self._back_up(request, job, base)
        if isinstance(request, CatalogRequest):
            name = request.storage.name
            found = [
                each
                for each in self.bucket.values()
                if request.run_identity in (None, each.run_identity)
                and name in self.holding.get(each.run_identity, {name})
            ]
            if self.catalog_answers == "Failed" or name in self.down:
                down = {"verdict": "Failed", "reason": "StorageUnavailable", "message": "no answer"}
                return base.model_copy(update=down), []
            return self._list(request, found, base)
        if isinstance(request, NotifyRequest):
            told = self._tell(request.notifications, request.event, request.reason)
            failed = {"verdict": "Failed", "reason": "NotificationFailed"} if told and told.failed else {}
            return base.model_copy(update={"notification": told, **failed}), []
        if isinstance(request, VerifyRequest):
            return self._verify(request, base)
        if isinstance(request, DrillRequest):
            return self._drill(request, base)
        return self._act(request, base)

    def _list(self, request: CatalogRequest, found: list[Entry], base: Result) -> tuple[Result, list[str]]:
        """Give one page, in the order of the keys."""
        keyed = (
            sorted((names.metadata_key(each.prefix, each.backup_id), each) for each in found)
            if not request.run_identity
            else [("", each) for each in found]
        )
        behind = [(key, each) for key, each in keyed if key > request.after or request.run_identity]
        within = request.prefixes or (request.within or "",)
        behind = [each for each in behind if each[1].prefix.startswith(within)]
        behind = [(key, self._believed(request, each)) for key, each in behind]
        page, more = behind[: self.page], behind[self.page :]
        told = {"entry_count": len(page), "next_cursor": page[-1][0] if more else None}
        lines = list(write_pages(request.nonce, [each for _, each in page]))
        return base.model_copy(update=told), lines if self.catalog_answers == "Whole" else []

    def _believed(self, request: CatalogRequest, entry: Entry) -> Entry:
        """Say of a backup in a folder where only signed ones are trusted that it is none."""
        if entry.backup_id not in self.unsigned or not (request.trusted_keys or {}).get(entry.prefix):
            return entry
        return entry.model_copy(update={"verification": "VerificationFailed", "distrust": "it is not signed"})

    def _act(self, request: Request, base: Result) -> tuple[Result, list[str]]:
        if isinstance(request, CleanupRequest | HoldRequest | DeleteRequest):
            return self._keep(request, base)
        assert isinstance(request, RestoreRequest | UndoRequest)
        return self._restore(request, base)

    def _tell(self, notifications: Notifications | None, event: Event, reason: str) -> Told | None:
        channels = notifications.channels if notifications is not None else ()
        asked = [each.name for each in channels if event in each.events]
        sent = tuple(name for name in asked if name not in self.deaf)
        self.told += [(event, name, reason) for name in sent]
        failed = {name: "cannot be reached" for name in asked if name in self.deaf}
        return Told(event=event, sent=sent, failed=failed) if asked else None

    def _fail(self, request: BackupRequest, base: Result, reason: str) -> Result:
        final = reason not in ("StorageUnavailable", "SourceUnavailable")
        told = self._tell(request.notifications, "Failed", reason) if final else None
        return base.model_copy(
            update={"verdict": "Failed", "reason": reason, "message": "it failed", "notification": told}
        )

    def _probe(self, request: ProbeRequest, base: Result) -> Result:
        name = request.storage.name if request.storage else ""
        if name in self.down:
            down = {"verdict": "Failed", "reason": "StorageUnavailable", "message": "no answer"}
            return base.model_copy(update=down)
        probed = ProbeResult(storage_id=f"id of {name}", clock_skew_seconds=self.clock_skew_seconds)
        return base.model_copy(update={"probe": probed})

    def _keep(
        self, request: CleanupRequest | HoldRequest | DeleteRequest, base: Result
    ) -> tuple[Result, list[str]]:
        if isinstance(request, CleanupRequest):
            return self._clean_up(request, base)
        if isinstance(request, HoldRequest):
            return self._hold(request, base), []
        return self._delete(request.backup.backup_id, base), []

    def _clean_up(self, request: CleanupRequest, base: Result) -> tuple[Result, list[str]]:
        """Keep the last ones and what is held; a small retention will do to tell what becomes of an answer."""
        assert request.retention is not None
        entries = sorted(self.bucket.values(), key=lambda each: each.backup_id, reverse=True)
        last = {each.backup_id for each in entries[: max(1, request.retention.keep_last)]}
        decisions = [self._decide(each.backup_id, each.backup_id in last) for each in entries]
        going = [each for each in decisions if each.verdict == "Remove"]
        if self.refuse_cleanup:
            told = decisions
            base = base.model_copy(update={"verdict": "Refused", "reason": "TooManyRemovals"})
        else:
            told = [*decisions, *(each.model_copy(update={"removed": True}) for each in going)]
            gone = {each.backup_id for each in going}
            self.bucket = {name: each for name, each in self.bucket.items() if each.backup_id not in gone}
            base = base.model_copy(update={"reason": "CleanedUp"})
        lines = [write_line(request.nonce, "decision", each) for each in told]
        return base, [*lines, write_line(request.nonce, "end", {"count": len(told)})]

    def _verify(self, request: VerifyRequest, base: Result) -> tuple[Result, list[str]]:
        """Read everything; a damaged copy is healed where another one is good."""
        assert isinstance(request.backup, Rotation)
        places = [each.storage.name for each in (request.backup.place, *request.others)]
        checked = [self._check(each, places) for each in self.bucket.values()]
        there = Listed(storages=tuple(places), backup_ids=tuple(each.backup_id for each in checked))
        lines = [write_line(request.nonce, "listed", there)]
        lines += [write_line(request.nonce, "checked", each) for each in checked]
        lines.append(write_line(request.nonce, "end", {"count": len(lines)}))
        bad = {each.backup_id for each in checked if each.status == "VerificationFailed"}
        if bad - self.known_rotten:
            told = self._tell(request.notifications, "VerificationFailed", "ArtifactDamaged")
            self.known_rotten |= bad
            base = base.model_copy(update={"notification": told})
        if bad:
            base = base.model_copy(update={"verdict": "Failed", "reason": "VerificationFailed"})
        return base, lines

    def _check(self, entry: Entry, places: list[str]) -> Checked:
        rotten = self.rotten.get(entry.backup_id, set())
        if set(places) - rotten:
            rotten.clear()
        copies = tuple(
            Copy(
                storage=name,
                status="VerificationFailed" if name in rotten else "Verified",
                reason="ArtifactDamaged" if name in rotten else "",
                location=f"{name}:/",
                checksum=CHECKSUM,
                verified_time=None if name in rotten else self.time,
            )
            for name in places
        )
        good = not rotten
        return Checked(
            backup_id=entry.backup_id,
            status="Verified" if good else "VerificationFailed",
            reason="Verified" if good else "ArtifactDamaged",
            message="whole" if good else "the SHA-256 is another",
            verified_time=self.time if good else None,
            copies=copies,
        )

    def _drill(self, request: DrillRequest, base: Result) -> tuple[Result, list[str]]:
        """Restore the newest backup, and look at it."""
        if not self.bucket:
            none = {"verdict": "Failed", "reason": "NoGoodBackup", "message": "there is no good backup yet"}
            return base.model_copy(update=none), []
        backup_id, good = max(each.backup_id for each in self.bucket.values()), self.drill_fails is None
        told = Drilled(
            backup_id=backup_id,
            storage="s3",
            time=self.time,
            succeeded=good,
            reason=self.drill_fails or "Drilled",
            message=f"{backup_id} was {'' if good else 'not '}restored",
            duration_seconds=3.5,
            restore_seconds=2.25,
        )
        verdict = {
            "verdict": "Succeeded" if good else "Failed",
            "reason": told.reason,
            "message": told.message,
        }
        lines = [
            write_line(request.nonce, "drilled", told),
            write_line(request.nonce, "end", {"count": 1}),
        ]
        return base.model_copy(update=verdict), lines

    def _decide(self, backup_id: str, last: bool) -> Decision:
        mark = self.held.get(backup_id, Mark())
        reasons = [name for name, kept in (("hold", mark.held), ("last-1", last)) if kept]
        return Decision(
            backup_id=backup_id,
            verdict="Keep" if reasons else "Remove",
            reasons=tuple(reasons or ["no-rule"]),
            held=mark.held,
            expiration_time=mark.expiration_time,
        )

    def _hold(self, request: HoldRequest, base: Result) -> Result:
        backup_id = request.backup.backup_id
        before = self.held.get(backup_id, Mark())
        mark = Mark(
            held=before.held if request.held is None else request.held,
            expiration_time=None
            if request.never_expires
            else request.expiration_time or before.expiration_time,
            anomaly_accepted=request.accept_anomaly or before.anomaly_accepted,
        )
        self.held[backup_id] = mark
        return base.model_copy(update={"mark": mark})

    def _delete(self, backup_id: str, base: Result) -> Result:
        there = [name for name, each in self.bucket.items() if each.backup_id == backup_id]
        if not there:
            return base.model_copy(update={"verdict": "Failed", "reason": "BackupNotFound"})
        if self.held.get(backup_id, Mark()).held:
            return base.model_copy(update={"verdict": "Refused", "reason": "BackupHeld"})
        for name in there:
            del self.bucket[name]
        return base.model_copy(update={"reason": "Erased"})

    def _back_up(self, request: BackupRequest, job: Object, base: Result) -> tuple[Result, list[str]]:
        if self.failing is not None:
            return self._fail(request, base, self.failing), []
        if request.run.backup_uid is not None:
            identity, moment = f"manual/{request.run.backup_uid}", request.run.created_time or self.time
        else:
            slot = names.slot_of_job(job["metadata"]["name"], request.run.cron_job or "")
            assert slot is not None
            identity, moment = f"scheduled/{request.writer.policy_uid}/{int(slot.timestamp()) // 60}", slot
        entry = self.bucket.setdefault(
            identity,
            Entry(
                backup_id=names.backup_id(request.backup_type, moment), backup_type=request.backup_type, run_identity=identity,
                start_time=self.time, completion_time=self.time, snapshot_time=self.time, size_bytes=10, source_bytes=20,
                checksum=CHECKSUM, status="Succeeded", verified_time=self.time, verification="Verified",
                namespace=request.writer.namespace, policy=request.writer.policy, policy_uid=request.writer.policy_uid,
                prefix=request.destinations[0].prefix,
            ),
        )  # fmt: skip
        asked = [each.storage.name for each in request.destinations]
        holding = self.holding.setdefault(identity, set()) | {name for name in asked if name not in self.down}
        self.holding[identity] = holding
        copies = tuple(
            Copy(
                storage=name,
                status="Verified",
                location=f"{name}:/",
                checksum=CHECKSUM,
                verified_time=self.time,
            )
            if name in holding
            else Copy(storage=name, status="NotVerified", reason="StorageUnavailable", message="no answer")
            for name in asked
        )
        if len(asked) > 1:
            entry = entry.model_copy(update={"copies": copies})
        if len(holding) < (request.min_copies or len(asked)):
            few = {"verdict": "Failed", "reason": "CopiesMissing", "message": "too few copies"}
            return base.model_copy(update=few), list(write_pages(request.nonce, [entry]))
        told = {name: getattr(entry, name) for name in ("backup_id", "run_identity", "start_time", "completion_time",
                "snapshot_time", "size_bytes", "source_bytes", "checksum", "verified_time")}  # fmt: skip
        told["copies"] = tuple(each.brief for each in entry.copies)
        return base.model_copy(update=told), list(write_pages(request.nonce, [entry]))

    def _restore(self, request: RestoreRequest | UndoRequest, base: Result) -> tuple[Result, list[str]]:
        target = TargetPlan(
            artifact="db",
            kind="postgresql",
            target="postgresql://h/db",
            state="HoldsData",
            found="1 table",
            size_bytes=1,
            source_bytes=1,
            action="replaced",
        )
        digest, following = (self._digest(request, request.plan_number + ahead) for ahead in (0, 1))
        refused = request.mode == "Execute" and request.approved_plan != digest
        plan = Plan(digest=following if refused else digest, targets=(target,), needs_approval=True)
        if isinstance(request, RestoreRequest):
            named = {"backup_id": request.backup.backup_id, "backup_type": request.backup.backup_type}
            plan = plan.model_copy(
                update={**named, "checksum": CHECKSUM, "storage": "s3", "snapshot_time": self.time}
            )
        lines = [write_line(request.nonce, "plan", plan), write_line(request.nonce, "end", {"count": 1})]
        if request.mode == "Plan":
            return base.model_copy(update={"plan_digest": digest}), lines
        if refused:
            return base.model_copy(
                update={"verdict": "Refused", "reason": "PlanChanged", "message": "the target has changed"}
            ), lines
        self.restored.append(request.request_uid)
        if isinstance(request, UndoRequest):
            self.undone.append(request.restore_uid)
        return base, []

    def _digest(self, request: RestoreRequest | UndoRequest, number: int) -> str:
        """Name a plan as the data plane does: by request, number and cluster, and by what is at the target."""
        text = f"{request.cluster_uid}/{request.request_uid}/{number}/{self.plan_changes_once}"
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _request_of(job: Object) -> Request:
    environment = {
        each["name"]: each.get("value", "")
        for each in job["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    text = environment[names.ENV_REQUEST].replace("$$", "$")
    return parse_request(text, environment[names.ENV_REQUEST_SHA256])


def finished(work: Awaitable[T]) -> T:
    """Run what never has to wait: the gateway in memory answers at once, and an event loop would cost more."""
    try:
        next(work.__await__())
    except StopIteration as end:
        value: T = end.value
        return value
    raise AssertionError("something waited")


class Killed(Exception):
    """The operator's process ends here."""


class Writes:
    """Counts what the operator writes into a world, and kills it before one of its writes: that of number ``last``."""

    def __init__(self, world: World, last: int = 0) -> None:
        self.count, self._last = 0, last
        world.gateway.on_write = self._write

    def _write(self) -> None:
        self.count += 1
        if self.count == self._last:
            raise Killed


def undisturbed(
    begin: Callable[[], World], play: Callable[[World], object], came_to: Callable[[World], Object]
) -> tuple[Object, int]:
    """Play a story to its end, and give what it came to and how many writes that took."""
    world = begin()
    writes = Writes(world)
    play(world)
    return came_to(world), writes.count
