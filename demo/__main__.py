"""``python -m demo``: exit 0 where everything came back, 1 where anything did not."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import demo
from demo.comparison import table
from demo.steps import DemoFailed
from tests.cluster.layout import ClusterFailed
from tests.e2e.kubectl import CommandFailed


def main() -> int:
    """Run the demo as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Back up, destroy, restore and compare, on a real cluster."
    )
    parser.add_argument("--name", default="avalanche", help="of the cluster (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much data, 1.0 is about 400 MB")
    parser.add_argument("--quiet", action="store_true", help="say only how it ended")
    arguments = parser.parse_args()
    say: Callable[[str], None] = (lambda _: None) if arguments.quiet else _say
    try:
        comparisons = demo.run(arguments.name, arguments.scale, say)
    except (DemoFailed, ClusterFailed, CommandFailed, AssertionError) as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    if arguments.quiet:
        _say(table(comparisons))
    return 0 if comparisons and all(each.equal for each in comparisons) else 1


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
