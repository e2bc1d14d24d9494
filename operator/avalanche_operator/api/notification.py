"""Who is told what: the channels of a policy, and what became of telling."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_contract.notification import EVENTS, Event
from avalanche_operator.api.common import (
    ApiModel,
    KeyReference,
    Moment,
    Name,
    SourceName,
    Text,
    exactly_one,
    rule,
    rules,
)

SecretKey = Annotated[str, Field(min_length=1, max_length=253)]
Address = Annotated[str, Field(min_length=3, max_length=320, pattern=r'^[^\s@<>,;:"]+@[^\s@<>,;:"]+$')]


class MailCredentials(ApiModel):
    """A Secret with the user and the password of a mail server."""

    name: Name
    """The name of the Secret, in the same namespace."""
    username_key: SecretKey = "username"
    """The key with the user's name."""
    password_key: SecretKey = "password"  # noqa: S105 - a key's name
    """The key with the password."""


class Email(ApiModel):
    """Mail by SMTP. TLS is never given up silently: a server that does not offer what is said here gets no mail."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.tls != 'None' || !has(self.credentialsSecretRef)",
                "a password is never sent without TLS: use StartTLS or TLS, or leave credentialsSecretRef out",
            )
        )
    )

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")]
    """The mail server's name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Its port: 587 for StartTLS, 465 for TLS."""
    tls: Literal["StartTLS", "TLS", "None"] = "StartTLS"
    """`StartTLS` demands it before anything is sent, `TLS` speaks it from the start, `None` is for a relay without login."""
    credentials_secret_ref: MailCredentials | None = None
    """The Secret with user and password; left out, mail is sent without login."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the server, as PEM; left out, the public ones are trusted."""
    sender: Address = Field(alias="from", description="Who writes.")
    to: Annotated[tuple[Address, ...], Field(min_length=1, max_length=16)]
    """Who is written to."""


class UrlsReference(ApiModel):
    """A key of a Secret that holds URLs of apprise, one a line."""

    name: Name
    """The name of the Secret, in the same namespace."""
    key: SecretKey = "urls"
    """The key with the URLs."""


class PolicyNotification(ApiModel):
    """One way to tell people."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("email", "urlsSecretRef"),
                "a notification has exactly one way: email or urlsSecretRef; use one notification for each",
            )
        )
    )

    name: SourceName
    """What it is called in statuses and logs."""
    email: Email | None = None
    """Mail by SMTP."""
    urls_secret_ref: UrlsReference | None = None
    """Chat, push and webhooks, by URLs of apprise: most hold a token, so they lie in a Secret."""
    events: Annotated[tuple[Event, ...], Field(min_length=1, max_length=7)] = EVENTS
    """What is told: a `Failed` run, the first good one after it (`Recovered`), a `Suspect` backup, one whose stored bytes are damaged (`VerificationFailed`), slots without a run (`Missed`), a recovery objective (`ObjectiveMissed`; that it is met again is `Recovered`), a drill that failed (`DrillFailed`)."""


Notifications = Annotated[
    tuple[PolicyNotification, ...],
    Field(
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    ),
]


class NotificationStatus(ApiModel):
    """What became of telling people, once for each occasion."""

    event: Event
    """What they were told of."""
    state: Literal["Pending", "Sent", "NotSent"]
    """`Pending` while a Job of the operator's still has to tell somebody."""
    channels: Annotated[tuple[SourceName, ...], Field(max_length=8)] = ()
    """Who was told; while `Pending`, who still has to be."""
    job: Name | None = None
    """The Job that told them, where the run's own pod could not."""
    slot: Moment | None = None
    """The first slot that was missed; of an objective, when it was found to be missed or met again."""
    message: Text | None = None
    """Why somebody was not told."""
