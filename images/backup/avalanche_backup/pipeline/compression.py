"""Compression as streams: what goes in comes out compressed at a sink, and back as checked chunks.

gzip by isal, several times as fast as zlib, in threads; zstd by its own threads. Both write what Debian's ``gzip``
and ``zstd`` read. The libraries are loaded when they are needed.

Levels: ISA-L has few of them, so gzip's 1–3, 4–6 and 7–9 are its 1, 2 and 3 (its 0 would make data that does not compress
a fifth longer); zstd's are its own. Data that does not compress is not paid for twice: both find it out by themselves,
block by block, store it as it is and are then faster than on text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, Protocol

from avalanche_backup.errors import VerificationFailed

Algorithm = Literal["Gzip", "Zstd", "None"]
SUFFIX: dict[Algorithm, str] = {"Gzip": ".gz", "Zstd": ".zst", "None": ""}
DECODED_CHUNK = 1024 * 1024
THREADS = 2
ZSTD_DEFAULT = 3
ZSTD_THREADED_MAX = 12
"""Above this level each zstd thread needs about 100 MiB, and a pod has 256: one thread is all."""
ZSTD_JOB = 2 * 1024 * 1024
"""What one zstd thread takes at a time. Its own choice is four times as much, which keeps 75 MiB more and stores no byte less."""
ZSTD_WINDOW_LOG_MAX = 27
"""A window of 128 MiB is what ``zstd -d`` accepts by default: more would be a bomb."""


class Output(Protocol):
    """Where compressed bytes go."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""


class Compressor(Protocol):
    """One stream under way."""

    def write(self, data: bytes | memoryview) -> None:
        """Take the next plain bytes."""

    def finish(self) -> None:
        """Write what is left; afterwards the stream is whole."""

    def abandon(self) -> None:
        """Stop, and let go of threads. Never raises."""


def compressor(algorithm: Algorithm, level: int | None, output: Output) -> Compressor:
    """Begin a stream into ``output``."""
    if algorithm == "Gzip":
        return _Gzip(output, level)
    if algorithm == "Zstd":
        return _Zstd(output, level)
    return _Plain(output)


def decompressed(algorithm: Algorithm, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Give the plain bytes of a stored stream.

    :raises VerificationFailed: it is damaged, ends early, or goes on after its end.
    """
    if algorithm == "None":
        return chunks
    return _gunzip(chunks) if algorithm == "Gzip" else _unzstd(chunks)


class _Plain:
    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, data: bytes | memoryview) -> None:
        self._output.write(data)

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Switch:
    """What the compressing thread writes to: can be turned off, so that an abandoned stream ends quietly."""

    def __init__(self, output: Output) -> None:
        self._output: Output | None = output

    def write(self, data: bytes) -> int:
        if self._output is not None:
            self._output.write(data)
        return len(data)

    def flush(self) -> None:
        pass

    def off(self) -> None:
        self._output = None


class _Gzip:
    def __init__(self, output: Output, level: int | None) -> None:
        from isal import igzip_threaded  # noqa: PLC0415

        self._switch = _Switch(output)
        effort = 1 if level is None else min(3, max(1, (level + 2) // 3))
        self._file: Any = igzip_threaded.open(  # type: ignore[no-untyped-call]
            self._switch, "wb", compresslevel=effort, threads=THREADS
        )

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)

    def finish(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        self._switch.off()
        with suppress(Exception):  # the failure that led here is the one to tell
            self._file.close()


class _Zstd:
    def __init__(self, output: Output, level: int | None) -> None:
        zstd, effort = _zstd(), level or ZSTD_DEFAULT
        threads = THREADS if effort <= ZSTD_THREADED_MAX else 1
        options = {zstd.CompressionParameter.compression_level: effort, zstd.CompressionParameter.nb_workers: threads,
                   zstd.CompressionParameter.job_size: ZSTD_JOB, zstd.CompressionParameter.checksum_flag: 1}  # fmt: skip
        self._output = output
        self._compressor: Any = zstd.ZstdCompressor(options=options)

    def write(self, data: bytes | memoryview) -> None:
        if made := self._compressor.compress(data):
            self._output.write(made)

    def finish(self) -> None:
        last = self._compressor.flush(self._compressor.FLUSH_FRAME)
        self.abandon()
        self._output.write(last)

    def abandon(self) -> None:
        self._compressor = (
            None  # its windows and jobs are half of our memory, and reading back needs the room
        )


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found]  # noqa: PLC0415 - Python 3.14 and later
    except ImportError:
        from backports import zstd  # noqa: PLC0415
    return zstd


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    from isal import isal_zlib  # noqa: PLC0415

    decoder = isal_zlib.decompressobj(wbits=31)
    damaged: Any = isal_zlib.error
    began = False
    try:
        for chunk in chunks:
            began, data = True, chunk
            while data:
                if decoder.eof:
                    raise VerificationFailed(
                        "bytes follow the end of the gzip stream", reason="ArtifactDamaged"
                    )
                yield decoder.decompress(data, DECODED_CHUNK)
                data = decoder.unconsumed_tail or decoder.unused_data
    except damaged as error:
        raise VerificationFailed(f"the gzip stream is damaged: {error}", reason="ArtifactDamaged") from None
    if not began or not decoder.eof:
        raise VerificationFailed("the gzip stream ends early", reason="ArtifactTruncated")


def _unzstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    zstd = _zstd()
    decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})
    try:
        for chunk in chunks:
            if decoder.eof:
                raise VerificationFailed("bytes follow the end of the zstd stream", reason="ArtifactDamaged")
            yield decoder.decompress(chunk, DECODED_CHUNK)
            while not decoder.needs_input and not decoder.eof:
                yield decoder.decompress(b"", DECODED_CHUNK)
    except zstd.ZstdError as error:
        raise VerificationFailed(f"the zstd stream is damaged: {error}", reason="ArtifactDamaged") from None
    if not decoder.eof:
        raise VerificationFailed("the zstd stream ends early", reason="ArtifactTruncated")
    if decoder.unused_data:
        raise VerificationFailed("bytes follow the end of the zstd stream", reason="ArtifactDamaged")
