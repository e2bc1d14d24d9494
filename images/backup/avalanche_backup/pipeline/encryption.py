"""Encryption as streams, in the format of age (https://age-encryption.org/v1), by pyrage: ``age -d`` opens what this writes.

A backup is encrypted for *recipients*, public keys, and the run that makes it never has what opens it. It must still
read back and decode what it stored, so each stream gets one recipient more: the public half of an identity that is
generated in memory for this stream, opens the read-back, is written nowhere and is forgotten with the stream. Only the
process that had the plain data anyway could open the artifact that way, and only while it lived.

pyrage works from one file to another, so a thread runs it, and a pipe of the system's, which holds a few dozen KiB,
stands between it and our streams: memory is bounded, and an error on either side ends both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from avalanche_backup.errors import UsageInvalid, VerificationFailed
from avalanche_backup.pipeline import stages
from avalanche_backup.pipeline.compression import Compressor, Output

SUFFIX = ".age"
CHUNK = 64 * 1024
_PRIVATE = "AGE-SECRET-KEY-"


@dataclass(frozen=True)
class Recipient:
    """One public key: ``text`` is ``age1…``, which may be shown to anybody."""

    text: str
    key: Any = field(repr=False, compare=False)


@dataclass(frozen=True)
class Identity:
    """One private key, of which nothing but ``recipient``, the public half, is ever text again."""

    recipient: str
    key: Any = field(repr=False, compare=False)


def parse_recipients(lines: Sequence[str], where: str) -> tuple[Recipient, ...]:
    """Read public keys, one a line, as ``age -R`` does: empty lines and those that begin with ``#`` say nothing.

    :raises UsageInvalid: a line is none, or there is none at all; the text of a line is never in the message, for it
        may be a private key that went astray.
    """
    from pyrage import RecipientError, x25519  # noqa: PLC0415

    found: dict[str, Recipient] = {}
    for number, line in _said(lines):
        if line.upper().startswith(_PRIVATE):
            raise UsageInvalid(
                f"{where}, line {number} is an identity, a private key: put the public key there (`age-keygen -y`), and "
                "make a new pair if others could read it",
                reason="RecipientsInvalid",
            )
        try:
            key = x25519.Recipient.from_str(line)
        except RecipientError:
            raise UsageInvalid(
                f"{where}, line {number} is no age public key: it begins with age1 and has 62 characters",
                reason="RecipientsInvalid",
            ) from None
        found[str(key)] = Recipient(str(key), key)
    if not found:
        raise UsageInvalid(f"{where} holds no age public key (age1…)", reason="RecipientsInvalid")
    return tuple(found.values())


def parse_identities(text: str, where: str) -> tuple[Identity, ...]:
    """Read private keys, one a line, as ``age -i`` does.

    :raises UsageInvalid: a line is none, or there is none at all; the text of a line is never in the message.
    """
    from pyrage import IdentityError, x25519  # noqa: PLC0415

    found = []
    for number, line in _said(text.splitlines()):
        try:
            key = x25519.Identity.from_str(line)
        except IdentityError:
            raise UsageInvalid(
                f"{where}, line {number} is no age identity: it begins with {_PRIVATE}1; one that a passphrase protects "
                "is opened first (`age -d`)",
                reason="IdentityInvalid",
            ) from None
        found.append(_identity(key))
    if not found:
        raise UsageInvalid(f"{where} holds no age identity", reason="IdentityInvalid")
    return tuple(found)


def _said(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, start=1):
        if (stripped := line.strip()) and not stripped.startswith("#"):
            yield number, stripped


def _identity(key: Any) -> Identity:
    return Identity(str(key.to_public()), key)


class Encryptor(Compressor, Protocol):
    """One stream under way; ``identities`` open what it wrote, for the read-back."""

    identities: tuple[Identity, ...]


def encryptor(recipients: Sequence[Recipient], output: Output) -> Encryptor:
    """Begin a stream into ``output``; without recipients it passes through."""
    return _Age(recipients, output) if recipients else _Open(output)


def decrypted(chunks: Iterator[bytes], identities: Sequence[Identity]) -> Generator[bytes]:
    """Give the bytes within an age stream. Close the iterator where it is not read to its end.

    What was changed, cut or added is found within 64 KiB of where that is; nothing of it is given.

    :raises VerificationFailed: it is damaged, ends early, goes on after its end, or none of the identities opens it.
    """
    source = _Source(chunks)
    reader, writer = _pipe()
    thread = _Thread(lambda: _decrypt(source, writer, identities))
    try:
        while chunk := reader.read(CHUNK):
            yield chunk
    finally:
        reader.close()  # a thread that still writes then ends; one that waits for a store which does not answer is left behind
        thread.join(stages.END_SECONDS)
    if source.failure is not None:
        raise source.failure
    if thread.failure is not None:
        raise VerificationFailed(
            "the age stream is damaged or ends early", reason="ArtifactDamaged"
        ) from None


class _Open:
    """No encryption."""

    identities: tuple[Identity, ...] = ()

    def __init__(self, output: Output) -> None:
        self.write: Callable[[bytes | memoryview], None] = output.write

    def finish(self) -> None:
        pass

    def abandon(self) -> None:
        pass


class _Age:
    def __init__(self, recipients: Sequence[Recipient], output: Output) -> None:
        from pyrage import x25519  # noqa: PLC0415

        own = x25519.Identity.generate()
        self.identities: tuple[Identity, ...] = (_identity(own),)
        self._target = _Target(output)
        self._lock = threading.Lock()
        reader, self._pipe = _pipe()
        keys = [*(each.key for each in recipients), own.to_public()]
        self._thread = _Thread(lambda: _encrypt(reader, self._target, keys))

    def write(self, data: bytes | memoryview) -> None:
        try:
            with self._lock:  # against `abandon`, while a compressing thread still writes
                if not self._pipe.closed:
                    self._pipe.write(data)
        except BrokenPipeError:
            self._thread.join()
            raise self._failure() from None

    def finish(self) -> None:
        self._end()
        if self._target.failure is not None or self._thread.failure is not None:
            raise self._failure()

    def abandon(self) -> None:
        self._target.off()
        self._end()

    def _end(self) -> None:
        """Let the thread see the end. Never hangs: it reads until then, or has closed its side of the pipe."""
        with self._lock, suppress(BrokenPipeError):
            self._pipe.close()
        self._thread.join()

    def _failure(self) -> BaseException:
        return self._target.failure or self._thread.failure or RuntimeError("the encryption ended early")


class _Thread(threading.Thread):
    """Runs one function, and keeps what it raised."""

    def __init__(self, work: Callable[[], None]) -> None:
        super().__init__(name="age", daemon=True)
        self._work: Callable[[], None] | None = work
        self.failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Run it."""
        try:
            if self._work is not None:
                self._work()
        except BaseException as error:
            self.failure = error
        finally:
            self._work = None  # keys are let go of


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    """Give both ends. They are opened here, so that a thread that fails at once still closes its own."""
    inner, outer = os.pipe()
    return open(inner, "rb", CHUNK), open(outer, "wb", CHUNK)  # noqa: PTH123 - descriptors, closed by who uses them


def _encrypt(reader: BinaryIO, target: _Target, keys: list[Any]) -> None:
    with reader:
        import pyrage  # noqa: PLC0415

        pyrage.encrypt_io(reader, target, keys)


def _decrypt(source: _Source, writer: BinaryIO, identities: Sequence[Identity]) -> None:
    with writer:
        import pyrage  # noqa: PLC0415

        pyrage.decrypt_io(source, writer, [each.key for each in identities])
        if source.read(1):
            raise ValueError("bytes follow the end of the age stream")


class _Target:
    """What pyrage writes to; keeps the failure itself, for pyrage would keep its text alone. Can be turned off."""

    def __init__(self, output: Output) -> None:
        self._output: Output | None = output
        self.failure: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            if self._output is not None:
                self._output.write(data)
        except BaseException as error:
            self.failure = error
            raise
        return len(data)

    def flush(self) -> None:
        pass

    def off(self) -> None:
        self._output = None


class _Source:
    """What pyrage reads from; keeps the failure itself."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._held = chunks, memoryview(b"")
        self.failure: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            while not self._held:
                if (chunk := next(self._chunks, None)) is None:
                    return b""
                self._held = memoryview(chunk)
        except BaseException as error:
            self.failure = error
            raise
        given, self._held = self._held[:size], self._held[size:]
        return bytes(given)
