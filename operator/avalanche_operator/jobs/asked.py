"""What a Job was asked: its own request, read back. The resource that it came from may have changed since. Pure."""

from __future__ import annotations

from typing import Any

from avalanche_contract.names import CONTAINER, ENV_REQUEST, ENV_REQUEST_SHA256
from avalanche_contract.request import BackupRequest, Request
from avalanche_contract.wire import RequestInvalid, parse_request, unescape_environment

Object = dict[str, Any]


def request_of(job: Object) -> Request | None:
    """Give the request of a Job; ``None`` where it has none that can be read."""
    containers = job["spec"].get("template", {}).get("spec", {}).get("containers") or ()
    own: Object = next((each for each in containers if each["name"] == CONTAINER), {})
    environment = {each["name"]: each.get("value") for each in own.get("env") or ()}
    try:
        return parse_request(
            unescape_environment(environment.get(ENV_REQUEST) or ""), environment.get(ENV_REQUEST_SHA256)
        )
    except RequestInvalid:
        return None


def backup_of(job: Object) -> BackupRequest | None:
    """Give the request of a Job that backs up: it says where to."""
    request = request_of(job)
    return request if isinstance(request, BackupRequest) else None
