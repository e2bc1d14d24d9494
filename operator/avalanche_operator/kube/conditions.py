"""Conditions as kstatus reads them: a reason and a sentence, and a transition time that moves only with the status."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from avalanche_contract.base import format_time

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True)
class Verdict:
    """What a decision says of one condition; ``reason`` is CamelCase, ``message`` a sentence."""

    type: str
    status: Status
    reason: str
    message: str = ""


def merge_conditions(
    before: Iterable[dict[str, Any]], verdicts: Iterable[Verdict], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Write verdicts over the conditions of before; what is no longer said is gone."""
    known = {each["type"]: each for each in before}
    return [_condition(known.get(verdict.type), verdict, generation, now) for verdict in verdicts]


def _condition(
    before: dict[str, Any] | None, verdict: Verdict, generation: int, now: datetime
) -> dict[str, Any]:
    same = before is not None and before.get("status") == verdict.status
    return {
        "type": verdict.type,
        "status": verdict.status,
        "reason": verdict.reason,
        "message": verdict.message[:1024],
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if before and same else format_time(now),
    }


def ready(verdict: Verdict, *, stalled: bool = False) -> tuple[Verdict, ...]:
    """Give Ready together with the two conditions that kstatus looks at first."""
    if verdict.status == "True":
        return (verdict,)
    if stalled:
        return (verdict, Verdict("Stalled", "True", verdict.reason, verdict.message))
    return (verdict, Verdict("Reconciling", "True", verdict.reason, verdict.message))


def find_condition(conditions: Iterable[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """Give one condition."""
    return next((each for each in conditions if each["type"] == kind), None)
