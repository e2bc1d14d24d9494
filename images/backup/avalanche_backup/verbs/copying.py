"""Copy one committed backup from place to place: the stored bytes as they are, checked on the way, metadata last.

A copy is byte for byte what it was made from, its metadata too, so that every copy has the same ID, names and checksum.
Killed anywhere, what it left is no backup yet; the next try keeps the objects that are right and goes on.

A *damaged* copy is made anew in the same order as a removal: first its metadata goes, and with it the copy; then objects
that are wrong, and no others; then it is copied like one that is missing. Metadata is therefore still create-only and
never names an object that changed under it. That is safe because it is done only by a process that has just read another
copy of the same backup to its end and found it whole, and because whoever is killed midway leaves a copy that is missing,
which the next verification heals, and not one that looks whole.
"""

from __future__ import annotations

from collections.abc import Callable

from avalanche_backup import catalog, layout, ownership, removal
from avalanche_backup.catalog import Damaged, Found
from avalanche_backup.errors import StorageInvalid, VerificationFailed
from avalanche_backup.metadata import FORMAT_VERSION, ArtifactMetadata
from avalanche_backup.pipeline.download import checked_as_stored
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.verbs.artifacts import Reader, facts_of, open_stored
from avalanche_backup.verbs.destinations import differs

Progress = Callable[[str, int], None]
"""Called with the source's name, and how many stored bytes of the backup are done."""


def copy(good: Destination, target: Destination, backup_id: str, progress: Progress) -> bool:
    """Make the copy in ``target``, and say whether there was anything to do.

    :raises VerificationFailed: what was read is not what the metadata says; nothing was committed.
    :raises StorageInvalid: another backup has this ID there (``CopiesDiffer``), the folder is another policy's, or it is
        being removed (``BeingRemoved``).
    :raises BackupMissing: ``good`` has no such backup.
    """
    found = catalog.find(good.store, good.prefix, backup_id)
    document = catalog.read_document(good.store, layout.metadata_key(good.prefix, backup_id))
    refuse_if_removed((good, target), backup_id)
    if _is_there(target, found):
        return False
    ownership.copy_owner(good.store, good.prefix, target.store, target.prefix)
    done = 0
    for artifact in found.metadata.artifacts:
        progress(artifact.source, done)
        _copy_artifact(
            Reader(good.store, found), Reader(target.store, Found(target.prefix, found.metadata)), artifact
        )
        done += artifact.size_bytes
    progress("", done)
    catalog.put_once(target.store, layout.metadata_key(target.prefix, backup_id), document)
    return True


def replace(good: Destination, target: Destination, backup_id: str, progress: Progress) -> None:
    """Make a damaged copy anew, as the module says; the caller has just read ``good`` whole.

    :raises Failure: it could not be; the copy is missing now, or as it was.
    """
    refuse_if_removed((good, target), backup_id)
    refuse_newer(target, backup_id)
    target.store.delete(layout.metadata_key(target.prefix, backup_id))
    copy(good, target, backup_id, progress)


def refuse_if_removed(places: tuple[Destination, ...], backup_id: str) -> None:
    """Leave a backup alone that is being removed: a copy made meanwhile would bring it back.

    :raises StorageInvalid: it is (``BeingRemoved``).
    """
    for each in places:
        if removal.is_being_removed(each.store, each.prefix, backup_id):
            raise StorageInvalid(
                f"{backup_id} is being removed from {each.store.name}", reason="BeingRemoved"
            )


def _is_there(target: Destination, found: Found) -> bool:
    backup_id = found.metadata.backup_id
    there = catalog.read_one(target.store, layout.metadata_key(target.prefix, backup_id))
    if there is None:
        return False
    if isinstance(there, Damaged):
        raise VerificationFailed(f"its metadata cannot be read: {there.message}", reason="MetadataInvalid")
    if not same_backup(there, found):
        raise differs(target, backup_id)
    return True


def same_backup(one: Found, other: Found) -> bool:
    """Say whether two metadata tell of the same bytes."""
    return [(each.file, each.sha256) for each in one.metadata.artifacts] == [
        (each.file, each.sha256) for each in other.metadata.artifacts
    ]


def _copy_artifact(source: Reader, target: Reader, artifact: ArtifactMetadata) -> None:
    """Copy one object; what has its name and is wrong is named by no metadata, and gives way."""
    key = target.key(artifact)
    if target.store.head(key) is not None:
        if _is_intact(target, artifact):
            return
        target.store.delete(key)
    writer = target.store.create(key)
    try:
        with open_stored(source, artifact) as chunks:
            for chunk in checked_as_stored(chunks, facts_of(artifact), artifact.file):
                writer.write(chunk)
        writer.commit()
    finally:
        writer.abort()
    if not _is_intact(target, artifact):
        target.store.delete(key)
        raise VerificationFailed(f"{target.store.name}: {artifact.file} is not what was just written there")


def _is_intact(reader: Reader, artifact: ArtifactMetadata) -> bool:
    try:
        with open_stored(reader, artifact) as chunks:
            for _ in checked_as_stored(chunks, facts_of(artifact), artifact.file):
                pass
    except VerificationFailed:
        return False
    return True


def refuse_newer(target: Destination, backup_id: str) -> None:
    """Leave metadata alone that may be of a newer release: it is no damage that we cannot read it.

    :raises StorageInvalid: it is (``MetadataNewer``).
    """
    try:
        document = catalog.read_json(target.store, layout.metadata_key(target.prefix, backup_id)) or {}
    except StorageInvalid:
        return
    version = str(document.get("format_version", ""))
    if version and version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise StorageInvalid(f"its metadata has format {version}, of a newer release", reason="MetadataNewer")
