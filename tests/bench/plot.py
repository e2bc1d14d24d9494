"""The figures as a picture: a bar for each contender, from the environment that has matplotlib.

Run by the interpreter of that environment: ``python -m tests.bench.plot RESULTS PICTURE``.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "avalanche-backup"  # the same figures are the same file
from matplotlib import pyplot as plt  # noqa: E402 - after the backend was chosen

OURS, UNPROVEN, THEIRS = "#1f6f8b", "#99c1cf", "#b0b0b0"


def draw(results: dict[str, Any], picture: Path) -> None:
    """Draw the median wall time of every backup, a panel for each scene, in the order of the time."""
    scenes = {name: scene["figures"] for name, scene in results["scenes"].items()}
    heights = [len(each) for each in scenes.values()]
    figure, axes = plt.subplots(
        len(scenes), 1, figsize=(9, 0.32 * sum(heights) + 1.1 * len(scenes)), squeeze=False, layout="constrained",
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for [axis], (name, contenders) in zip(axes, scenes.items(), strict=True):
        medians = {each: statistics.median(taken["wall_seconds"] for taken in figures["backup"])
                   for each, figures in contenders.items()}  # fmt: skip
        ordered = sorted(medians, key=lambda each: medians[each], reverse=True)
        colours = [_colour(each) for each in ordered]
        bars = axis.barh(ordered, [medians[each] for each in ordered], color=colours)
        axis.bar_label(bars, fmt="%.1f s", padding=3, fontsize=8)
        axis.set_title(f"Backup of {name}, seconds", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.margins(x=0.1)
    figure.savefig(picture, metadata={"Date": None, "Creator": None})


def _colour(name: str) -> str:
    if not name.startswith("ours"):
        return THEIRS
    return UNPROVEN if "not read back" in name else OURS


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
