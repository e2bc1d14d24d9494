"""A backup that is not read back: what the proof costs is measured against this, and the product has no such way."""

from __future__ import annotations

from avalanche_backup.job import main as run_job
from avalanche_backup.pipeline.fanout import _Branch


def main() -> int:
    """Run the request of the environment."""

    def believed(branch: _Branch, *_: object, decode: bool) -> None:
        branch.decoded = branch.decoded or decode

    _Branch.read_back = believed  # type: ignore[assignment, method-assign]
    return run_job()
