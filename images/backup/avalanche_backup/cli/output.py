"""What a person sees: tables, progress, confirmations; and JSON for programs. Colours only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from avalanche_contract.result import Entry, Plan

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_REDRAW_SECONDS = 0.2


def size(count: int) -> str:
    """Write bytes for people: ``17.3 MiB``."""
    value = float(count)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            return f"{value:.3g} {unit}" if unit != "B" else f"{count} B"
        value /= 1024
    return f"{count} B"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in columns, with the header above."""
    widths = [max(len(row[place]) for row in (header, *rows)) for place in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join(lines)


def as_json(document: Any) -> str:
    """Write a document for programs."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def plan_text(plan: Plan) -> str:
    """Show a plan: which backup, and what it would meet."""
    lines = [
        f"Backup    {plan.backup_id}  ({plan.location})",
        f"Data of   {plan.snapshot_time:%Y-%m-%d %H:%M:%S} UTC",
        f"Checksum  {plan.checksum}",
        *([f"Encrypted for {', '.join(plan.recipients)}"] if plan.recipients else []),
        "",
    ]
    for target in plan.targets:
        lines += [
            f"{target.artifact} → {target.target}",
            f"  now there: {target.found}"
            + (f"; in use by {', '.join(target.used_by)}" if target.used_by else ""),
            f"  {target.action} ({size(target.source_bytes)})",
        ]
    return "\n".join(lines)


class ConsoleReport:
    """Reports to a person: one moving line on a terminal, a plain line for each phase elsewhere."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.plans: list[Plan] = []
        self._terminal = sys.stderr.isatty()
        self._drawn = 0.0
        self._step = ("", "")

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Show how far it is."""
        if self._terminal:
            self._draw(phase, source, done_bytes, total_bytes)
        elif (phase, source) != self._step:
            click.echo(f"{phase}{f' {source}' if source else ''} …", err=True)
        self._step = (phase, source)

    def entry(self, entry: Entry) -> None:
        """Keep an entry."""
        self.entries.append(entry)

    def plan(self, plan: Plan) -> None:
        """Keep a plan."""
        self.plans.append(plan)

    def close(self) -> None:
        """Leave the terminal's line clean."""
        if self._terminal and self._drawn:
            click.echo("\r\x1b[K", nl=False, err=True)

    def _draw(self, phase: str, source: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._drawn < _REDRAW_SECONDS and (phase, source) == self._step:
            return
        self._drawn = now
        share = f" {min(99, 100 * done // total)} %" if total else ""
        click.echo(f"\r\x1b[K{phase} {source} {size(done)}{share}", nl=False, err=True)
