"""The channels of a request, what a pod must mount for them, and the Job that tells. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from avalanche_contract import names
from avalanche_contract.notification import Channel, EmailChannel, Notifications, UrlsChannel
from avalanche_contract.request import NotifyRequest, Writer
from avalanche_operator.api.notification import Email, NotificationStatus, PolicyNotification
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.jobs.build import JobPlan, nonce_of
from avalanche_operator.jobs.mounts import Mounts, SecretMount, credential
from avalanche_operator.settings import Settings

Object = dict[str, Any]
DEADLINE_SECONDS = 600
BACKOFF_LIMIT = 2
"""A pod that was evicted is tried again; one that could not tell anybody is not: it tried three times itself."""


def notifications_part(found: Iterable[PolicyNotification], *, retried: bool) -> tuple[Notifications, Mounts]:
    """Give the channels of a request, and their mounts. The operator reads none of those Secrets."""
    parts = [_channel(each) for each in found]
    channels = tuple(channel for channel, _ in parts)
    mounts = Mounts(secrets=tuple(mount for _, each in parts for mount in each))
    return Notifications(channels=channels, retried=retried), mounts


@dataclass(frozen=True)
class Telling:
    """What is told, about which object of ours."""

    owner: Object
    policy: Object
    pending: NotificationStatus
    reason: str
    message: str
    time: datetime
    run_identity: str = ""

    @property
    def job_name(self) -> str:
        """Name the Job: by the Backup, or by the policy, what it is told of, and the slot that was missed."""
        meta = self.owner["metadata"]
        slot = (self.pending.event, self.pending.slot.isoformat()) if self.pending.slot else ()
        return names.child_name(meta["name"], self.owner["kind"], meta["uid"], "notify", *slot)


def notify_job(telling: Telling, settings: Settings) -> JobPlan:
    """Plan the Job that tells those who still have to be told."""
    spec = BackupPolicySpec.model_validate(telling.policy["spec"])
    asked = [each for each in spec.notifications if each.name in telling.pending.channels]
    notifications, mounts = notifications_part(asked, retried=False)
    owner, policy = telling.owner["metadata"], telling.policy["metadata"]
    request = NotifyRequest(
        nonce=nonce_of(owner["uid"], settings.cluster_uid),
        notifications=notifications,
        writer=Writer(
            cluster_uid=settings.cluster_uid,
            namespace=policy["namespace"],
            policy=policy["name"],
            policy_uid=policy["uid"],
        ),
        event=telling.pending.event,
        backup_type=spec.backup_type,
        reason=telling.reason,
        message=telling.message[:1000],
        backup=owner["name"] if telling.owner["kind"] == "Backup" else "",
        run_identity=telling.run_identity,
        time=telling.time,
    )
    return JobPlan(
        name=telling.job_name,
        owner=telling.owner,
        request=request,
        mounts=mounts,
        image=settings.backup_image,
        template=spec.pod_template,
        deadline_seconds=DEADLINE_SECONDS,
        backoff_limit=BACKOFF_LIMIT,
    )


def _channel(found: PolicyNotification) -> tuple[Channel, tuple[SecretMount, ...]]:
    if found.email is not None:
        return _email(found, found.email)
    if found.urls_secret_ref is None:
        raise ValueError(f"notification {found.name} has no way")  # the CRD refuses it
    secret = found.urls_secret_ref
    channel = UrlsChannel(name=found.name, events=found.events, urls=credential(secret.name, secret.key))
    return channel, (SecretMount(secret.name, (secret.key,)),)


def _email(found: PolicyNotification, email: Email) -> tuple[Channel, tuple[SecretMount, ...]]:
    secret, ca = email.credentials_secret_ref, email.ca_secret_ref
    channel = EmailChannel(
        name=found.name,
        events=found.events,
        host=email.host,
        port=email.port,
        tls=email.tls,
        ca_file=str(names.secret_file(ca.name, ca.key)) if ca else None,
        username=credential(secret.name, secret.username_key) if secret else None,
        password=credential(secret.name, secret.password_key) if secret else None,
        sender=email.sender,
        to=email.to,
    )
    keys = (SecretMount(secret.name, (secret.username_key, secret.password_key)),) if secret else ()
    return channel, (*keys, *((SecretMount(ca.name, (ca.key,)),) if ca else ()))
