"""What every kind of source can do: say how it is, be dumped, and be restored.

A source knows its data and nothing of storage. It writes plain, uncompressed bytes of a standard format into a
sink, and raises when anything at all was wrong: the caller finalises an upload only after :meth:`Source.dump`
returned. Failures are :class:`~avalanche_backup.errors.SourceUnavailable` (another try may do) and
:class:`~avalanche_backup.errors.SourceInvalid`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from avalanche_backup.errors import RestoreRefused

ProgressHook = Callable[[int], None]
"""Called with how many source bytes are done so far."""


Proof = Literal["None", "Stored", "Decoded"]
"""What a restore needs of an artifact before it begins, so that a damaged one leaves the target untouched.

``None``: it reads all of it to the checked end before it touches the target. ``Stored``: it is taken back where the end is
wrong, and what a server is told meanwhile must be what was written: every stored byte is hashed. ``Decoded``: what it has
written stays, so that every byte is decoded and hashed as well.
"""


class Sink(Protocol):
    """Where a dump goes."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""


@dataclass(frozen=True)
class Inspection:
    """How a source is, found without reading it whole. ``estimated_bytes`` is for progress alone."""

    version: str
    """``PostgreSQL 17.6``, ``SQLite 3``, ``files``."""
    estimated_bytes: int | None = None
    empty: str = ""
    """Where there is nothing to back up: that, in a sentence. Whether it is a failure, who asks decides."""


@dataclass(frozen=True)
class Dump:
    """What a finished dump says of itself; it goes into the metadata."""

    snapshot_time: datetime
    """The moment of the data."""
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """Counts that a restore and the suspect gate compare: tables, rows where known, entries, bytes."""
    tools: Mapping[str, str] = field(default_factory=dict)
    recreate: Mapping[str, Any] = field(default_factory=dict)
    """What is needed to make the target anew: version, encoding, locale, owner, extensions, settings."""
    warnings: tuple[str, ...] = ()
    empty: str = ""
    """As of :class:`Inspection`: what was there then may have gone."""
    files_included: tuple[str, ...] = ()
    """At most a hundred top-level names: what a person looks for in ``list``."""


@dataclass(frozen=True)
class Beside:
    """A second artifact that a dump writes: the index of files, the globals of a server."""

    role: Literal["index", "globals"]
    suffix: str
    """Of its name: ``_index.ndjson``, ``_globals.sql``."""


@dataclass(frozen=True)
class Incoming:
    """One artifact that comes back: its plain bytes, and what is known of them."""

    chunks: Iterator[bytes]
    """Raises where stored bytes are not what was written; the target must then be as before."""
    artifact: Mapping[str, Any]
    """Its part of the metadata."""
    scratch: Path
    """A folder for it alone."""
    progress: ProgressHook
    paths: tuple[str, ...] = ()
    """A part of files; empty is all."""

    def counted(self) -> Iterator[bytes]:
        """Give the bytes, and tell how many they were."""
        done = 0
        for chunk in self.chunks:
            yield chunk
            done += len(chunk)
            self.progress(done)

    def refuse_part(self) -> None:
        """Refuse paths, for what comes back whole.

        :raises RestoreRefused: there are some.
        """
        if self.paths:
            raise RestoreRefused(
                "paths choose a part of files; a database comes back whole", reason="PathsNotFound"
            )


@dataclass(frozen=True)
class TargetState:
    """What is at the target of a restore."""

    state: Literal["Absent", "Empty", "HoldsData"]
    found: str
    """One sentence for a person."""
    facts: tuple[str, ...] = ()
    """What an approval stands for: all names (tables, top-level paths), sorted; no sizes, no counts."""
    used_by: tuple[str, ...] = ()
    """Who has it open, for a person: ``3 sessions of application``."""
    warnings: tuple[str, ...] = ()
    """What a person should know before approving, each with what to do."""


class Source(Protocol):
    """One source of a backup, or one target of a restore."""

    name: str
    kind: str
    """``postgresql``, ``sqlite``, ``files``."""
    extension: str
    """Of the artifact, before compression: ``.sql``, ``.dump``, ``.sqlite``, ``.tar``."""
    format: str
    """``Plain``, ``Custom``, ``Directory``; empty where there is one only."""
    beside: Beside | None
    """What :meth:`dump` writes into its second sink."""
    target: str
    """What it is, for a person, without secrets: ``postgresql://host:5432/database``."""
    selection: Mapping[str, Any]
    """What of it is chosen, as JSON: backups that chose differently are not compared with each other."""

    def inspect(self, *, estimate: bool = True) -> Inspection:
        """Reach the source and check that it can be dumped; without ``estimate``, read as little as will do."""

    def dump(self, sink: Sink, *, beside: Sink | None, scratch: Path, progress: ProgressHook) -> Dump:
        """Write everything into ``sink``, and what :attr:`beside` says into ``beside``."""

    def inspect_target(self, artifact: Mapping[str, Any]) -> TargetState:
        """Look at what a restore of an artifact into this would meet. Changes nothing.

        ``artifact`` is its part of the metadata.

        :raises RestoreRefused: it cannot be restored here; the message says what to do.
        """

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """Say what of an artifact must have been found right before :meth:`restore` may begin."""

    def restore(self, incoming: Incoming) -> str:
        """Put an artifact in place, and say in one sentence what came back.

        The target ends untouched or fully restored; where neither can be had, it is plainly marked.

        :raises RestoreRefused: the target is untouched.
        :raises RestoreFailed: it is not, and is marked.
        """


@dataclass(frozen=True)
class Kept:
    """What a restore left aside at a target."""

    name: str
    """Where it is, for a person: a database, a file, a folder."""
    switch: str
    """Of the restore that kept it: :func:`avalanche_contract.names.switch_id`."""
    unfinished: bool = False
    """The restore was killed while it switched: an undo leads back, and so does the next restore."""


class Swap(Protocol):
    """A restore beside one target, which then changes places with it: the target is the old one or the new one.

    What a killed one left behind is found and put right by the next restore or undo, before it does anything else.
    """

    target: str
    """What it is, for a person, without secrets."""
    suits: bool
    """Whether it is the better way where nobody says which, and something is there."""
    suits_empty: bool
    """Whether it is that as well where nothing is there yet."""
    kept_bars: bool
    """Whether what an earlier restore kept stands in the way of every other one."""

    def obstacle(self, artifact: Mapping[str, Any], paths: tuple[str, ...]) -> str:
        """Say why it is not possible, rights and room included; empty where it is. Changes nothing."""

    def action(self, artifact: Mapping[str, Any], *, keep: bool) -> str:
        """Say in one sentence what will be done."""

    def kept(self) -> tuple[Kept, ...]:
        """Give what earlier restores left aside, the newest last. Changes nothing."""

    def proof(self, artifact: Mapping[str, Any]) -> Proof:
        """Say what :meth:`Source.proof` says, of this way to restore."""

    def restore(self, incoming: Incoming, *, keep: bool, index: Iterator[bytes] | None = None) -> str:
        """Put an artifact beside the target, check them there, switch, and say what came back.

        ``index`` are the plain lines of a files backup's index; ``keep`` leaves aside what was there.

        :raises RestoreRefused: the target is untouched.
        :raises RestoreFailed: it is the old one, unless the message says otherwise.
        """

    def undo_obstacle(self, kept: Kept) -> str:
        """Say why an undo is not possible; empty where it is. Changes nothing."""

    def standing(self) -> str:
        """Say what is at the target and an undo takes away: what its approval stands for. Changes nothing."""

    def sizes(self, kept: Kept) -> tuple[int, int]:
        """Give how many bytes are at the target, and how many an undo brings back; 0 where that is not cheap to know."""

    def undo(self, kept: Kept) -> str:
        """Let what was kept take its place again; what was restored goes. Say in one sentence what was done.

        :raises RestoreFailed: the target is as it was before, unless the message says otherwise.
        """
