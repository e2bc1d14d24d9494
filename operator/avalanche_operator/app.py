"""kopf's part: watching. Every event becomes a key in the queue; one idempotent look per kind does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import kopf
import structlog
from aiohttp import web
from kubernetes.aio import client, config

from avalanche_contract import names
from avalanche_operator.api.backup import TERMINAL
from avalanche_operator.backups.reconcile import reconcile as look_at_backup
from avalanche_operator.kube.gateway import RESOURCES, ClusterGateway, Gateway
from avalanche_operator.kube.queue import Key, KeyedQueue
from avalanche_operator.metrics.serve import Scrapes, serve
from avalanche_operator.policies.reconcile import reconcile as look_at_policy
from avalanche_operator.restores.reconcile import reconcile as look_at_restore
from avalanche_operator.settings import Surroundings, from_process
from avalanche_operator.storages.reconcile import reconcile as look_at_storage

RELIST_SECONDS = 600.0
STALLED_SECONDS = 300.0
CHUNK = 200
"""Objects in one answer of a first listing: more of them cost memory, fewer cost time."""
OURS = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
MADE = (("batch", "cronjobs"), ("batch", "jobs"), ("", "pods"))
LOOKS: Mapping[str, Callable[[Key, Surroundings], Awaitable[float | None]]] = {
    "BackupStorage": look_at_storage,
    "BackupPolicy": look_at_policy,
    "Backup": look_at_backup,
    "RestoreRequest": look_at_restore,
}
_LOG = structlog.get_logger()


class Operator:
    """The queue and its workers, and the metrics, on one event loop with kopf's watchers."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.queue = KeyedQueue(self.look)
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics: web.AppRunner | None = None

    async def start(self) -> None:
        """Start the workers, the regular look at everything, and the metrics.

        :raises kopf.PermanentError: the port of the metrics is taken.
        """
        if port := self.around.settings.metrics_port:
            try:
                self._metrics = await serve(Scrapes(self.around), port)
            except OSError as error:
                raise kopf.PermanentError(f"AVALANCHE_METRICS_PORT: {error.strerror}") from None
        self._tasks = [asyncio.create_task(self.queue.work()) for _ in range(self.around.settings.workers)]
        self._tasks.append(asyncio.create_task(self._relist()))

    async def stop(self) -> None:
        """Stop them; whatever they were at, the next start finds out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._metrics:
            await self._metrics.cleanup()

    @property
    def healthy(self) -> bool:
        """Say whether all workers live and nothing waits for too long."""
        return not any(task.done() for task in self._tasks) and self.queue.overdue_seconds < STALLED_SECONDS

    async def look(self, key: Key) -> float | None:
        """Look at one object, and have those looked at that depend on it."""
        again = await LOOKS[key.kind](key, self.around)
        if key.kind == "BackupStorage":
            async for each in self.around.gateway.iterate("BackupPolicy", key.namespace):
                if writes_to(each, key.name):
                    await self.queue.add(key_of("BackupPolicy", each["metadata"]))
        return again

    async def relist(self) -> None:
        """Ask for a look at everything that may still change: a lost event changes nothing."""
        for kind in LOOKS:
            for namespace in self.around.settings.namespaces or (None,):
                try:
                    async for found in self.around.gateway.iterate(kind, namespace):
                        if not (kind == "Backup" and phase_of(found) in TERMINAL):
                            await self.queue.add(key_of(kind, found["metadata"]))
                except Exception as error:
                    _LOG.warning("the regular look could not list", kind=kind, error=type(error).__name__)

    async def _relist(self) -> None:
        while True:
            await asyncio.sleep(RELIST_SECONDS)
            await self.relist()


def key_of(kind: str, meta: Mapping[str, Any]) -> Key:
    """Give the key of an object."""
    return Key(kind, meta["namespace"], meta["name"])


def owner_keys(meta: Mapping[str, Any]) -> list[Key]:
    """Give the keys of whom a Job, CronJob or pod of ours works for."""
    kind = (meta.get("labels") or {}).get(names.LABEL_OWNER_KIND)
    owner = (meta.get("annotations") or {}).get(names.ANNOTATION_OWNER)
    return [Key(str(kind), meta["namespace"], owner)] if kind in LOOKS and owner else []


def concerned(kind: str, body: Mapping[str, Any], *, deleted: bool = False) -> list[Key]:
    """Give the policies whose status tells of a Backup or of a restore; how far a run is, they do not tell."""
    namespace, spec = body["metadata"]["namespace"], body.get("spec") or {}
    if kind == "Backup":
        told = deleted or phase_of(body) in TERMINAL or not phase_of(body)
        return [Key("BackupPolicy", namespace, (spec.get("policyRef") or {}).get("name", ""))] if told else []
    paused = (body.get("status") or {}).get("pausedPolicies") or () if kind == "RestoreRequest" else ()
    return [Key("BackupPolicy", namespace, name) for name in paused]


def writes_to(policy: Mapping[str, Any], storage: str) -> bool:
    """Say whether a policy names a storage."""
    return any(each["storageRef"]["name"] == storage for each in policy["spec"].get("destinations") or ())


def phase_of(body: Mapping[str, Any]) -> str:
    """Give the phase of an object, empty before its first look."""
    return str((body.get("status") or {}).get("phase") or "")


def register(registry: kopf.OperatorRegistry, operators: list[Operator]) -> None:
    """Tell kopf what to watch. ``operators`` holds the one that the start-up makes."""

    @kopf.on.login(registry=registry)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        operators.append(await connect())
        configure(settings, confined=bool(operators[0].around.settings.namespaces))
        await operators[0].start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        for each in operators:
            await each.stop()

    @kopf.on.probe(id="queue", registry=registry)
    def alive(**_: Any) -> str:
        if operators and not operators[0].healthy:
            raise RuntimeError("the queue stands still")
        return "works"

    async def own(kind: str, event: Mapping[str, Any]) -> None:
        body, deleted = event["object"], event["type"] == "DELETED"
        for key in (key_of(kind, body["metadata"]), *concerned(kind, body, deleted=deleted)):
            await operators[0].queue.add(key)

    async def made(meta: Mapping[str, Any], **_: Any) -> None:
        for key in owner_keys(meta):
            await operators[0].queue.add(key)

    for kind in LOOKS:
        _, plural = RESOURCES[kind]
        watch = kopf.on.event(names.GROUP, names.VERSION, plural, id=f"own-{plural}", registry=registry)
        watch(_bound(own, kind))
    for group, plural in MADE:
        kopf.on.event(group, "v1", plural, labels=OURS, id=f"made-{plural}", registry=registry)(made)


def _bound(handler: Callable[..., Awaitable[None]], kind: str) -> Callable[..., Awaitable[None]]:
    async def bound(event: Mapping[str, Any], **_: Any) -> None:
        await handler(kind, event)

    return bound


def configure(settings: kopf.OperatorSettings, *, confined: bool = False) -> None:
    """Keep kopf off users' objects: it only watches, of Jobs and pods ours alone, in answers of bounded size.

    ``confined`` to some namespaces, it may not list namespaces or CRDs of the whole cluster, and does not try.
    """
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.2
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
    settings.watching.chunk_size = CHUNK
    for group, plural in MADE:
        settings.watching.label_selectors[group, plural] = ",".join(f"{k}={v}" for k, v in OURS.items())
    settings.scanning.disabled = confined
    settings.networking.request_timeout = 30


async def connect() -> Operator:
    """Reach the cluster, read the settings, and check that the CRDs are there.

    :raises kopf.PermanentError: something is missing; the text says what.
    """
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        await config.load_kube_config()  # type: ignore[no-untyped-call]
    gateway: Gateway = ClusterGateway(client.ApiClient())
    await check_crds(gateway)
    system = await gateway.get("Namespace", None, "kube-system")
    if system is None:
        raise kopf.PermanentError("the namespace kube-system cannot be read")
    return Operator(Surroundings(gateway, from_process(system["metadata"]["uid"])))


async def check_crds(gateway: Gateway) -> None:
    """Check that the cluster knows the four kinds as this release does.

    :raises kopf.PermanentError: a CRD is missing or older.
    """
    from avalanche_operator.api.generate import crd  # noqa: PLC0415 - needed once
    from avalanche_operator.api.kinds import KINDS  # noqa: PLC0415

    for kind in KINDS:
        wanted = crd(kind)
        found = await gateway.get("CustomResourceDefinition", None, wanted["metadata"]["name"])
        if found is None:
            raise kopf.PermanentError(f"CRD {wanted['metadata']['name']} is missing: kubectl apply -f crds/")
        served: Mapping[str, Any] = next(
            (each for each in found["spec"]["versions"] if each["name"] == names.VERSION), {}
        )
        unknown = sorted(_known(wanted["spec"]["versions"][0]["schema"]) - _known(served.get("schema", {})))
        if unknown:
            raise kopf.PermanentError(
                f"CRD {wanted['metadata']['name']} is older than this operator (it lacks {unknown[0]}): "
                "kubectl apply --server-side -f crds/"
            )


def _known(schema: Mapping[str, Any]) -> set[str]:
    """Give the fields and rules of a schema: without a rule, what it refuses would be taken."""
    return set(_statements(schema.get("openAPIV3Schema", schema), ""))


def _statements(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations") or ():
        yield f"the rule {rule['rule']!r} of {path or 'the object'}"
    for name, each in (schema.get("properties") or {}).items():
        yield f"{path}.{name}"
        yield from _statements(each, f"{path}.{name}")
    for nested in ("items", "additionalProperties"):
        if isinstance(schema.get(nested), Mapping):
            yield from _statements(schema[nested], path)
