"""From a source of the request to the code that reads it. Each kind is loaded only when it is opened."""

from __future__ import annotations

from pathlib import Path

from avalanche_backup.errors import SourceInvalid
from avalanche_backup.platforms import walks_by_descriptor
from avalanche_backup.sources.base import Source, Swap
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.source import Source as SourceRequest


def open_source(request: SourceRequest, scratch: Path) -> Source:
    """Open a source; nothing is asked of it yet. ``scratch`` is a folder for it alone."""
    match request:
        case PostgresqlSource():
            from avalanche_backup.sources.postgresql import PostgresqlDatabase  # noqa: PLC0415

            return PostgresqlDatabase(request, scratch)
        case SqliteSource():
            from avalanche_backup.sources.sqlite import SqliteDatabase  # noqa: PLC0415

            return SqliteDatabase(request)
        case FilesSource():
            if not walks_by_descriptor():
                raise SourceInvalid(
                    "files cannot be backed up on this system: it cannot open a tree without following links (Windows); "
                    "run it where the files are mounted on Linux, in WSL or a container",
                    reason="PlatformUnsupported",
                )
            from avalanche_backup.sources.files import FileTree  # noqa: PLC0415

            return FileTree(request)


def open_swap(request: SourceRequest, scratch: Path, switch: str) -> Swap:
    """Open what restores beside a target and changes places with it; nothing is asked of it yet.

    ``switch`` marks what it makes: :func:`avalanche_contract.names.switch_id`.
    """
    match request:
        case PostgresqlSource():
            from avalanche_backup.sources.postgresql.swap import PostgresqlSwap  # noqa: PLC0415

            return PostgresqlSwap(request, scratch, switch)
        case SqliteSource():
            from avalanche_backup.sources.sqlite_swap import SqliteSwap  # noqa: PLC0415

            return SqliteSwap(request, switch)
        case FilesSource():
            from avalanche_backup.sources.files_swap import FilesSwap  # noqa: PLC0415

            return FilesSwap(request, switch)
