"""Statuses and the events beside them: an event is written when a condition's reason changes.

The event comes first and is named by what was looked at: killed between the two, the next look finds it written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from avalanche_contract.base import format_time
from avalanche_contract.names import FIELD_MANAGER
from avalanche_operator.kube.conditions import Verdict, find_condition
from avalanche_operator.kube.gateway import Gateway, Object, Refused


def changed(before: Iterable[dict[str, Any]], verdicts: Iterable[Verdict], kind: str) -> Verdict | None:
    """Give the verdict of one condition, where its status or reason is new."""
    verdict = next((each for each in verdicts if each.type == kind), None)
    old = find_condition(before, kind) or {}
    if verdict is None or (old.get("status"), old.get("reason")) == (verdict.status, verdict.reason):
        return None
    return verdict


def news(before: Iterable[dict[str, Any]], verdicts: Iterable[Verdict], *kinds: str) -> Verdict | None:
    """Give the first of some conditions that is new and worth an event: the first kind, or another that is False."""
    known, said = tuple(before), tuple(verdicts)
    told = (changed(known, said, kind) for kind in kinds)
    return next((each for each in told if each and (each.type == kinds[0] or each.status == "False")), None)


def event(about: Object, *, reason: str, message: str, warning: bool, now: datetime) -> Object:
    """Give an Event about an object: the same one for the same version of it."""
    meta = about["metadata"]
    looked_at = f"{meta['uid']}/{meta.get('resourceVersion', '')}"
    digest = hashlib.sha256(f"{looked_at}/{reason}/{message}".encode()).hexdigest()[:16]
    moment = format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name'][:200]}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": FIELD_MANAGER},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }


async def tell(gateway: Gateway, about: Object, verdict: Verdict | None, now: datetime) -> None:
    """Write the event of a changed verdict."""
    if verdict is not None:
        warning = verdict.status == "False" and verdict.reason not in ("Probing", "Pending")
        body = event(about, reason=verdict.reason, message=verdict.message, warning=warning, now=now)
        await gateway.create(body)


async def write_status(
    gateway: Gateway, found: Object, status: Object, *, news: Verdict | None, now: datetime
) -> bool:
    """Write a status where it differs, its event before it; say whether it was written."""
    if status == found.get("status"):
        return False
    with suppress(Refused):  # a quota, or a namespace on its way out: the status counts for more
        await tell(gateway, found, news, now)
    return await gateway.apply_status(found, status) is not None
