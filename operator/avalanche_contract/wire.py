"""A request as text: how it is written into an environment variable, and read from it. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import Any, get_args

from avalanche_contract.request import CONTRACT_VERSION, Request

_MODELS: dict[str, Any] = {each.model_fields["verb"].default: each for each in get_args(get_args(Request)[0])}
"""By verb: a run builds the model of its own request, and of no other."""


class RequestInvalid(ValueError):
    """The request cannot be read: damaged, from another contract, or not what its checksum says."""


def dump_request(request: Request) -> str:
    """Write a request as one line of JSON, the same for equal requests."""
    document = request.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def request_sha256(text: str) -> str:
    """Give the checksum that travels beside a request."""
    return hashlib.sha256(text.encode()).hexdigest()


def escape_environment(text: str) -> str:
    """Write ``$`` so that the kubelet's expansion of ``$(NAME)`` and ``$$`` gives back what was meant."""
    return text.replace("$", "$$")


def unescape_environment(text: str) -> str:
    """Give back what :func:`escape_environment` was given."""
    return text.replace("$$", "$")


def parse_request(text: str, sha256: str | None) -> Request:
    """Read a request, and compare it with the checksum beside it.

    :raises RequestInvalid: with one sentence on what is wrong.
    """
    if sha256 is not None and request_sha256(text) != sha256:
        raise RequestInvalid(
            "the request differs from the checksum beside it: its text was changed on the way"
        )
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise RequestInvalid(f"the request is not JSON: {error}") from None
    version = document.get("contractVersion") if isinstance(document, dict) else None
    if version != CONTRACT_VERSION:
        raise RequestInvalid(
            f"the request has contract version {version}, this image reads {CONTRACT_VERSION}: "
            "run the operator and the backup image of one release"
        )
    try:
        request: Request = _MODELS[document["verb"]].model_validate(document)
    except (KeyError, TypeError):
        raise RequestInvalid(f"the request is not valid: its verb is none of {', '.join(_MODELS)}") from None
    except ValueError as error:
        raise RequestInvalid(f"the request is not valid: {error}") from None
    return request
