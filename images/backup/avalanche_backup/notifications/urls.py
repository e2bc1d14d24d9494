"""URLs of apprise: chat, push, webhooks and a hundred more. Most hold a token, so only their scheme is ever named."""

from __future__ import annotations

import re

from avalanche_backup.credentials import read_credential
from avalanche_backup.errors import NotificationFailed
from avalanche_backup.notifications.message import Message
from avalanche_contract.notification import UrlsChannel

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]{0,30})://")


def send_urls(channel: UrlsChannel, message: Message) -> None:
    """Send to every URL; one that fails stops no other.

    :raises NotificationFailed: some were not taken; it names them by their place and scheme.
    :raises CredentialsMissing: there are none.
    """
    lines = [line.strip() for line in read_credential(channel.urls).splitlines()]
    urls = [line for line in lines if line and not line.startswith("#")]
    failed = [
        f"URL {number} ({_scheme(url)})"
        for number, url in enumerate(urls, start=1)
        if not _taken(url, message)
    ]
    if failed or not urls:
        raise NotificationFailed(f"not delivered: {', '.join(failed) or 'there is no URL'}")


def _taken(url: str, message: Message) -> bool:
    import apprise  # noqa: PLC0415 - it takes half a second to load, and most runs tell nothing

    asset = apprise.AppriseAsset(
        app_id="Avalanche Backup", app_desc="Avalanche Backup", secure_logging=True,
        storage_mode=apprise.PersistentStoreMode.MEMORY,
    )  # fmt: skip
    target = apprise.Apprise(asset=asset)
    try:
        return bool(
            target.add(url)
            and target.notify(title=message.subject, body=message.body, body_format=apprise.NotifyFormat.TEXT)
        )
    except Exception:
        return False  # whatever it was: its text may hold the URL


def _scheme(url: str) -> str:
    found = _SCHEME.match(url)
    return f"{found[1].lower()}://" if found else "no URL"
