"""Throwaway targets, one kind each: made empty, restored into, compared with what the metadata counts, asked, removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from avalanche_backup.errors import DrillFailed
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_backup.sources import index, sqlite_question
from avalanche_backup.sources.reaching import remove_tree
from avalanche_backup.verbs.artifacts import Reader, open_artifact
from avalanche_contract.source import FilesSource, PostgresqlSource, Source, SqliteSource


@dataclass(frozen=True)
class Target:
    """Where one artifact is restored to."""

    source: Source
    compare: Callable[[], str]
    """Say what came back; raises where it is not what the metadata says."""
    ask: Callable[[str, int], str | None] | None = None
    """Answer a question within some seconds; absent where there is no database."""
    hints: tuple[str, ...] = ()
    """For a person, where it is kept: how to look into it, and how to be rid of it."""
    note: str = ""


@contextmanager
def made(
    reader: Reader, artifact: ArtifactMetadata, folder: Path, *, superuser: bool, keep: bool
) -> Iterator[Target]:
    """Make the target of one artifact in a folder, and leave nothing of it; with ``keep``, leave it where nothing failed.

    :raises DrillFailed: it cannot be made.
    """
    if artifact.kind == "postgresql":
        with _server(artifact, folder, superuser=superuser, keep=keep) as target:
            yield target
        return
    place = folder / f"{artifact.kind}-{artifact.source}"
    left = False
    try:
        place.mkdir(parents=True)
        yield _sqlite(artifact, place) if artifact.kind == "sqlite" else _files(reader, artifact, place)
        left = keep
    finally:
        if not left:
            remove_tree(place)


@contextmanager
def _server(artifact: ArtifactMetadata, folder: Path, *, superuser: bool, keep: bool) -> Iterator[Target]:
    from avalanche_backup.sources.postgresql.throwaway import (  # noqa: PLC0415 - not on every system
        Throwaway,
        throwaway,
    )

    def compare(server: Throwaway) -> str:
        found = server.contents(artifact.model_dump())
        for what in ("tables", "large_objects"):
            wanted = int(artifact.statistics.get(what) or 0)
            if int(found[what]) < wanted:
                named = what.replace("_", " ")
                raise DrillFailed(
                    f"{found[what]} {named} came back, and the backup counts {wanted}", reason="TablesDiffer"
                )
        return f"{found['tables']} tables in PostgreSQL {server.version}"

    with throwaway(artifact.model_dump(), folder, superuser=superuser, keep=keep) as server:
        request: PostgresqlSource = server.source.model_copy(update={"name": artifact.source})
        yield Target(
            source=request,
            compare=lambda: compare(server),
            ask=server.ask,
            hints=(f"connect: {server.connect}", f"stop and remove: {server.stop}"),
            note=server.note,
        )


def _sqlite(artifact: ArtifactMetadata, place: Path) -> Target:
    path = place / "restored.sqlite"

    def compare() -> str:
        answer = sqlite_question.ask(path, "PRAGMA integrity_check(1)", seconds=3600)
        if answer != "ok":
            raise DrillFailed(f"integrity_check says {answer}", reason="IntegrityFailed")
        tables = sqlite_question.ask(
            path, "SELECT count(*) FROM sqlite_master WHERE type = 'table'", seconds=60
        )
        return f"{tables} tables in SQLite, integrity_check ok"

    return Target(
        source=SqliteSource(name=artifact.source, path=str(path), described="the throwaway database"),
        compare=compare,
        ask=lambda sql, seconds: sqlite_question.ask(path, sql, seconds),
        hints=(f"open: sqlite3 {path}", f"remove: rm -r {place}"),
    )


def _files(reader: Reader, artifact: ArtifactMetadata, place: Path) -> Target:
    beside = next(
        (
            each
            for each in reader.found.metadata.artifacts
            if each.role == "index" and each.source == artifact.source
        ),
        None,
    )

    def compare() -> str:
        if beside is None:
            raise DrillFailed("the backup has no index to compare with", reason="IndexInvalid")
        with open_artifact(reader, beside) as chunks:
            count = index.compare(place, chunks)
        return f"{count} files, folders and links as in the index"

    return Target(
        source=FilesSource(name=artifact.source, root=str(place), described="the throwaway folder"),
        compare=compare,
        hints=(f"look into: {place}", f"remove: rm -r {place}"),
    )
