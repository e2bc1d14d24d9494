"""Reading artifacts of a committed backup, checked against its metadata. Shared by verify and restore."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from avalanche_backup import layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import ObjectMissing, VerificationFailed
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_backup.pipeline.download import StreamFacts, checked, checked_as_stored
from avalanche_backup.pipeline.encryption import Identity
from avalanche_backup.storage.base import Store

TRAILER = b"-- PostgreSQL database dump complete"
TRAILER_GLOBALS = b"-- PostgreSQL database cluster dump complete"
TRAILER_WITHIN = 512
"""Also the least that a tar ends with in zeros."""
_BEGINNINGS = {"sqlite": b"SQLite format 3\x00", "Custom": b"PGDMP", "Directory": b"toc.dat\x00"}


def facts_of(artifact: ArtifactMetadata) -> StreamFacts:
    """Give what a stored artifact must be."""
    return StreamFacts(
        algorithm=artifact.compression,
        size_bytes=artifact.size_bytes,
        sha256=artifact.sha256,
        source_bytes=artifact.source_bytes,
        source_sha256=artifact.source_sha256,
        encrypted=bool(artifact.recipients),
    )


@dataclass(frozen=True)
class Reader:
    """One backup in one store, and what opens it; no identities are needed where it is not encrypted."""

    store: Store
    found: Found
    identities: Sequence[Identity] = ()

    def key(self, artifact: ArtifactMetadata) -> str:
        """Give where an artifact lies."""
        return layout.folder(self.found.prefix, self.found.metadata.backup_type) + artifact.file

    def decodes(self, artifact: ArtifactMetadata) -> bool:
        """Say whether the plain bytes of an artifact can be had here."""
        return bool(self.identities) or not artifact.recipients


@contextmanager
def open_artifact(reader: Reader, artifact: ArtifactMetadata) -> Iterator[Iterator[bytes]]:
    """Open the plain bytes of an artifact; whoever reads them to the end has one that is whole and complete.

    :raises VerificationFailed: it is missing, damaged, not what the metadata says, or no complete dump; while it is read.
    """
    with (
        open_stored(reader, artifact) as chunks,
        closing(checked(chunks, facts_of(artifact), artifact.file, reader.identities)) as plain,
        closing(_completed(plain, artifact)) as complete,
    ):
        yield complete


@contextmanager
def open_stored(reader: Reader, artifact: ArtifactMetadata) -> Iterator[Iterator[bytes]]:
    """Open an artifact as it is stored.

    :raises VerificationFailed: it is missing.
    """
    try:
        with reader.store.read(reader.key(artifact)) as chunks:
            yield chunks
    except ObjectMissing:
        raise VerificationFailed(
            f"{artifact.file} is missing from the storage", reason="ArtifactMissing"
        ) from None


def read_whole(reader: Reader, artifact: ArtifactMetadata) -> Iterator[int]:
    """Read an artifact to its end, giving the length of each plain chunk.

    One that cannot be opened here is read as it is stored: nothing of the plain bytes is looked at, nor counted.

    :raises VerificationFailed: it is damaged, or no complete dump.
    """
    if not reader.decodes(artifact):
        yield from (0 for _ in read_stored(reader, artifact))
        return
    with open_artifact(reader, artifact) as chunks:
        yield from map(len, chunks)


def read_stored(reader: Reader, artifact: ArtifactMetadata) -> Iterator[int]:
    """Read an artifact as it is stored, giving the length of each chunk: its size and hash are right, no more is known.

    :raises VerificationFailed: it is damaged.
    """
    with open_stored(reader, artifact) as chunks:
        yield from map(len, checked_as_stored(chunks, facts_of(artifact), artifact.file))


def _completed(chunks: Iterator[bytes], artifact: ArtifactMetadata) -> Generator[bytes]:
    """Look at how plain bytes begin and end; the last chunk is given once that is right."""
    first, last, held = b"", b"", b""
    for chunk in chunks:
        if held:
            yield held
        first = first or chunk[:16]
        last = (last + chunk[-TRAILER_WITHIN:])[-TRAILER_WITHIN:]
        held = chunk
    if not _complete(artifact, first, last):
        raise VerificationFailed(
            f"{artifact.file} is whole, and no complete {artifact.kind} artifact", reason="ArtifactIncomplete"
        )
    if held:
        yield held


def _complete(artifact: ArtifactMetadata, first: bytes, last: bytes) -> bool:
    if artifact.role == "index":
        return True
    if artifact.role == "globals":
        return TRAILER_GLOBALS in last
    if artifact.kind == "sqlite":
        return first.startswith(_BEGINNINGS["sqlite"])
    if artifact.kind == "postgresql" and artifact.format != "Directory":
        return first.startswith(_BEGINNINGS["Custom"]) if artifact.format == "Custom" else TRAILER in last
    begins = artifact.kind == "files" or first.startswith(_BEGINNINGS["Directory"])
    return begins and last.endswith(bytes(TRAILER_WITHIN))
