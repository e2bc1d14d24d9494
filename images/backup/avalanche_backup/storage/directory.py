"""A folder as a store: a mounted claim, or a disk.

An object is written beside its place under a hidden name, synced, and linked to its name: ``link(2)`` refuses a
name that is taken, so two writers cannot both win, and a reader never sees a part.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from avalanche_backup import platforms
from avalanche_backup.errors import Failure, ObjectExists, ObjectMissing, StorageInvalid, StorageUnavailable
from avalanche_backup.storage import belonging
from avalanche_backup.storage.base import CHUNK, ObjectInfo, ObjectWriter
from avalanche_contract.storage import DirectoryStorage

PARTIAL = ".partial"
_PERMANENT = {
    errno.ENOSPC: ("StorageFull", "is full: free some space, or enlarge the volume"),
    errno.EDQUOT: ("StorageFull", "is over its quota: free some space, or raise the quota"),
    errno.EFBIG: ("StorageFull", "does not take files of this size"),
    errno.EACCES: ("PermissionDenied", "refuses access: give the backup's user write access to the folder"),
    errno.EPERM: ("PermissionDenied", "refuses the operation, or cannot make hard links"),
    errno.EROFS: ("PermissionDenied", "is mounted read-only"),
    errno.ENOTDIR: ("StorageMissing", "is not a folder"),
    errno.ENAMETOOLONG: ("StorageInvalid", "does not take names of this length"),
}


class DirectoryStore:
    """The store of one folder."""

    def __init__(self, storage: DirectoryStorage) -> None:
        self.name, self.trusted_keys = storage.name, storage.trusted_keys or ()
        self.conditional = True  # link(2) refuses a name that is taken
        self._root = Path(storage.root)

    def create(self, key: str) -> ObjectWriter:
        """Begin an object of unknown length."""
        return _Writer(self, self._path(key), key)

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> None:
        """Write a small object."""
        writer = _Writer(self, self._path(key), key, replaces=overwrite, is_document=True)
        try:
            writer.write(data)
            writer.commit()
        finally:
            writer.abort()

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        """Open an object."""
        try:
            file = self._path(key).open("rb", buffering=0)
        except OSError as error:
            raise self.failure(error, key) from None
        with file:
            yield self._chunks(file.fileno(), key)

    def head(self, key: str) -> ObjectInfo | None:
        """Say what is there."""
        try:
            found = self._path(key).stat()
        except (FileNotFoundError, NotADirectoryError):
            self._check_root()
            return None
        except OSError as error:
            raise self.failure(error, key) from None
        if not stat.S_ISREG(found.st_mode):
            return None
        return ObjectInfo(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Give every object beneath a prefix."""
        self._check_root()
        folder = self._root / prefix.rpartition("/")[0]
        keys = sorted((key for key in self._keys(folder) if key.startswith(prefix)), key=os.fsencode)
        return (found for key in keys if (found := self.head(key)) is not None)

    def delete(self, key: str) -> None:
        """Remove an object."""
        try:
            self._path(key).unlink(missing_ok=True)
        except OSError as error:
            raise self.failure(error, key) from None

    def remove_abandoned(self, prefix: str, before: datetime) -> int:
        """Remove the hidden files of writers that were killed, where nobody wrote to them since a moment."""
        self._check_root()
        removed = 0
        for path in self._files(self._root / prefix.rpartition("/")[0]):
            inside = path.relative_to(self._root).as_posix().startswith(prefix)
            if inside and path.name.endswith(PARTIAL) and self._older(path, before):
                with self.mapped(str(path)):
                    path.unlink(missing_ok=True)
                removed += 1
        return removed

    def locate(self, key: str) -> str:
        """Name the object for a person."""
        return str(self._root / key)

    def failure(self, error: OSError, key: str) -> Failure:
        """Turn an error of the operating system into one of ours."""
        if error.errno == errno.ENOENT:
            self._check_root()
            return ObjectMissing(f"{self.name}: there is no object {key}")
        reason, remedy = _PERMANENT.get(error.errno or 0, (None, None))
        if reason:
            return StorageInvalid(f"storage {self.name} ({self._root}) {remedy}", reason=reason)
        return StorageUnavailable(f"storage {self.name} ({self._root}): {error.strerror} at {key}")

    @contextmanager
    def mapped(self, key: str) -> Iterator[None]:
        """Turn errors of the operating system into ours."""
        try:
            yield
        except FileExistsError:
            raise ObjectExists(f"{self.name}: {key} is there already") from None
        except OSError as error:
            raise self.failure(error, key) from None

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if key.startswith("/") or "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise StorageInvalid(f"{key!r} is no key: it would leave the storage", reason="KeyInvalid")
        return self._root.joinpath(*parts)

    def _check_root(self) -> None:
        if not self._root.is_dir():
            raise StorageInvalid(
                f"storage {self.name}: the folder {self._root} is not there; is the volume mounted?",
                reason="StorageMissing",
            )

    def _keys(self, folder: Path) -> Iterator[str]:
        return (
            path.relative_to(self._root).as_posix()
            for path in self._files(folder)
            if not path.name.endswith(PARTIAL)
        )

    def _files(self, folder: Path) -> Iterator[Path]:
        for path, _, names in os.walk(folder, onerror=self._walk_failed):
            yield from (Path(path, name) for name in names)

    def _older(self, path: Path, before: datetime) -> bool:
        try:
            return datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
        except FileNotFoundError:
            return False

    def _walk_failed(self, error: OSError) -> None:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise self.failure(error, str(error.filename))

    def _chunks(self, descriptor: int, key: str) -> Iterator[bytes]:
        expected, done = os.fstat(descriptor).st_size, 0
        while True:
            try:
                chunk = os.read(descriptor, CHUNK)
            except OSError as error:
                raise self.failure(error, key) from None
            if not chunk:
                break
            done += len(chunk)
            yield chunk
        if done != expected:
            raise StorageUnavailable(f"{self.name}: {key} ended after {done} of {expected} bytes")


class _Writer:
    """One object under way, beside its place."""

    def __init__(
        self,
        store: DirectoryStore,
        path: Path,
        key: str,
        *,
        replaces: bool = False,
        is_document: bool = False,
    ) -> None:
        self._store, self._path, self._key, self._replaces = store, path, key, replaces
        self._partial = path.with_name(f".{path.name[:180]}.{secrets.token_hex(6)}{PARTIAL}")
        self._descriptor: int | None = None
        with self._store.mapped(self._key):
            store._check_root()
            belonging.make_folders(path.parent)
            self._descriptor = belonging.create(self._partial, is_document=is_document)
            self._write_out = platforms.WriteOut(self._descriptor)

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes; a short write goes on where it stopped."""
        rest = memoryview(data)
        with self._store.mapped(self._key):
            while rest:
                rest = rest[os.write(self._open(), rest) :]
            self._write_out.wrote(len(data))

    def commit(self) -> None:
        """Make the object exist."""
        with self._store.mapped(self._key):
            os.fsync(self._open())
            self._close()
            if self._replaces:
                self._partial.replace(self._path)
                _sync_folders(self._path.parent, self._store._root)
            else:
                self._link()
                self._settle()

    def abort(self) -> None:
        """Give everything up."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _link(self) -> None:
        """Take the name; over NFS a call whose reply was lost is sent again, and finds what it made itself."""
        try:
            os.link(self._partial, self._path)
        except FileExistsError:
            if not self._partial.samefile(self._path):
                raise

    def _settle(self) -> None:
        """Make the new name durable; one that may be gone after a power failure is taken back at once."""
        try:
            _sync_folders(self._path.parent, self._store._root)
        except OSError:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            raise
        with suppress(OSError):  # left behind, it is hidden, and remove_abandoned finds it
            self._partial.unlink()

    def _open(self) -> int:
        if self._descriptor is None:
            raise StorageUnavailable(f"{self._key} is closed")
        return self._descriptor

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def _sync_folders(folder: Path, root: Path) -> None:
    """Make a new name durable, and those of folders that may be new as well."""
    while True:
        platforms.sync_folder(folder)
        if folder in (root, folder.parent):
            return
        folder = folder.parent
