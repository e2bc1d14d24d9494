"""What services over HTTP answer, and what that means: one table a service, one way to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from avalanche_backup.errors import (
    CredentialsMissing,
    Failure,
    ObjectExists,
    ObjectMissing,
    StorageInvalid,
    StorageUnavailable,
)

CONNECT_SECONDS = 10
READ_SECONDS = 60
"""Of silence, not of the whole transfer."""
TRIES = 5
"""How often the SDKs try one request, with growing waits in between: about 15 seconds of them."""
DAMAGED = "BodyDamaged"
"""The reason of a body that arrived as something else than was sent: another try may do."""
EXPIRED = ("CredentialsExpired", "the credentials have expired: renew them")
FULL = ("StorageFull", "the store does not take objects of this size")
_PASSING = (408, 410, 429)
"""Statuses below 500 after which another try may do."""


@dataclass(frozen=True)
class Answers:
    """What the codes of one service mean; a status stands for itself (``"404"``), where no code says more."""

    name: str
    """The storage, for messages."""
    place: str
    """``bucket backups``."""
    taken: frozenset[str]
    missing: frozenset[str]
    refused: Mapping[str, tuple[str, str]]
    """Code to (reason, what to do): it will refuse again."""
    again: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Code to (reason, what happened): another try may do."""

    def failure(self, code: str, status: int, key: str) -> Failure:
        """Turn an answer into one of our failures. Nothing of its body is in the message, but the code."""
        for told in filter(None, (code, str(status))):
            if told in self.again:
                reason, happened = self.again[told]
                return StorageUnavailable(f"storage {self.name}, {self.place}: {happened}", reason=reason)
            if told in self.refused:
                reason, remedy = self.refused[told]
                return StorageInvalid(f"storage {self.name}, {self.place}: {remedy}", reason=reason)
            if told in self.taken:
                return ObjectExists(f"{self.name}: {key} is there already")
            if told in self.missing:
                return ObjectMissing(f"{self.name}: there is no object {key}")
        if 400 <= status < 500 and status not in _PASSING:
            return StorageInvalid(f"storage {self.name}: refused with {code or status} at {key}")
        return StorageUnavailable(f"storage {self.name}: answered {code or status or 'nothing'} at {key}")


_ABOUT_A_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "doesn't match")
"""What OpenSSL says, and what urllib3 says where it compares the host itself."""


def broken_off(name: str, error: Exception, otherwise: str) -> Failure:
    """Tell a certificate that is wrong from a line that broke; no connection is ever made without checking it."""
    if any(words in str(error) for words in _ABOUT_A_CERTIFICATE):
        return StorageInvalid(
            f"storage {name}: the certificate of the endpoint is not valid: expired, for another host, or of an authority "
            "that is not known here; name the authority",
            reason="CertificateInvalid",
        )
    return StorageUnavailable(f"storage {name}: {otherwise}")


def check_authority(name: str, ca_file: str | None) -> None:
    """Say that the certificate authority is missing, before an SDK says something else.

    :raises CredentialsMissing: it is.
    """
    if ca_file is None:
        return
    try:
        known = "BEGIN CERTIFICATE" in Path(ca_file).read_text(errors="replace")
    except OSError:
        known = False
    if not known:
        raise CredentialsMissing(
            f"storage {name}: the certificate authority {ca_file} is missing, or is not PEM"
        )
