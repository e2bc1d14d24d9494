"""Whether a backup looks wrong although nothing failed. Pure: what was counted, now and before, in; a finding out.

Compared is each source by itself, with the median of the last verified backups of it. What a person chose differently
(other paths, schemas, patterns) is another thing, and no shrink: it begins anew, and a warning says so. What is left
over from no backup at all is not judged here: an empty source that never had anything is a failure, not a suspicion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Reason = Literal["TablesGone", "SourceEmptied", "Shrunken"]
SEVERITY: tuple[Reason, ...] = ("TablesGone", "SourceEmptied", "Shrunken")
"""The worst first: what a backup is called by where several sources look wrong."""
BASELINE = 5
"""How many backups the median is of, at most."""
TABLES = "tables"


@dataclass(frozen=True)
class Measured:
    """What one backup counts of one source."""

    things: Mapping[str, int]
    """By what a person calls them: ``tables``, ``rows``, ``files``. Where all are 0, there is nothing."""
    sizes: Mapping[str, int]
    """In bytes. Only what has one name is compared: a Custom dump is no smaller Plain one."""
    selection: Mapping[str, Any] | None = None
    """What of the source was chosen; ``None`` where a backup of an earlier release does not say, which fits any."""

    @property
    def is_empty(self) -> bool:
        """Say whether nothing was there."""
        return not any(self.things.values())


@dataclass(frozen=True)
class Finding:
    """Why a backup is suspect, for one source."""

    source: str
    reason: Reason
    message: str


def comparable(selection: Mapping[str, Any], before: Sequence[Measured]) -> tuple[Measured, ...]:
    """Give of the earlier backups of a source, the newest first, those that chose the same of it."""
    return tuple(each for each in before if each.selection is None or each.selection == selection)[:BASELINE]


def judge(source: str, now: Measured, before: Sequence[Measured], max_shrink_percent: int) -> Finding | None:
    """Say what is wrong with a backup of a source, or ``None``; ``before`` is what :func:`comparable` gave.

    A percentage of 100 compares no amounts; what was emptied is found all the same.
    """
    if not before:
        return None
    tables = max(each.things.get(TABLES, 0) for each in before)
    if TABLES in now.things and not now.things[TABLES] and tables:
        return Finding(source, "TablesGone", f"{source} has no table any more, it had {tables}")
    if now.is_empty and not all(each.is_empty for each in before):
        return Finding(source, "SourceEmptied", f"{source} is empty, it had {_counted(before)}")
    shrunken = [
        told for name, count in (*now.things.items(), *now.sizes.items())
        if (told := _shrunken(name, count, before, max_shrink_percent)) is not None
    ]  # fmt: skip
    return Finding(source, "Shrunken", f"{source} shrank: {'; '.join(shrunken)}") if shrunken else None


def changed(source: str, selection: Mapping[str, Any], before: Sequence[Measured]) -> str | None:
    """Say that something else is chosen of a source than in any backup before, so that nothing is compared."""
    known = next((each.selection for each in before if each.selection is not None), None)
    if known is None or comparable(selection, before):
        return None
    names = sorted(name for name in {*known, *selection} if known.get(name) != selection.get(name))
    return (
        f"{source}: {', '.join(names)} changed since the last backup, so this one is compared with none before; see "
        "that it holds what you need"
    )


def _shrunken(name: str, count: int, before: Sequence[Measured], most: int) -> str | None:
    known = [{**each.things, **each.sizes}[name] for each in before if name in {**each.things, **each.sizes}]
    usual = median(known) if known else 0
    if (usual - count) * 100 <= most * usual:
        return None
    less = int((usual - count) * 100 / usual)
    return (
        f"{count} {name}, {less} % less than the {int(usual)} that are usual (the median of {len(known)} verified "
        f"backups), and more than {most} % is not expected"
    )


def _counted(before: Sequence[Measured]) -> str:
    last = next(each for each in before if not each.is_empty)
    return " and ".join(f"{count} {name}" for name, count in last.things.items() if count)
