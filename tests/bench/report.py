"""The figures as Markdown: put between two marks of ``docs/benchmarks.md``, whose other words are a person's."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.scenes import OURS_ZSTD
from tests.bench.targets import DRILL, DRILL_SECONDS, DRILLED, PEAK_MIB, START_SECONDS, TARGETS, Target

BEGIN, END = "<!-- figures of make bench -->\n", "<!-- end of the figures -->"
MIB = 1024 * 1024
Figures = Mapping[str, Any]


def write(page: Path, results: Figures) -> None:
    """Replace the figures of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}")


def markdown(results: Figures) -> str:
    """Write everything: what was measured on, the ratios, and a table for each scene."""
    parts = [
        *_machines(results),
        "### Ratios\n",
        table(("ours", "beside", "step", "ratio", "at most", "reached", "of CPU"), ratios(results)),
        "",
    ]
    for name, scene in results["scenes"].items():
        figures = scene["figures"]
        parts += [
            f"### {name[0].upper()}{name[1:]}\n",
            table(_HEADER, [_row(each, figures[each]) for each in figures]),
            "",
        ]
    return "\n".join(parts)


def ratios(results: Figures) -> list[tuple[str, ...]]:
    """Give a row for each target that was measured: the median of the ratios of each round, their range, and that of processor time.

    Other work on the machine makes the wall time of both longer, and not by the same factor; processor time it disturbs less.
    """
    rows = [row for target in TARGETS if (row := _ratio(results, target))]
    peaks = {
        (name, contender): max(each["peak_bytes"] for each in figures["backup"] + figures["restore"])
        for name, scene in results["scenes"].items()
        for contender, figures in scene["figures"].items()
        if contender.startswith("ours") and contender != DRILL  # its database server is no part of ours
    }
    if peaks:
        (scene, contender), peak = max(peaks.items(), key=lambda item: item[1])
        rows.append((contender, f"peak memory, the most of any scene ({scene})", "both", f"{peak / MIB:.0f} MiB",
                     f"{PEAK_MIB} MiB", _reached(peak / MIB <= PEAK_MIB), ""))  # fmt: skip
    if "start" in results:
        rows.append(_bounded("ours", "start of the process to the first file opened", "backup", results["start"]["seconds"],
                             START_SECONDS))  # fmt: skip
    rows += _drill(results)
    return rows


def _drill(results: Figures) -> list[tuple[str, ...]]:
    """Say how much longer a drill takes than the restore that it proves."""
    figures = results["scenes"].get(DRILLED, {}).get("figures", {})
    if DRILL not in figures:
        return []
    more = [drill["wall_seconds"] - bare["wall_seconds"]
            for drill, bare in zip(figures[DRILL]["restore"], figures[OURS_ZSTD]["restore"], strict=True)]  # fmt: skip
    return [
        _bounded(f"{DRILLED}: {DRILL}", "beyond the bare restore: " + OURS_ZSTD, "drill", more, DRILL_SECONDS)
    ]


def _bounded(ours: str, what: str, step: str, found: Sequence[float], at_most: float) -> tuple[str, ...]:
    median = statistics.median(found)
    shown = f"{median:.2f} s ({min(found):.2f}–{max(found):.2f})"
    return ours, what, step, shown, f"{at_most} s", _reached(median <= at_most), ""


def _ratio(results: Figures, target: Target) -> tuple[str, ...] | None:
    scene = results["scenes"].get(target.scene, {}).get("figures", {})
    if target.ours not in scene or target.beside not in scene:
        return None
    pairs = list(zip(scene[target.ours][target.step], scene[target.beside][target.step], strict=True))
    found = [ours["wall_seconds"] / beside["wall_seconds"] for ours, beside in pairs]
    processor = statistics.median(ours["cpu_seconds"] / beside["cpu_seconds"] for ours, beside in pairs)
    median = statistics.median(found)
    shown = f"{median:.2f} ({min(found):.2f}–{max(found):.2f})"
    return (
        f"{target.scene}: {target.ours}",
        target.beside,
        target.step,
        shown,
        f"{target.at_most:.2f}",
        _reached(median <= target.at_most),
        f"{processor:.2f}",
    )


def _reached(whether: bool) -> str:
    return "yes" if whether else "**no**"


_HEADER = ("", "backup s", "CPU s", "peak MiB", "stored MiB", "restore s", "CPU s", "peak MiB")


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    stored = f"{statistics.median(figures['stored_bytes']) / MIB:.0f}"
    restored = _cells(figures["restore"]) if figures["restore"] else ("", "", "")
    return (name, *_cells(figures["backup"]), stored, *restored)


def _cells(taken: Sequence[Figures]) -> tuple[str, str, str]:
    wall, cpu = (statistics.median(each[key] for each in taken) for key in ("wall_seconds", "cpu_seconds"))
    return f"{wall:.2f}", f"{cpu:.2f}", f"{max(each['peak_bytes'] for each in taken) / MIB:.0f}"


def _machines(results: Figures) -> Iterator[str]:
    """Say on what, when, and how often each scene was measured: one line for those that have it in common."""
    lines: dict[str, list[str]] = {}
    for name, scene in results["scenes"].items():
        rounds = {len(each["backup"]) for each in scene["figures"].values()}
        lines.setdefault(_machine(scene["machine"], " or ".join(map(str, sorted(rounds)))), []).append(name)
    if "start" in results:
        start = results["start"]
        lines.setdefault(_machine(start["machine"], str(len(start["seconds"]))), []).append("start")
    for line, names in lines.items():
        yield f"{', '.join(names)}: {line}\n"


def _machine(machine: Figures, times: str) -> str:
    versions = ", ".join(f"{name} ({version})" for name, version in machine["versions"].items())
    return (
        f"measured {machine['date']} on {machine['processors']} × {machine['processor']}, {machine['memory_gib']} GiB, "
        f"{times} times each. Versions: {versions}."
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table; figures to the right."""
    return "\n".join(_lines(header, rows))


def _lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'|'.join('---' if number == 0 else '---:' for number in range(len(header)))}|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
