"""Was it the same before and after? Pure: fingerprints in, comparisons and tables for a person out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SHOWN_DIFFERENCES = 5


@dataclass(frozen=True)
class Comparison:
    """One thing before the disaster and after the restore; ``differences`` names what differs within it."""

    what: str
    before: str
    after: str
    differences: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Say whether it came back as it was."""
        return self.before == self.after


def compare(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Comparison]:
    """Compare two fingerprints name by name, those that only one of them has included."""
    return [
        Comparison(f"{what}: {name}", before.get(name, "absent"), after.get(name, "absent"))
        for name in sorted(before.keys() | after.keys())
    ]


def compare_folders(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[Comparison]:
    """Compare two fingerprints of paths: one comparison for each top-level folder."""
    tops = sorted({name.partition("/")[0] for name in before.keys() | after.keys()})
    return [_folder(what, top, _beneath(before, top), _beneath(after, top)) for top in tops]


def table(comparisons: Sequence[Comparison]) -> str:
    """Lay comparisons out for a person."""
    rows = [
        (each.what, each.before, "equal" if each.equal else f"DIFFERS: {each.after}") for each in comparisons
    ]
    lines = [columns([("WHAT", "BEFORE THE DISASTER", "AFTER THE RESTORE"), *map(_short, rows)])]
    lines += [f"differs: {difference}" for each in comparisons for difference in each.differences]
    equal = sum(each.equal for each in comparisons)
    return "\n".join([*lines, f"{equal} of {len(comparisons)} are equal"])


def durations(taken: Sequence[tuple[str, float]]) -> str:
    """Lay out what took how long."""
    rows = [(title, f"{seconds:7.1f} s") for title, seconds in taken]
    return columns(
        [("WHAT", "    TIME"), *rows, ("together", f"{sum(seconds for _, seconds in taken):7.1f} s")]
    )


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Align rows of equal length, as kubectl does."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _short(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        " ".join(word[:12] if len(word) in (32, 64) else word for word in cell.split(" ")) for cell in row
    )


def _beneath(fingerprint: Mapping[str, str], top: str) -> dict[str, str]:
    return {name: value for name, value in fingerprint.items() if name.partition("/")[0] == top}


def _folder(what: str, top: str, before: Mapping[str, str], after: Mapping[str, str]) -> Comparison:
    differing = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    shown = tuple(f"{name}: {before.get(name, 'absent')} → {after.get(name, 'absent')}" for name in differing)
    return Comparison(f"{what}: {top}/", _summary(before), _summary(after), shown[:SHOWN_DIFFERENCES])


def _summary(fingerprint: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()
    return f"{len(fingerprint)} entries {digest}"
