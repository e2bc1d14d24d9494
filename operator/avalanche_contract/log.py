"""Lines of ours in a container's log: progress while it runs, pages of longer answers at its end.

A line is ``@avalanche:<nonce>:<kind> <JSON>``. File names and child processes reach the log too; they cannot
know the nonce, and everything else that is logged is JSON, in which a name cannot begin a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import ValidationError

from avalanche_contract.base import Lenient
from avalanche_contract.result import Checked, Decision, Drilled, Entry, Listed, Plan, Unreadable

LineKind = Literal[
    "progress", "entry", "plan", "decision", "checked", "listed", "unreadable", "drilled", "end"
]


class Progress(Lenient):
    """How far a run is; ``total_bytes`` is an estimate, where there is one."""

    phase: str
    """``Running`` or ``Verifying`` of a backup; ``Checking``, ``Restoring`` or ``Verifying`` of a restore."""
    source: str = ""
    done_bytes: int = 0
    total_bytes: int | None = None


class Answer(Lenient):
    """Everything of ours that a log held."""

    progress: Progress | None = None
    entries: tuple[Entry, ...] = ()
    plan: Plan | None = None
    decisions: tuple[Decision, ...] = ()
    checked: tuple[Checked, ...] = ()
    listed: tuple[Listed, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    drilled: Drilled | None = None
    complete: bool = False
    """The closing line was there, and counts what was read."""


def write_line(nonce: str, kind: LineKind, document: Lenient | dict[str, Any]) -> str:
    """Write one line, without its end."""
    plain = (
        document
        if isinstance(document, dict)
        else document.model_dump(mode="json", by_alias=True, exclude_none=True)
    )
    return f"@avalanche:{nonce}:{kind} {json.dumps(plain, separators=(',', ':'))}"


def write_pages(nonce: str, entries: Iterable[Entry]) -> Iterator[str]:
    """Write entries, one a line, and the closing line that counts them."""
    count = 0
    for count, entry in enumerate(entries, start=1):  # noqa: B007 - counted for the closing line
        yield write_line(nonce, "entry", entry)
    yield write_line(nonce, "end", {"count": count})


def read_log(lines: Iterable[str], nonce: str) -> Answer:
    """Read our lines out of a log, in one pass; what does not parse is somebody else's."""
    progress: Progress | None = None
    plan: Plan | None = None
    entries: list[Entry] = []
    decisions: list[Decision] = []
    checked: list[Checked] = []
    listed: list[Listed] = []
    unreadable: list[Unreadable] = []
    drilled: Drilled | None = None
    complete = False
    for kind, document in _ours(lines, nonce):
        try:
            if kind == "progress":
                progress = Progress.model_validate(document)
            elif kind == "entry":
                entries.append(Entry.model_validate(document))
            elif kind == "plan":
                plan = Plan.model_validate(document)
            elif kind == "decision":
                decisions.append(Decision.model_validate(document))
            elif kind == "checked":
                checked.append(Checked.model_validate(document))
            elif kind == "listed":
                listed.append(Listed.model_validate(document))
            elif kind == "unreadable":
                unreadable.append(Unreadable.model_validate(document))
            elif kind == "drilled":
                drilled = Drilled.model_validate(document)
            elif kind == "end":
                answers = (entries, decisions, checked, listed, unreadable)
                count = sum(len(each) for each in answers) + (plan is not None) + (drilled is not None)
                complete = document.get("count") == count
        except ValidationError:
            continue
    return Answer(
        progress=progress,
        entries=tuple(entries),
        plan=plan,
        decisions=tuple(decisions),
        checked=tuple(checked),
        listed=tuple(listed),
        unreadable=tuple(unreadable),
        drilled=drilled,
        complete=complete,
    )


def _ours(lines: Iterable[str], nonce: str) -> Iterator[tuple[str, dict[str, Any]]]:
    mark = f"@avalanche:{nonce}:"
    for line in lines:
        if not line.startswith(mark):
            continue
        kind, _, text = line[len(mark) :].partition(" ")
        try:
            document = json.loads(text)
        except ValueError:
            continue
        if isinstance(document, dict):
            yield kind, document
