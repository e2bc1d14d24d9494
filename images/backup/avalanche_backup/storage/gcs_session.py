"""One resumable upload to Google Cloud Storage, request by request.

The protocol is documented at cloud.google.com/storage/docs/performing-resumable-uploads: bytes that the service has
already are ignored when they are sent again, so a request whose reply was lost is simply repeated; ``308`` tells
how far the service came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import IO, Any

from google.cloud.storage.exceptions import InvalidResponse

from avalanche_backup.storage.answers import CONNECT_SECONDS, READ_SECONDS

_TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)
_PERSISTED = re.compile(r"bytes=0-(\d+)")


class ResumableSession:
    """A session that creates one object, and never replaces one.

    Every method raises what ``requests`` raises, and :class:`InvalidResponse` for an answer that is an error.
    """

    def __init__(self, http: Any, url: str, name: str, metadata: Mapping[str, str]) -> None:
        self._http = http
        query = {"uploadType": "resumable", "name": name, "ifGenerationMatch": "0"}
        answer = http.post(
            url, params=query, json={"name": name, "metadata": dict(metadata)}, timeout=_TIMEOUT,
            headers={"X-Upload-Content-Type": "application/octet-stream"},
        )  # fmt: skip
        self._url = _accepted(answer, 200, 201).headers["Location"]
        self._start = 0
        """Where the part begins that is being sent."""
        self._persisted = 0
        self._number = 0

    def send(self, number: int, body: bytes | IO[bytes]) -> None:
        """Send one part whole, or what the service does not have of it yet. May be repeated with the same part."""
        data = body if isinstance(body, bytes) else body.read()
        if number != self._number:
            self._number, self._start = number, self._persisted
        end = self._start + len(data)
        while self._persisted < end:
            before = self._persisted
            rest = data[before - self._start :]
            found = _accepted(self._put(rest, f"bytes {before}-{end - 1}/*"), 308)
            told = _PERSISTED.match(found.headers.get("Range", ""))
            self._persisted = int(told[1]) + 1 if told else 0
            if not before <= self._persisted <= end or (self._persisted == before and not told):
                raise InvalidResponse(found, "the service lost what it had")

    def finish(self, body: bytes | IO[bytes], crc32c: str) -> dict[str, Any]:
        """Send the last part, and give the object's description."""
        data = body if isinstance(body, bytes) else body.read()
        total = self._persisted + len(data)
        span = f"{self._persisted}-{total - 1}" if data else "*"
        answer = self._put(data, f"bytes {span}/{total}", {"X-Goog-Hash": f"crc32c={crc32c}"})
        found: dict[str, Any] = _accepted(answer, 200, 201).json()
        return found

    def cancel(self) -> None:
        """End the session without an object."""
        self._http.delete(self._url, timeout=_TIMEOUT)

    def _put(self, data: bytes, span: str, more: Mapping[str, str] | None = None) -> Any:
        headers = {"Content-Range": span, "Content-Type": "application/octet-stream", **(more or {})}
        return self._http.put(self._url, data=data, headers=headers, timeout=_TIMEOUT, allow_redirects=False)


def _accepted(answer: Any, *statuses: int) -> Any:
    if answer.status_code not in statuses:
        raise InvalidResponse(answer, f"answered {answer.status_code}")
    return answer
