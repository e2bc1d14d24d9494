"""The one place that talks to the API server: plain objects in and out, server-side apply, a handful of verbs.

Everything else in the operator takes :class:`Gateway`, so that a small fake with the same behaviour can stand in.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from kubernetes.aio import client

from avalanche_contract.names import CONTAINER, FIELD_MANAGER, GROUP, VERSION

Object = dict[str, Any]
PAGE = 500
_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"
TIMEOUT_SECONDS = 30
LOG_MAX_BYTES = 4 * 1024 * 1024
RESOURCES: Mapping[str, tuple[str, str]] = {
    "BackupStorage": (f"/apis/{GROUP}/{VERSION}", "backupstorages"),
    "BackupPolicy": (f"/apis/{GROUP}/{VERSION}", "backuppolicies"),
    "Backup": (f"/apis/{GROUP}/{VERSION}", "backups"),
    "RestoreRequest": (f"/apis/{GROUP}/{VERSION}", "restorerequests"),
    "CronJob": ("/apis/batch/v1", "cronjobs"),
    "Job": ("/apis/batch/v1", "jobs"),
    "Pod": ("/api/v1", "pods"),
    "Event": ("/api/v1", "events"),
    "Namespace": ("/api/v1", "namespaces"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "CustomResourceDefinition": ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
}


class ApiError(Exception):
    """The API server refused, or did not answer. ``status`` is HTTP's, 0 where there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Refused(ApiError):
    """What was asked is not taken (400, 422) or not allowed (403): asking again gives the same answer."""

    @property
    def mended_by_spec(self) -> bool:
        """Say whether only another object will be taken; what is not allowed may be allowed later."""
        return self.status != HTTPStatus.FORBIDDEN


REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY)


class Gateway(Protocol):
    """What the operator asks of a cluster.

    Each of these raises :class:`Refused` where the API server does not take what it is given, and
    :class:`ApiError` where another try may do.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Read one object; ``None`` where there is none."""

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Read all objects of a kind, of one namespace or of all."""

    def iterate(
        self,
        kind: str,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        """Read them one by one, a page in memory at a time; ``fields`` are the selectable ones of the kind."""

    async def create(self, body: Object) -> Object | None:
        """Create an object; ``None`` where the name is taken."""

    async def apply(self, body: Object) -> Object:
        """Apply an object server-side: what we own becomes as given, what others own stays."""

    async def replace_spec(self, found: Object, spec: Object) -> None:
        """Make the whole spec as given: what others added to it goes. Nothing happens where the object is gone."""

    async def apply_status(self, found: Object, status: Object) -> Object | None:
        """Make a status as given; ``None`` where the object is gone, or is not as it was when ``found`` was read."""

    async def patch(self, kind: str, namespace: str, name: str, change: Object) -> Object | None:
        """Merge a change; ``None`` where the object is gone."""

    async def delete(self, found: Object) -> None:
        """Delete just this object (by UID), and what it owns in the background."""

    async def logs(self, namespace: str, pod: str, *, tail_lines: int | None = None) -> str:
        """Read the log of the backup container; empty where there is none (yet, or any more)."""


class ClusterGateway:
    """The gateway to a real cluster."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    async def get(self, kind: str, namespace: str | None, name: str) -> Object | None:
        """Read one object."""
        return await self._object_or_none("GET", _path(kind, namespace, name))

    async def list(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        """Read all objects of a kind, page by page."""
        return [each async for each in self.iterate(kind, namespace, labels=labels)]

    async def iterate(
        self,
        kind: str,
        namespace: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Object]:
        """Read the objects of a kind, page by page."""
        version = RESOURCES[kind][0].removeprefix("/apis/").removeprefix("/api/")
        selectors = {"labelSelector": _selector(labels), "fieldSelector": _selector(fields)}
        query = {"limit": str(PAGE)} | {name: text for name, text in selectors.items() if text}
        while True:
            page = await self._json("GET", _path(kind, namespace), query)
            for item in page.get("items") or ():
                yield {"apiVersion": version, "kind": kind, **item}
            cursor = page.get("metadata", {}).get("continue")
            if not cursor:
                return
            query["continue"] = cursor

    async def create(self, body: Object) -> Object | None:
        """Create an object."""
        try:
            return await self._json(
                "POST", _path(body["kind"], body["metadata"].get("namespace")), _MANAGED, body
            )
        except ApiError as error:
            if error.status == 409:
                return None
            raise

    async def apply(self, body: Object) -> Object:
        """Apply an object server-side."""
        meta = body["metadata"]
        path = _path(body["kind"], meta.get("namespace"), meta["name"])
        return await self._json("PATCH", path, _FORCED, body, content=_APPLY)

    async def replace_spec(self, found: Object, spec: Object) -> None:
        """Replace the spec of just this object by a JSON patch: the rest of it is left as it is."""
        meta = found["metadata"]
        change = [
            {"op": "test", "path": "/metadata/uid", "value": meta["uid"]},
            {"op": "replace", "path": "/spec", "value": spec},
        ]
        path = _path(found["kind"], meta["namespace"], meta["name"])
        await self._object_or_none("PATCH", path, _MANAGED, change, content=_JSON_PATCH)

    async def apply_status(self, found: Object, status: Object) -> Object | None:
        """Apply a status server-side; the resource version makes it a status of what was looked at.

        A UID would not do: the API server passes over it in the metadata of a status.
        """
        meta = found["metadata"]
        identity = {name: meta[name] for name in ("name", "namespace", "resourceVersion")}
        body = {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "metadata": identity,
            "status": status,
        }
        path = _path(found["kind"], meta["namespace"], meta["name"]) + "/status"
        return await self._object_or_none("PATCH", path, _FORCED, body, content=_APPLY, missing=(404, 409))

    async def patch(self, kind: str, namespace: str, name: str, change: Object) -> Object | None:
        """Merge a change."""
        path = _path(kind, namespace, name)
        return await self._object_or_none(
            "PATCH", path, _MANAGED, change, content="application/merge-patch+json"
        )

    async def delete(self, found: Object) -> None:
        """Delete just this object."""
        meta = found["metadata"]
        body = {"propagationPolicy": "Background", "preconditions": {"uid": meta["uid"]}}
        path = _path(found["kind"], meta.get("namespace"), meta["name"])
        await self._object_or_none("DELETE", path, {}, body, missing=(404, 409))

    async def logs(self, namespace: str, pod: str, *, tail_lines: int | None = None) -> str:
        """Read the log of the backup container."""
        query = {"container": CONTAINER, "limitBytes": str(LOG_MAX_BYTES)}
        query |= {"tailLines": str(tail_lines)} if tail_lines else {}
        try:
            return await self._text("GET", _path("Pod", namespace, pod) + "/log", query)
        except ApiError as error:
            if error.status in (400, 404):
                return ""
            raise

    async def _object_or_none(
        self, method: str, path: str, *call: Any, content: str = _JSON, missing: tuple[int, ...] = (404,)
    ) -> Object | None:
        try:
            return await self._json(method, path, *call, content=content)
        except ApiError as error:
            if error.status in missing:
                return None
            raise

    async def _json(self, method: str, path: str, *call: Any, content: str = _JSON) -> Object:
        found: Object = json.loads(await self._text(method, path, *call, content=content))
        return found

    async def _text(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        *,
        content: str = _JSON,
    ) -> str:
        headers = {
            "Accept": "application/json, */*",
            **({"Content-Type": content} if body is not None else {}),
        }
        prepared: Any = await self._api.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        api: Any = self._api
        try:
            answer = await api.call_api(*prepared, _request_timeout=TIMEOUT_SECONDS)
            data = await answer.read()
        except OSError as error:  # aiohttp's errors of connection, and time-outs
            raise ApiError(0, type(error).__name__) from None
        text = (data or b"").decode(errors="replace")
        if not 200 <= answer.status < 300:
            raise _error(answer.status, _message(text))
        return text


_UNCONVERTIBLE = "unable to convert unstructured object"
_MANAGED = {"fieldManager": FIELD_MANAGER}
_FORCED = {**_MANAGED, "force": "true"}


def _error(status: int, message: str) -> ApiError:
    if _UNCONVERTIBLE in message:  # server-side apply answers 500 where a creation answers 400
        return Refused(HTTPStatus.BAD_REQUEST, message)
    return (Refused if status in REFUSALS else ApiError)(status, message)


def _selector(wanted: Mapping[str, str] | None) -> str:
    return ",".join(f"{name}={value}" for name, value in (wanted or {}).items())


def _path(kind: str, namespace: str | None, name: str = "") -> str:
    base, plural = RESOURCES[kind]
    within = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{base}{within}/{plural}" + (f"/{quote(name)}" if name else "")


def _message(text: str) -> str:
    try:
        found = json.loads(text)
    except ValueError:
        return text[:200]
    return str(found.get("message", ""))[:1000] if isinstance(found, dict) else ""
