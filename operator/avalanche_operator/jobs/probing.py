"""When to probe, and what a probe's end says. Pure.

Every probe is a Job with a number in its name, so that a restarted operator finds the one under way. A good answer
lasts an hour; a bad one is asked again soon, so that what was mended is noticed without anybody's doing.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from avalanche_operator.api.common import ProbeStatus
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.kube.gateway import Refused

AGAIN_SECONDS = 3600.0
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0
DEADLINE_SECONDS = 120


def next_probe(status: ProbeStatus | None, fingerprint: str, now: datetime) -> tuple[int, float]:
    """Give the number of the next probe, and in how many seconds it is due; 0 is now."""
    if status is None:
        return 1, 0.0
    if status.fingerprint != fingerprint or status.last_time is None:
        return status.number + 1, 0.0
    failures = status.failures
    wait = (
        AGAIN_SECONDS
        if not failures
        else min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10))
    )
    due = status.last_time + timedelta(seconds=wait)
    return status.number + 1, max(0.0, (due - now).total_seconds())


def recorded(
    status: ProbeStatus | None, number: int, fingerprint: str, outcome: Outcome, now: datetime
) -> ProbeStatus:
    """Give what is remembered of a probe that ended."""
    before = status.failures if status is not None and status.fingerprint == fingerprint else 0
    verdict = verdict_of(outcome)
    return ProbeStatus(
        number=number,
        fingerprint=fingerprint,
        failures=0 if usable(outcome) else before + 1,
        last_time=now,
        reason=verdict.reason[:128],
        message=verdict.message[:1024],
    )


def known(status: ProbeStatus | None, fingerprint: str, waiting: str) -> Verdict:
    """Repeat what the last probe of this very request said, whatever stood in the way since; else ``waiting``."""
    if status is None or status.fingerprint != fingerprint or status.last_time is None:
        return Verdict("Ready", "Unknown", "Probing", waiting)
    if status.failures:
        return Verdict("Ready", "False", status.reason or "ProbeFailed", status.message)
    return Verdict("Ready", "True", "Usable", status.message)


def refused(error: Refused) -> Verdict:
    """Say that the API server does not take what a spec comes to."""
    if error.mended_by_spec:
        return Verdict("Ready", "False", "InvalidSpec", f"Kubernetes refuses it: {error.message}")
    return Verdict("Ready", "False", "Forbidden", f"Kubernetes does not allow it: {error.message}")


def usable(outcome: Outcome) -> bool:
    """Say whether a probe found everything in order."""
    return outcome.result is not None and outcome.result.verdict == "Succeeded"


def verdict_of(outcome: Outcome) -> Verdict:
    """Say what a probe's end means for Ready."""
    if usable(outcome):
        return Verdict("Ready", "True", "Usable", outcome.message)
    return Verdict("Ready", "False", outcome.reason or "ProbeFailed", outcome.message)
