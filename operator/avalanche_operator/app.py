"""kopf's part: watching. Every event becomes a key in the queue; one idempotent look per kind does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf
import structlog
from kubernetes.aio import client, config

from avalanche_contract import names
from avalanche_operator.backups.reconcile import reconcile as look_at_backup
from avalanche_operator.kube.gateway import RESOURCES, ClusterGateway, Gateway
from avalanche_operator.kube.queue import Key, KeyedQueue
from avalanche_operator.policies.reconcile import reconcile as look_at_policy
from avalanche_operator.restores.reconcile import reconcile as look_at_restore
from avalanche_operator.settings import Surroundings, from_process
from avalanche_operator.storages.reconcile import reconcile as look_at_storage

RELIST_SECONDS = 600.0
STALLED_SECONDS = 300.0
OURS = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER}
LOOKS: Mapping[str, Callable[[Key, Surroundings], Awaitable[float | None]]] = {
    "BackupStorage": look_at_storage,
    "BackupPolicy": look_at_policy,
    "Backup": look_at_backup,
    "RestoreRequest": look_at_restore,
}
_LOG = structlog.get_logger()


class Operator:
    """The queue and its workers, on one event loop with kopf's watchers."""

    def __init__(self, around: Surroundings) -> None:
        self.around = around
        self.queue = KeyedQueue(self._look)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the workers and the regular look at everything."""
        self._tasks = [asyncio.create_task(self.queue.work()) for _ in range(self.around.settings.workers)]
        self._tasks.append(asyncio.create_task(self._relist()))

    async def stop(self) -> None:
        """Stop them; whatever they were at, the next start finds out."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def healthy(self) -> bool:
        """Say whether all workers live and nothing waits for too long."""
        return not any(task.done() for task in self._tasks) and self.queue.overdue_seconds < STALLED_SECONDS

    async def _look(self, key: Key) -> float | None:
        return await LOOKS[key.kind](key, self.around)

    async def _relist(self) -> None:
        """Look at everything now and then: a lost event changes nothing."""
        while True:
            await asyncio.sleep(RELIST_SECONDS)
            for kind in LOOKS:
                try:
                    for found in await self.around.gateway.list(kind, None):
                        await self.queue.add(key_of(kind, found["metadata"]))
                except Exception as error:
                    _LOG.warning("the regular look could not list", kind=kind, error=type(error).__name__)


def key_of(kind: str, meta: Mapping[str, Any]) -> Key:
    """Give the key of an object."""
    return Key(kind, meta["namespace"], meta["name"])


def owner_keys(meta: Mapping[str, Any]) -> list[Key]:
    """Give the keys of whom a Job, CronJob or pod of ours works for."""
    kind = (meta.get("labels") or {}).get(names.LABEL_OWNER_KIND)
    owner = (meta.get("annotations") or {}).get(names.ANNOTATION_OWNER)
    return [Key(str(kind), meta["namespace"], owner)] if kind in LOOKS and owner else []


def concerned(kind: str, body: Mapping[str, Any]) -> list[Key]:
    """Give the policies whose status tells of a Backup or of a restore."""
    namespace, spec = body["metadata"]["namespace"], body.get("spec") or {}
    if kind == "Backup":
        return [Key("BackupPolicy", namespace, (spec.get("policyRef") or {}).get("name", ""))]
    paused = (body.get("status") or {}).get("pausedPolicies") or () if kind == "RestoreRequest" else ()
    return [Key("BackupPolicy", namespace, name) for name in paused]


def register(registry: kopf.OperatorRegistry, operators: list[Operator]) -> None:
    """Tell kopf what to watch. ``operators`` holds the one that the start-up makes."""

    @kopf.on.login(registry=registry)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**given) or kopf.login_with_kubeconfig(**given)

    @kopf.on.startup(registry=registry)
    async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        operators.append(await connect())
        operators[0].start()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        for each in operators:
            await each.stop()

    @kopf.on.probe(id="queue", registry=registry)
    def alive(**_: Any) -> str:
        if operators and not operators[0].healthy:
            raise RuntimeError("the queue stands still")
        return "works"

    async def own(kind: str, body: Mapping[str, Any]) -> None:
        for key in (key_of(kind, body["metadata"]), *concerned(kind, body)):
            await operators[0].queue.add(key)

    async def made(meta: Mapping[str, Any], **_: Any) -> None:
        for key in owner_keys(meta):
            await operators[0].queue.add(key)

    for kind in LOOKS:
        _, plural = RESOURCES[kind]
        watch = kopf.on.event(names.GROUP, names.VERSION, plural, id=f"own-{plural}", registry=registry)
        watch(_bound(own, kind))
    for group, plural in (("batch", "cronjobs"), ("batch", "jobs"), ("", "pods")):
        kopf.on.event(group, "v1", plural, labels=OURS, id=f"made-{plural}", registry=registry)(made)


def _bound(handler: Callable[..., Awaitable[None]], kind: str) -> Callable[..., Awaitable[None]]:
    async def bound(body: Mapping[str, Any], **_: Any) -> None:
        await handler(kind, body)

    return bound


def configure(settings: kopf.OperatorSettings) -> None:
    """Keep kopf off users' objects: it only watches."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.2
    settings.watching.server_timeout = 270
    settings.watching.client_timeout = 300
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
        unknown = _fields(wanted["spec"]["versions"][0]["schema"]) - _fields(served.get("schema", {}))
        if unknown:
            raise kopf.PermanentError(
                f"CRD {wanted['metadata']['name']} is older than this operator (it lacks {sorted(unknown)[0]}): "
                "kubectl apply --server-side -f crds/"
            )


def _fields(schema: Mapping[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    schema = schema.get("openAPIV3Schema", schema)
    for name, each in (schema.get("properties") or {}).items():
        found |= {f"{path}.{name}"} | _fields(each, f"{path}.{name}")
    items = schema.get("items")
    return found | (_fields(items, path) if isinstance(items, Mapping) else set())
