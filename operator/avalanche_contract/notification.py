"""Who is told what: the channels of a request, and what became of telling them. A request names where secrets lie."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from avalanche_contract.base import Credential, Lenient, Strict

Event = Literal[
    "Failed", "Recovered", "Suspect", "VerificationFailed", "Missed", "ObjectiveMissed", "DrillFailed"
]
"""What people are told of. ``Recovered`` is the first success after a failure that they were told of."""
EVENTS: tuple[Event, ...] = (
    "Failed",
    "Recovered",
    "Suspect",
    "VerificationFailed",
    "Missed",
    "ObjectiveMissed",
    "DrillFailed",
)
QUIET = timedelta(hours=12)
"""So long the same failure is not told again, however often it happens: a policy may run every minute."""


class EmailChannel(Strict):
    """Mail by SMTP. ``StartTLS`` is demanded where it is said: a server without it gets no mail, and no password."""

    kind: Literal["email"] = "email"
    name: str
    events: tuple[Event, ...] = EVENTS
    host: str
    port: int = 587
    tls: Literal["StartTLS", "TLS", "None"] = "StartTLS"
    ca_file: str | None = None
    username: Credential | str | None = None
    password: Credential | None = None
    sender: str
    to: Annotated[tuple[str, ...], Field(min_length=1)]


class UrlsChannel(Strict):
    """URLs of apprise, one a line of a secret value: most hold a token."""

    kind: Literal["urls"] = "urls"
    name: str
    events: tuple[Event, ...] = EVENTS
    urls: Credential


Channel = Annotated[EmailChannel | UrlsChannel, Field(discriminator="kind")]


class Notifications(Strict):
    """Who is told, and whether a failure that may pass is tried again first: then it is not told yet."""

    channels: tuple[Channel, ...] = ()
    retried: bool = False


class Told(Lenient):
    """What became of telling: names of channels that took the message, and why the others did not."""

    event: Event
    sent: tuple[str, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)
