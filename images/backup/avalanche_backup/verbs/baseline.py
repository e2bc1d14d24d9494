"""What is usual for the sources of a run: read from the last verified backups in the same folder.

The folder is what counts, not the policy's UID: a policy that was made anew beside an emptied volume is compared with
what the one before it backed up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from avalanche_backup import catalog
from avalanche_backup.anomaly import BASELINE, SEVERITY, Finding, Measured, changed, comparable, judge
from avalanche_backup.catalog import Found
from avalanche_backup.errors import SourceInvalid
from avalanche_backup.holds import read_hold
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_backup.pipeline.fanout import Destination, living
from avalanche_backup.sources.base import Dump, Inspection, Source
from avalanche_backup.verbs.destinations import attempt
from avalanche_contract.names import BACKUP_TYPES, BackupType

Baseline = Mapping[str, Sequence[Measured]]
"""By the name of a source, the newest backup first."""


def read(destinations: Sequence[Destination], now: datetime) -> Baseline:
    """Read what the last good backups counted, in the first destination that has any.

    :raises Failure: no destination answers.
    """
    found: list[Found] = []

    def look(each: Destination) -> None:
        if not found:
            found.extend(one for kind in BACKUP_TYPES for one in _good(each, kind, now))

    attempt(destinations, look)
    living(destinations)
    return _by_source(sorted(found, key=lambda each: each.metadata.snapshot_time, reverse=True))


def refuse_empty(source: Source, found: Inspection | Dump, baseline: Baseline) -> None:
    """Refuse an empty source of which there is no backup to compare with: most likely it is the wrong one.

    :raises SourceInvalid: it is.
    """
    if found.empty and not comparable(source.selection, baseline.get(source.name, ())):
        raise SourceInvalid(found.empty, reason="SourceEmpty")


def look_wrong(
    artifacts: Sequence[ArtifactMetadata], baseline: Baseline, max_shrink_percent: int
) -> list[Finding]:
    """Say which sources of a backup that was just stored look wrong, the worst first."""
    findings = []
    for artifact in artifacts:
        now = measured(artifact)
        before = comparable(artifact.selection or {}, baseline.get(artifact.source, ()))
        findings.append(judge(artifact.source, now, before, max_shrink_percent))
    return sorted(
        (each for each in findings if each is not None), key=lambda each: SEVERITY.index(each.reason)
    )


def not_compared(artifacts: Sequence[ArtifactMetadata], baseline: Baseline) -> list[str]:
    """Say of which sources something else was chosen than before."""
    told = (changed(each.source, each.selection or {}, baseline.get(each.source, ())) for each in artifacts)
    return [each for each in told if each is not None]


def measured(artifact: ArtifactMetadata) -> Measured:
    """Give what the metadata of one artifact counts; what an earlier release did not count is left out.

    Rows of PostgreSQL are not among it: its statistics lag, and are lost by a crash. They are in the size of the dump.
    """
    counts = artifact.statistics
    if artifact.kind == "files":
        things = {"files": _sum(counts, "files", "links")}
        sizes = {"bytes": _sum(counts, "bytes")}
    elif artifact.kind == "sqlite":
        rows = counts.get("tables")
        tables = rows if isinstance(rows, dict) else {}
        things = {"tables": len(tables), "rows": _sum(tables, *tables)}
        sizes = {"bytes": _sum(counts, "bytes")} if "bytes" in counts else {}
    else:
        things = {"tables": _sum(counts, "tables"), "large objects": _sum(counts, "large_objects")}
        sizes = {f"bytes of the {artifact.format} dump": artifact.source_bytes}
    return Measured(things, sizes, artifact.selection)


def _sum(counts: Mapping[str, object], *names: str) -> int:
    """Add up; the metadata may hold anything."""
    return sum(value for name in names if isinstance(value := counts.get(name), int) and value > 0)


def _by_source(found: Sequence[Found]) -> Baseline:
    """Sort by source. An accepted anomaly is the new baseline: nothing that is older counts for its sources."""
    baseline: dict[str, list[Measured]] = {}
    closed: set[str] = set()
    for each in found:
        for artifact in each.metadata.artifacts:
            if artifact.role == "data" and artifact.source not in closed:
                baseline.setdefault(artifact.source, []).append(measured(artifact))
                if any(anomaly.source == artifact.source for anomaly in each.metadata.anomalies):
                    closed.add(artifact.source)
    return baseline


def _good(place: Destination, kind: BackupType, now: datetime) -> Iterator[Found]:
    """Give the last good backups of one type; suspect ones are passed over, however many there are."""
    keys = catalog.metadata_keys(place.store, place.prefix, (kind,))
    given = 0
    for key in sorted(keys, reverse=True):
        found = catalog.read_one(place.store, key)
        if not isinstance(found, Found) or found.metadata.completion_time > now or not _counts(place, found):
            continue
        yield found
        given += 1
        if given == BASELINE:
            return


def _counts(place: Destination, found: Found) -> bool:
    metadata = found.metadata
    if catalog.verification_of(found) != "Verified":
        return False
    if metadata.status == "succeeded":
        return True
    return read_hold(place.store, place.prefix, metadata.backup_id).anomaly_accepted
