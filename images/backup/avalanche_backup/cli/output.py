"""What a person sees: tables, progress, confirmations; and JSON for programs. Colours only on a terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import click
import structlog

from avalanche_contract.notification import Told
from avalanche_contract.result import Checked, Decision, Drilled, Entry, Listed, Plan, Unreadable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_REDRAW_SECONDS, _LINE_SECONDS = 0.2, 5.0
_BAR_WIDTH = 30


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
    lines = (
        [
            f"Backup    {plan.backup_id}  ({plan.location})",
            *([f"Data of   {plan.snapshot_time:%Y-%m-%d %H:%M:%S} UTC"] if plan.snapshot_time else []),
            f"Checksum  {plan.checksum}",
            *([f"Encrypted for {', '.join(plan.recipients)}"] if plan.recipients else []),
            *([f"Suspect   {plan.anomaly}"] if plan.anomaly else []),
            "",
        ]
        if plan.backup_id
        else []
    )  # an undo reads no backup
    for target in plan.targets:
        lines += [
            f"{target.artifact} → {target.target}",
            f"  now there: {target.found}"
            + (f"; in use by {', '.join(target.used_by)}" if target.used_by else ""),
            f"  {target.strategy}" + (f" ({target.strategy_reason})" if target.strategy_reason else ""),
            f"  {target.action}" + (f" ({size(target.source_bytes)})" if target.source_bytes else ""),
            *(f"  Warning: {each}" for each in target.warnings),
        ]
    return "\n".join(lines)


class ConsoleReport:
    """Reports to a person by a bar on a terminal, elsewhere to a program by JSON lines; phases go to the log as well."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.plans: list[Plan] = []
        self.decisions: list[Decision] = []
        self.drills: list[Drilled] = []
        self._terminal = sys.stderr.isatty()
        self._told = self._begun = 0.0
        self._step = ("", "")

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Show how far it is: at once where a step begins, then now and then."""
        now, new = time.monotonic(), (phase, source) != self._step
        if new:
            self._step, self._begun = (phase, source), now
            structlog.get_logger().info("progress", phase=phase, source=source)
        if not new and now - self._told < (_REDRAW_SECONDS if self._terminal else _LINE_SECONDS):
            return
        self._told = now
        if self._terminal:
            shown = bar(done_bytes, total_bytes, now - self._begun)
            click.echo(f"\r\x1b[K{phase} {source} {shown}", nl=False, err=True)
        else:
            line = {"event": "progress", "phase": phase, "source": source, "done_bytes": done_bytes,
                    "total_bytes": total_bytes}  # fmt: skip
            click.echo(json.dumps(line, ensure_ascii=False), err=True)

    def entry(self, entry: Entry) -> None:
        """Keep an entry."""
        self.entries.append(entry)

    def plan(self, plan: Plan) -> None:
        """Keep a plan."""
        self.plans.append(plan)

    def told(self, told: Told) -> None:
        """Warn where somebody could not be told; the run is none the worse for it."""
        if told.sent:
            structlog.get_logger().info("notified", occasion=told.event, channels=list(told.sent))
        for channel, why in told.failed.items():
            structlog.get_logger().warning("not notified", occasion=told.event, channel=channel, why=why)
            click.secho(f"warning: notification by {channel}: {why}", fg="yellow", err=True)

    def decision(self, decision: Decision) -> None:
        """Keep a decision."""
        self.decisions.append(decision)

    def checked(self, checked: Checked) -> None:
        """Say what was found of a backup."""
        structlog.get_logger().info("verified", backup=checked.backup_id, status=checked.status)

    def drilled(self, drilled: Drilled) -> None:
        """Keep what a drill came to."""
        self.drills.append(drilled)
        structlog.get_logger().info(
            "drilled", backup=drilled.backup_id, succeeded=drilled.succeeded, seconds=drilled.duration_seconds
        )

    def listed(self, listed: Listed) -> None:
        """Say how much there is."""
        structlog.get_logger().info("listed", backups=len(listed.backup_ids), storages=list(listed.storages))

    def unreadable(self, found: Unreadable) -> None:
        """Warn of a metadata file that says nothing."""
        structlog.get_logger().warning("unreadable", key=found.key, why=found.message)

    def close(self) -> None:
        """Leave the terminal's line clean."""
        if self._terminal and self._told:
            click.echo("\r\x1b[K", nl=False, err=True)


def bar(done: int, total: int | None, seconds: float) -> str:
    """Draw how far a step is: a bar where the end is known, always the bytes and how fast they come."""
    speed = f"{size(done)}, {size(int(done / seconds))}/s" if seconds >= 1 else size(done)
    if not total:
        return speed
    share = min(0.99, done / total)  # the total is an estimate: never full before the end
    filled = int(share * _BAR_WIDTH)
    return f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] {int(share * 100):2d} % {speed}"
