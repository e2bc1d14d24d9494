"""How one target is restored: beside it and switched, or in place. Pure.

What comes back is the same either way; the strategy says what the target is meanwhile, and what a kill leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from avalanche_backup.errors import RestoreRefused
from avalanche_backup.sources.base import Kept
from avalanche_contract.request import Strategy


@dataclass(frozen=True)
class Asked:
    """What a request says of strategy; absent is: what suits."""

    strategy: Strategy | None = None
    keep: bool = False


@dataclass(frozen=True)
class Possible:
    """What is known of a Swap of one target."""

    obstacle: str
    """Why it is not possible; empty where it is."""
    suits: bool
    """Whether it is the better way here, where nobody says which."""
    holds_data: bool
    kept: Sequence[Kept] = ()
    kept_bars: bool = False


@dataclass(frozen=True)
class Chosen:
    """The strategy, and why it is that one where nobody asked for it."""

    strategy: Strategy
    reason: str = ""


def choose(asked: Asked, found: Possible, target: str) -> Chosen:
    """Choose what was asked for; else a Swap, where that suits the target and is possible.

    :raises RestoreRefused: a Swap is wanted and not possible, or what an earlier restore kept stands in the way.
    """
    _refuse_over_kept(asked, found, target)
    swap_wanted = asked.strategy == "Swap" or asked.keep
    if swap_wanted and found.obstacle:
        why = "strategy Swap" if asked.strategy == "Swap" else "keepPrevious, which needs a Swap,"
        raise RestoreRefused(
            f"{target}: {why} is not possible: {found.obstacle}. Mend that, or restore in place (strategy InPlace)",
            reason="SwapNotPossible",
        )
    if swap_wanted:
        return Chosen("Swap")
    if asked.strategy == "InPlace":
        return Chosen("InPlace")
    if not found.suits:
        why = "in one transaction as well, and who has it open goes on with it"
        return Chosen("InPlace", why if found.holds_data else "nothing is there that a Swap could spare")
    if found.obstacle:
        return Chosen("InPlace", f"a Swap is not possible: {found.obstacle}")
    spared = ", and the old data stays readable until the switch" if found.holds_data else ""
    return Chosen("Swap", f"all or nothing{spared}")


def _refuse_over_kept(asked: Asked, found: Possible, target: str) -> None:
    kept = [each.name for each in found.kept if not each.unfinished]
    if kept and (asked.keep or found.kept_bars):
        raise RestoreRefused(
            f"{target}: an earlier restore kept {', '.join(kept)} for its undo, and there is one undo at a time: undo that restore, "
            "or remove what it kept",
            reason="PreviousKept",
        )
