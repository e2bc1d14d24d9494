"""The Directory format: dumped by several jobs into scratch, kept as one plain tar, and unpacked there to be restored.

The tar holds ``toc.dat`` first, which pg_dump writes last, and the files that it names; ``tar -x`` gives back what
``pg_restore --format=directory`` reads. An archive is hostile input: only such names are unpacked, and only files.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from avalanche_backup import platforms
from avalanche_backup.errors import RestoreRefused, SourceInvalid, SourceUnavailable, VerificationFailed
from avalanche_backup.sources.base import ProgressHook, Sink
from avalanche_backup.sources.entries import ArchiveInvalid, Stream, content, entries, opened
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import explain, tail
from avalanche_backup.sources.postgresql.dump import (
    CHUNK,
    MAGIC_CUSTOM,
    dumping_environment,
    ended,
    pg_dump,
    running,
)
from avalanche_contract.source import PostgresqlSource

TOC = "toc.dat"
LOOK_SECONDS = 0.5
LEAST_FREE = 64 * 1024
"""A disk with fewer bytes left is full."""
_NAME = re.compile(r"toc\.dat|[0-9]{1,10}\.dat|blobs(_[0-9]{1,10})?\.toc|blob_[0-9]{1,10}\.dat")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")


def dump_directory(
    clients: Clients,
    environment: dict[str, str],
    source: PostgresqlSource,
    sink: Sink,
    *,
    scratch: Path,
    progress: ProgressHook,
) -> None:
    """Dump the database by ``source.jobs`` jobs into scratch, then into ``sink``. Each byte counts half, twice.

    :raises SourceUnavailable: pg_dump was killed, failed, or wrote no table of contents.
    :raises SourceInvalid: the server refused, or scratch is full.
    """
    folder = scratch / "directory"
    try:
        _run(clients, environment, source, folder, progress)
        written = _size(folder)
        pack(folder, sink, lambda done: progress((written + done) // 2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pack(folder: Path, sink: Sink, progress: ProgressHook) -> None:
    """Write the files of a folder into ``sink`` as a tar, the table of contents first."""
    names = sorted((each.name for each in folder.iterdir()), key=lambda name: (name != TOC, name))
    output = _Output(sink, progress)
    with tarfile.open(
        fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK, copybufsize=CHUNK
    ) as archive:  # type: ignore[call-overload]
        for name in names:
            with (folder / name).open("rb") as file:
                status = os.fstat(file.fileno())
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = status.st_size, 0o600, int(status.st_mtime)
                archive.addfile(entry, file)


def unpack(chunks: Iterator[bytes], folder: Path, size: int) -> None:
    """Unpack an artifact of ``size`` plain bytes into a new folder beneath scratch, to its checked end.

    :raises RestoreRefused: scratch is full, or the archive holds what pg_dump does not write.
    :raises VerificationFailed: what is stored is damaged.
    """
    folder.mkdir(mode=0o700)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise _full(f"{size} bytes are needed and {free} are free")
    stream, seen = Stream(chunks), False
    try:
        with opened(stream) as archive:
            for entry in entries(archive):
                _unpack_one(stream, entry, folder)
                seen = seen or entry.name == TOC
        stream.drain()
    except ArchiveInvalid as error:
        raise VerificationFailed(
            f"the archive cannot be read: {error}", reason="ArtifactIncomplete"
        ) from None
    except OSError as error:
        if error.errno in _FULL:
            raise _full("the disk is full") from None
        raise
    if not seen:
        raise VerificationFailed(f"the archive has no {TOC}", reason="ArtifactIncomplete")


def _unpack_one(stream: Stream, entry: tarfile.TarInfo, folder: Path) -> None:
    plain = entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not entry.issparse()
    if not (plain and _NAME.fullmatch(entry.name)):
        raise RestoreRefused(
            f"the archive holds {entry.name!r}, which pg_dump does not write", reason="ArchiveInvalid"
        )
    try:
        descriptor = os.open(
            folder / entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | platforms.O_NOFOLLOW, 0o600
        )
    except FileExistsError:
        raise RestoreRefused(
            f"the archive holds {entry.name} twice, which pg_dump does not write", reason="ArchiveInvalid"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        for chunk in content(stream, entry):
            file.write(chunk)


def _run(
    clients: Clients,
    environment: dict[str, str],
    source: PostgresqlSource,
    folder: Path,
    progress: ProgressHook,
) -> None:
    errors = folder.with_suffix(".errors")
    command = [
        *pg_dump(clients, source), "--format=directory", f"--jobs={source.jobs}", "--compress=0", "--no-sync", f"--file={folder}",
    ]  # fmt: skip
    with errors.open("wb") as stderr, running(command, dumping_environment(environment), stderr) as process:
        while True:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(LOOK_SECONDS)
                break
            progress(_size(folder) // 2)
    said = tail(errors)
    if status and _is_full(folder.parent, said):
        raise SourceInvalid(
            f"scratch is full: pg_dump wrote {_size(folder)} bytes and needs room for the whole dump, uncompressed. "
            "Enlarge podTemplate.scratch (without a cluster: TMPDIR), or use format Custom, which needs none",
            reason="ScratchFull",
        )
    if status:
        raise explain(said, ended("pg_dump", status))
    table_of_contents = folder / TOC
    if not (table_of_contents.is_file() and _begins(table_of_contents)):
        raise SourceUnavailable(f"pg_dump ended without error, and wrote no {TOC}", reason="DumpIncomplete")


def _is_full(scratch: Path, said: str) -> bool:
    """Say whether it was scratch that was full, and not the server's disk; pg_dump's last words may not have fitted."""
    left = shutil.disk_usage(scratch).free
    return "from server" not in said and (left < LEAST_FREE or _NO_SPACE.search(said) is not None)


def _begins(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC_CUSTOM)) == MAGIC_CUSTOM


def _size(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    return sum(each.stat().st_size for each in os.scandir(folder))


def _full(how: str) -> RestoreRefused:
    return RestoreRefused(
        f"scratch is full: a Directory artifact is unpacked there before the target is touched, and {how}. "
        "Enlarge podTemplate.scratch (without a cluster: TMPDIR)",
        reason="ScratchFull",
    )


class _Output:
    """A sink as a file that :mod:`tarfile` writes to."""

    def __init__(self, sink: Sink, progress: ProgressHook) -> None:
        self._sink, self._progress, self._done = sink, progress, 0

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self._sink.write(data)
        self._done += len(data)
        self._progress(self._done)
        return len(data)
