"""An API server in memory: as much of one as the operator can tell apart. ``contract.py`` says what that is."""

from __future__ import annotations

import itertools
import json
import marshal
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

from avalanche_contract.base import format_time
from avalanche_operator.kube.gateway import Refused

T = TypeVar("T")
Object = dict[str, Any]
Key = tuple[str, str, str]
QUANTITY = re.compile(r"[0-9.]+[a-zA-Z]*")
_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME = re.compile(rf"{_PART}(\.{_PART})*")
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
LENGTHS = {"CronJob": 52, "Job": 63}
"""How long a name may be; of any other kind 253."""


class FakeGateway:
    """Keeps objects in a dictionary; ``on_write`` is called before each change, and may raise.

    ``refusals`` says of a kind why the API server does not take an object of it.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.objects: dict[Key, Object] = {}
        self.pod_logs: dict[str, str] = {}
        self.created: list[Object] = []
        self.on_write: Callable[[], None] = lambda: None
        self.refusals: dict[str, Refused] = {}
        self.listed: Counter[str] = Counter()
        self._now = now
        self._made: Counter[Key] = Counter()
        self._versions = itertools.count(1)

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Read one object."""
        return _copied(self.objects.get((kind, namespace or "", name)))

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Read all objects of a kind."""
        return [each async for each in self.iterate(kind, namespace, labels=labels)]

    async def iterate(
        self,
        kind: str,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        """Read the objects of a kind, one by one."""
        for (a_kind, a_namespace, _), each in sorted(self.objects.items()):
            if a_kind != kind or namespace not in (None, a_namespace):
                continue
            own = (each["metadata"].get("labels") or {}).items()
            if (labels or {}).items() <= own and all(_at(each, *field) for field in (fields or {}).items()):
                self.listed[kind] += 1
                yield _copied(each)

    async def create(self, body: Object) -> Object | None:
        """Create an object; ``None`` where the name is taken."""
        key = _key(body)
        self._check(body)
        if key in self.objects:
            return None
        self.on_write()
        made = _written(body)
        self._stamp(made)
        self.objects[key] = made
        self.created.append(made)
        return _copied(made)

    async def apply(self, body: Object) -> Object:
        """Apply an object; what others own in it stays."""
        there = self.objects.get(_key(body))
        if there is None:
            made = await self.create(body)
            assert made is not None
            return made
        self._check(body)
        merged = _merged(there, _written(body))
        self._replace(there, merged)
        return _copied(self.objects[_key(body)])

    async def replace_spec(self, found: Object, spec: Object) -> None:
        """Make the whole spec as given."""
        there = self.objects.get(_key(found))
        if there is not None:
            self._check(found)
            self._replace(there, {**there, "spec": _written(spec)})

    async def apply_status(self, found: Object, status: Object) -> Object | None:
        """Make a status as given."""
        there = self.objects.get(_key(found))
        if there is None or there["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            return None
        self._replace(there, {**there, "status": _written(status)})
        return _copied(self.objects[_key(found)])

    async def patch(self, kind: str, namespace: str, name: str, change: Object) -> Object | None:
        """Merge a change."""
        there = self.objects.get((kind, namespace, name))
        if there is None:
            return None
        self._replace(there, _merged(there, _written(change), nulls_delete=True))
        return _copied(self.objects[kind, namespace, name])

    async def delete(self, found: Object) -> None:
        """Delete just this object, and what it owns."""
        there = self.objects.get(_key(found))
        if there is None or there["metadata"]["uid"] != found["metadata"]["uid"]:
            return
        self.on_write()
        self._drop(there)

    async def logs(self, namespace: str, pod: str, *, tail_lines: int | None = None) -> str:
        """Read a pod's log."""
        del namespace
        lines = self.pod_logs.get(pod, "").splitlines(keepends=True)
        return "".join(lines[-tail_lines:] if tail_lines else lines)

    def put(self, body: Object) -> Object:
        """Write an object as somebody else would: a person, or a controller of Kubernetes."""
        key = _key(body)
        self.objects[key] = _written(body)
        self._stamp(self.objects[key])
        return self.objects[key]

    def _check(self, body: Object) -> None:
        if body["kind"] in self.refusals:
            raise self.refusals[body["kind"]]
        kind, name = body["kind"], body["metadata"]["name"]
        if not NAME.fullmatch(name) or len(name) > LENGTHS.get(kind, 253):
            raise Refused(422, f"{kind} {name!r} is invalid: metadata.name: Invalid value")
        for label in (body["metadata"].get("labels") or {}).values():
            if not LABEL.fullmatch(label) or len(label) > 63:
                raise Refused(422, f"{kind} {name!r} is invalid: metadata.labels: Invalid value: {label!r}")
        if any(not QUANTITY.fullmatch(str(each)) for each in _quantities(body)):
            raise Refused(400, "quantities must match the regular expression")

    def _stamp(self, made: Object) -> None:
        meta = made["metadata"]
        self._made[_key(made)] += 1
        meta.setdefault("uid", str(uuid5(NAMESPACE_OID, f"{_key(made)}/{self._made[_key(made)]}")))
        meta.setdefault("creationTimestamp", format_time(self._now()))
        meta.setdefault("generation", 1)
        meta["resourceVersion"] = str(next(self._versions))

    def _replace(self, there: Object, wanted: Object) -> None:
        if wanted == there:
            return
        self.on_write()
        if wanted.get("spec") != there.get("spec"):
            wanted["metadata"]["generation"] = there["metadata"]["generation"] + 1
        meta = {**wanted["metadata"], "resourceVersion": str(next(self._versions))}
        self.objects[_key(there)] = {**wanted, "metadata": meta}

    def _drop(self, there: Object) -> None:
        del self.objects[_key(there)]
        uid = there["metadata"]["uid"]
        for each in list(self.objects.values()):
            if any(owner["uid"] == uid for owner in each["metadata"].get("ownerReferences") or ()):
                self._drop(each)


def _key(body: Object) -> Key:
    return body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]


def _quantities(body: Object) -> list[Any]:
    """Give the limits of a CronJob's containers."""
    if body["kind"] != "CronJob":
        return []
    containers = body["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return [each for one in containers for each in one.get("resources", {}).get("limits", {}).values()]


def _at(body: Object, path: str, wanted: str) -> bool:
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return bool(value == wanted)


def _merged(old: Any, new: Any, *, nulls_delete: bool = False) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    merged = {**old}
    for name, value in new.items():
        if value is None and nulls_delete:
            merged.pop(name, None)
        else:
            merged[name] = _merged(old.get(name), value, nulls_delete=nulls_delete)
    return merged


def _written(value: T) -> T:
    """Copy as the wire does: what is no JSON does not come through."""
    copied: T = json.loads(json.dumps(value))
    return copied


def _copied(value: T) -> T:
    """Copy what came through before, several times as fast."""
    copied: T = marshal.loads(marshal.dumps(value))  # type: ignore[arg-type]  # noqa: S302 - our own
    return copied
