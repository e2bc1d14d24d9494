"""What a storage's state is, from what a probe found. Pure."""

from __future__ import annotations

from avalanche_operator.kube.conditions import Verdict

SKEW_SECONDS = 120


def skew_verdict(skew_seconds: int | None) -> Verdict | None:
    """Say that the clocks differ too much; it blocks nothing. Positive: the node's clock is ahead."""
    if skew_seconds is None or abs(skew_seconds) <= SKEW_SECONDS:
        return None
    where = "ahead of" if skew_seconds > 0 else "behind"
    return Verdict(
        "ClockSkew",
        "True",
        "ClockSkew",
        f"the node's clock is {abs(skew_seconds)} seconds {where} the storage's: times of backups and locks are "
        "wrong by as much; synchronise the clocks",
    )
