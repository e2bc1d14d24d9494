"""``make bench``: measure, print the ratios, write the page and the picture."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench import data, peers, report, scenes, tools
from tests.bench.scenes import Ground
from tests.cluster.layout import PROJECT, cache_root
from tests.cluster.processes import run
from tests.integration import servers

PAGE, PICTURE, KEPT = (PROJECT / "docs" / f"benchmarks.{kind}" for kind in ("md", "svg", "json"))
QUICK = tools.ENVIRONMENTS / "quick.json"
TERMINATED = 143


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    asked = _arguments(words)
    signal.signal(signal.SIGTERM, _terminate)
    scale = data.QUICK if asked.quick else data.FULL
    kept = asked.results or (QUICK if asked.quick else KEPT)
    results = _known(kept)
    os.environ |= peers.S3_ENVIRONMENT  # of a server that lives as long as this
    with _ground(asked.folder, scale) as ground:
        here = machine(ground.tools.versions)
        if "start" in asked.only:
            results["start"] = {"machine": here, "seconds": scenes.start_seconds(ground, asked.rounds)}
        for name in (each for each in scenes.SCENES if each in asked.only):
            scene = scenes.SCENES[name](ground)
            before = _before(results, scene.name, here) if asked.add else {}
            figures = scenes.measured(scene, asked.rounds, before, _say)
            results["scenes"][scene.name] = {"machine": here, "figures": figures}
            _keep(results, kept)
    _keep(results, kept)
    for row in report.ratios(results):
        _say("  ".join(row))
    if not asked.quick:
        _publish(results, kept)


def _terminate(*_: object) -> None:
    """End as on Ctrl-C: what is measured and the servers go with this."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    sys.exit(TERMINATED)


def _before(results: dict[str, Any], scene: str, here: dict[str, Any]) -> dict[str, Any]:
    """Give the figures that more rounds are added to: those of another machine or day are none of this one's."""
    known: dict[str, Any] = results["scenes"].get(scene, {})
    return dict(known["figures"]) if known.get("machine") == here else {}


def _keep(results: dict[str, Any], kept: Path) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(results, indent=1) + "\n")


def _publish(results: dict[str, Any], source: Path) -> None:
    report.write(PAGE, results)
    run(tools.PEERS / "python", "-m", "tests.bench.plot", source, PICTURE, cwd=PROJECT)
    _say(f"written: {PAGE} and {PICTURE}")


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=main.__doc__)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few MB of each, to see that all of it works; no page is written",
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--only", nargs="+", choices=["start", *scenes.SCENES], default=["start", *scenes.SCENES],
                        help="some scenes; the others keep the figures that they have")  # fmt: skip
    parser.add_argument(
        "--add", action="store_true", help="more rounds of what was measured here today, with the same code"
    )
    parser.add_argument("--folder", type=Path, help="where data and backups lie: 12 GiB of a real disk")
    parser.add_argument(
        "--results",
        type=Path,
        help="where the figures are kept, those of scenes that are not measured now as well",
    )
    return parser.parse_args(words)


@contextmanager
def _ground(folder: Path | None, scale: data.Scale) -> Iterator[Ground]:
    found = tools.install(_say)
    made = cache_root() / "bench"
    _say("making what is backed up")
    paths = data.make_files(made, scale), data.make_sqlite(made, scale)
    with (
        tempfile.TemporaryDirectory(prefix="avalanche-bench-", dir=folder) as work,
        servers.server_folder() as server_folder,
        servers.postgres(server_folder) as postgres,
        servers.seaweed(_made(Path(work) / "seaweed")) as seaweed,
    ):
        for each in ("stores", "scratch", "target", "pgbackrest"):
            _made(Path(work) / each)
        seaweed.client().create_bucket(Bucket=scenes.BUCKET)
        data.fill(postgres, scenes.DATABASE, scale)
        yield Ground(Path(work), found, *paths, postgres, seaweed)


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _known(path: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"scenes": {}}
    return known


def machine(versions: dict[str, str]) -> dict[str, Any]:
    """Describe what is measured on, without its name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "processors": os.cpu_count(), "processor": names[0] if names else "",
        "memory_gib": memory + 1, "versions": versions,
    }  # fmt: skip


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
