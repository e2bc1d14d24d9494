"""The entries of a tar that may be an attacker's: what :mod:`tarfile` would pass over, follow or choke on is an error.

Nothing is written here. What is refused, and why:

* a damaged or missing header: :mod:`tarfile` takes one for the end, and the rest would be left out in silence;
* a header of more than 192 KiB, or thousands of them for one entry: memory and stack (CVE-2024-6232);
* a header for all entries that follow: it gives them names, sizes and times that no backup has from there;
* sparse entries: a few bytes that become terabytes;
* negative sizes: the reader would go backwards without end (CVE-2025-8194).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK = 1024 * 1024
PATH_MAX_BYTES = 64 * 1024
"""Of a path in an archive: sixteen times what a system call takes."""
HEADER_MAX_BYTES = 3 * PATH_MAX_BYTES
"""Of a path, a link's target and all else that describes one entry."""
_DESCRIBING = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)  # fmt: skip


class ArchiveInvalid(ValueError):
    """The archive is not one that we write; the text says why."""


class Stream:
    """Chunks as a file that is read forwards, for :mod:`tarfile`."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest, self._position = chunks, memoryview(b""), 0

    def read(self, size: int) -> bytes:
        """Give ``size`` bytes, fewer only at the end."""
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Give the next ``size`` bytes as they came, without a copy; fewer only at the end."""
        while size > 0 and (self._rest or self._more()):
            piece, self._rest = self._rest[:size], self._rest[size:]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def tell(self) -> int:
        """Give how many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Pass over what lies before a position, as far as there is something.

        :raises tarfile.ReadError: that would be backwards.
        """
        if position < self._position:
            raise tarfile.ReadError("an entry lies before its own header")
        for _ in self.pieces(position - self._position):
            pass

    def drain(self) -> None:
        """Read on to the end: what was checked last counts too."""
        self._rest = memoryview(b"")
        for _ in self._chunks:
            pass

    def _more(self) -> bool:
        self._rest = memoryview(next(self._chunks, b""))
        return bool(self._rest)


@contextmanager
def opened(stream: Stream) -> Iterator[tarfile.TarFile]:
    """Open a stream of tar, read once from begin to end.

    :raises ArchiveInvalid: it is none.
    """
    try:
        archive = tarfile.open(  # noqa: SIM115 - only opening it is looked at here
            fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape", tarinfo=_Entry  # type: ignore[call-overload]
        )  # fmt: skip
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _invalid(error) from None
    with archive:
        yield archive


def entries(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Give each entry; its :func:`content` is read before the next one is asked for, or passed over.

    :raises ArchiveInvalid: the next entry is not one that we write.
    """
    while (entry := _next(archive)) is not None:
        archive.members.clear()  # type: ignore[attr-defined] # it would keep every entry of a million
        yield entry


def content(stream: Stream, entry: tarfile.TarInfo) -> Iterator[memoryview]:
    """Give the bytes of a file whose header was just read, all of them or an error.

    :raises ArchiveInvalid: the archive ends within it.
    """
    left = entry.size
    for piece in stream.pieces(entry.size):
        left -= len(piece)
        yield piece
    if left:
        raise ArchiveInvalid("the archive ends within a file")


def nanoseconds(entry: tarfile.TarInfo) -> int:
    """Give when an entry was changed, in nanoseconds since 1970, before which it is negative.

    :raises ArchiveInvalid: that is no time that a file can have.
    """
    text = entry.pax_headers.get("mtime", str(int(entry.mtime)))
    whole, _, part = text.removeprefix("-").partition(".")
    if not (whole.isascii() and whole.isdigit() and len(whole) < 12 and (part or "0").isdigit()):
        raise ArchiveInvalid("an entry has no time that a file can have")
    moment = int(whole) * 1_000_000_000 + int((part + "000000000")[:9])
    return -moment if text.startswith("-") else moment


def _next(archive: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        entry = archive.next()
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise _invalid(error) from None
    if entry is not None and entry.size < 0:
        raise ArchiveInvalid("an entry has a negative size")
    return entry


class _Entry(tarfile.TarInfo):
    """A header that is refused where :mod:`tarfile` would take it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Entry:
        try:
            entry = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        if entry.type == tarfile.XGLTYPE:
            raise tarfile.ReadError("a header for all that follows")
        if entry.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{entry.name[:200]!r} is sparse")
        if entry.size < 0:
            raise tarfile.ReadError("an entry has a negative size")
        if entry.type in _DESCRIBING and entry.size > HEADER_MAX_BYTES:
            raise tarfile.ReadError(f"a header of {entry.size} bytes")
        return entry

    def _proc_gnusparse_10(self, *_: object) -> None:
        """Refuse a map of holes that lies in the content and may be of any length."""
        raise tarfile.ReadError("an entry is sparse")


def _invalid(error: Exception) -> ArchiveInvalid:
    if isinstance(error, RecursionError):
        return ArchiveInvalid("an entry has thousands of headers")
    return ArchiveInvalid(str(error)[:200] if isinstance(error, tarfile.TarError) else "a header is damaged")
