"""The one sender: every channel that wants an event gets it, one that fails stops no other, and nothing is raised."""

from __future__ import annotations

import time
from collections.abc import Callable

from avalanche_backup.errors import Failure
from avalanche_backup.notifications.message import Message, Occurrence, compose
from avalanche_contract.notification import Channel, EmailChannel, Notifications, Told

WHY_MAX = 200


def tell(
    notifications: Notifications,
    happened: Occurrence,
    *,
    tries: int = 1,
    wait: Callable[[], None] = lambda: time.sleep(20),
) -> Told | None:
    """Tell everybody who wants to know; ``None`` where nobody does."""
    wanted = [each for each in notifications.channels if happened.event in each.events]
    if not wanted:
        return None
    message = compose(happened)
    failed: dict[str, str] = {}
    for number in range(tries):
        if number:
            wait()
        asked = [each for each in wanted if number == 0 or each.name in failed]
        results = {each.name: _attempt(each, message) for each in asked}
        failed = {name: why for name, why in results.items() if why is not None}
        if not failed:
            break
    sent = tuple(each.name for each in wanted if each.name not in failed)
    return Told(event=happened.event, sent=sent, failed=failed)


def _attempt(channel: Channel, message: Message) -> str | None:
    """Give why a channel did not take a message, or ``None``."""
    try:
        if isinstance(channel, EmailChannel):
            from avalanche_backup.notifications.email import send_email  # noqa: PLC0415 - most runs tell nobody

            send_email(channel, message)
        else:
            from avalanche_backup.notifications.urls import send_urls  # noqa: PLC0415 - as above

            send_urls(channel, message)
    except Failure as failure:
        return failure.message[:WHY_MAX]
    except Exception as error:
        return f"could not be told: {type(error).__name__}"
    return None
