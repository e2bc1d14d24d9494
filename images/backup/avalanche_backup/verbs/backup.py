"""Back sources up as one backup: every artifact stored and read back, then the metadata, which is the commit."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from avalanche_backup import catalog, layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import Failure, ObjectExists, StorageUnavailable, mark_uncertain
from avalanche_backup.locks import Lock, refuse_if_locked, refuse_if_restored
from avalanche_backup.metadata import ArtifactMetadata, BackupMetadata, RunMetadata, combined_checksum
from avalanche_backup.pipeline.download import StreamFacts
from avalanche_backup.pipeline.upload import Encoding, Upload
from avalanche_backup.sources.base import Beside, Dump, Inspection, Source
from avalanche_backup.sources.opening import open_source
from avalanche_backup.storage.base import Store
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.keys import recipients_for
from avalanche_contract.names import parse_backup_id, slot_of_job
from avalanche_contract.request import BackupRequest
from avalanche_contract.result import Result

WARNINGS_MAX = 100
TRIES = 5


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is, and the second that its backup is named by."""

    text: str
    moment: datetime


@dataclass(frozen=True)
class _Work:
    """What every step of one run needs."""

    request: BackupRequest
    context: Context
    store: Store
    prefix: str
    identity: RunIdentity
    backup_id: str
    start: datetime
    encoding: Encoding
    lock: Lock | None
    """Of the last restore of the target, as it was before anything was read."""

    @property
    def several(self) -> bool:
        return len(self.request.sources) > 1


def run(request: BackupRequest, context: Context) -> Result:
    """Make one backup, or find that this very run made it already.

    :raises Failure: nothing was committed.
    """
    start = context.now()
    identity = identify(request, context, start)
    encoding = Encoding(
        request.compression.algorithm, request.compression.level, recipients_for(request.encryption)
    )
    place = request.destinations[0]
    store = open_store(place.storage)
    catalog.check_owner(store, place.prefix, request.writer, claim=True)
    for _ in range(TRIES):
        backup_id, committed = catalog.choose_id(
            store, place.prefix, request.backup_type, identity.moment, identity.text
        )
        if committed is not None:
            context.report.entry(catalog.entry(store, Found(place.prefix, committed)))
            return _result(
                request, committed, "AlreadyCommitted", "this run was committed by another attempt"
            )
        lock = refuse_if_locked(store, place.prefix, context.now())
        try:
            metadata = _store(
                _Work(request, context, store, place.prefix, identity, backup_id, start, encoding, lock)
            )
        except ObjectExists:
            continue  # another attempt wrote under our name meanwhile: look again, and take the next one
        context.report.entry(catalog.entry(store, Found(place.prefix, metadata)))
        return _result(request, metadata, "Committed", f"{backup_id} was written and read back")
    raise StorageUnavailable(f"other attempts took every name of {backup_id}")


def identify(request: BackupRequest, context: Context, now: datetime) -> RunIdentity:
    """Say which run this is: by the slot in the Job's name, by the Backup object, by the Job, or by chance."""
    asked = request.run
    if asked.backup_uid is not None:
        return RunIdentity(f"manual/{asked.backup_uid}", asked.created_time or now)
    slot = slot_of_job(context.job_name, asked.cron_job) if asked.cron_job else None
    if slot is not None:
        return RunIdentity(f"scheduled/{request.writer.policy_uid}/{int(slot.timestamp()) // 60}", slot)
    if context.job_uid:
        return RunIdentity(f"job/{context.job_uid}", now)
    return RunIdentity(f"standalone/{uuid.uuid4()}", now)


def _store(work: _Work) -> BackupMetadata:
    with ExitStack() as stack:
        opened = [
            open_source(source, _folder(work.context.scratch / f"source-{number}"))
            for number, source in enumerate(work.request.sources)
        ]
        looked = [(source, source.inspect()) for source in opened]
        artifacts: list[ArtifactMetadata] = []
        dumps: list[Dump] = []
        # Until the commit is begun: from then on the metadata may name them, whatever answer came.
        stack.callback(lambda: _remove(work, artifacts))
        for source, inspection in looked:
            dump = _store_source(work, source, inspection, artifacts)
            dumps.append(dump)
        work.context.report.progress("Verifying", "", sum(each.source_bytes for each in artifacts), None)
        # A restore that began meanwhile may have been captured half done, and may have ended since.
        refuse_if_restored(work.store, work.prefix, work.lock)
        metadata = _describe(work, artifacts, dumps)
        stack.pop_all()
    return _commit(work, metadata)


def _store_source(
    work: _Work, source: Source, inspection: Inspection, artifacts: list[ArtifactMetadata]
) -> Dump:
    scratch = _folder(work.context.scratch / f"dump-{source.name}")

    def progress(done: int) -> None:
        work.context.report.progress("Running", source.name, done, inspection.estimated_bytes)

    with ExitStack() as stack:
        data = stack.enter_context(_upload(work, source, source.extension, work.encoding))
        beside = stack.enter_context(_upload_beside(work, source, source.beside)) if source.beside else None
        dump = source.dump(data, beside=beside, scratch=scratch, progress=progress)
        artifacts.append(_artifact(source, data, dump, "data"))
        if source.beside and beside is not None:
            artifacts.append(_artifact(source, beside, dump, source.beside.role))
    return dump


def _upload_beside(work: _Work, source: Source, beside: Beside) -> Upload:
    """Begin the second artifact of a source; an index is always Zstd, so that whoever reads one knows how."""
    indexing = replace(work.encoding, algorithm="Zstd", level=None)
    return _upload(work, source, beside.suffix, indexing if beside.role == "index" else work.encoding)


def _upload(work: _Work, source: Source, extension: str, encoding: Encoding) -> Upload:
    named = source.name if work.several else None
    folder = layout.folder(work.prefix, work.request.backup_type)

    def name(attempt: int) -> str:
        return folder + layout.object_name(work.backup_id, named, extension + encoding.suffix, attempt)

    return Upload(work.store, name, encoding)


def _artifact(source: Source, upload: Upload, dump: Dump, role: str) -> ArtifactMetadata:
    stored = upload.commit()
    facts = stored.facts
    form = "Plain" if role == "globals" else source.format
    file = stored.key.rpartition("/")[2]
    return ArtifactMetadata.model_validate(
        {
            "source": source.name,
            "kind": source.kind,
            "file": file,
            "role": role,
            "format": form if role != "index" else "",
            "compression": facts.algorithm,
            "size_bytes": facts.size_bytes,
            "sha256": facts.sha256,
            "source_bytes": facts.source_bytes,
            "source_sha256": facts.source_sha256,
            "recipients": list(stored.recipients),
            "target": source.target,
            "statistics": dict(dump.statistics) if role == "data" else {},
            "recreate": dict(dump.recreate) if role == "data" else {},
            "restore_command": ""
            if role == "index"
            else restore_command("globals" if role == "globals" else source.kind, form, file, facts),
        }
    )


_BY_HAND = {
    "Plain": "psql --no-psqlrc --single-transaction --set=ON_ERROR_STOP=1 --dbname=<database>",
    "Custom": "pg_restore --exit-on-error --single-transaction --dbname=<database>",
    "Directory": "tar -xf - -C <empty folder> && pg_restore --exit-on-error --single-transaction --dbname=<database> <empty folder>",
}


def restore_command(kind: str, form: str, file: str, facts: StreamFacts) -> str:
    """Say how to restore an artifact by hand, with plain tools."""
    unpack = _unpack(file, facts)
    if kind == "postgresql":
        return f"{unpack} | {_BY_HAND[form]}"
    if kind == "globals":  # roles that exist already are errors that do no harm: it does not stop at them
        return f"{unpack} | psql --no-psqlrc --dbname=postgres"
    return f"{unpack} > <database file>" if kind == "sqlite" else f"{unpack} | tar -xpf - -C <folder>"


def _unpack(file: str, facts: StreamFacts) -> str:
    program = {"Gzip": "gzip", "Zstd": "zstd", "None": ""}[facts.algorithm]
    if facts.encrypted:
        return f"age -d -i <identity file> {file}" + (f" | {program} -dc" if program else "")
    return f"{program} -dc {file}" if program else f"cat {file}"


def _describe(work: _Work, artifacts: list[ArtifactMetadata], dumps: list[Dump]) -> BackupMetadata:
    writer = work.request.writer
    data = [each for each in artifacts if each.role == "data"]
    warnings = [warning for dump in dumps for warning in dump.warnings]
    return BackupMetadata(
        backup_id=work.backup_id,
        backup_type=work.request.backup_type,
        timestamp=work.identity.moment.replace(microsecond=0),
        start_time=work.start,
        completion_time=work.context.now(),
        snapshot_time=min(dump.snapshot_time for dump in dumps),
        size_bytes=sum(each.size_bytes for each in artifacts),
        source_bytes=sum(each.source_bytes for each in data),
        checksum=combined_checksum(artifacts),
        compressed=work.request.compression.algorithm != "None",
        encrypted=bool(work.encoding.recipients),
        files_included=[name for dump in dumps for name in dump.files_included][:WARNINGS_MAX],
        run=RunMetadata(
            identity=work.identity.text,
            cluster_uid=writer.cluster_uid,
            namespace=writer.namespace,
            policy=writer.policy,
            policy_uid=writer.policy_uid,
        ),
        artifacts=artifacts,
        tools={name: version for dump in dumps for name, version in dump.tools.items()},
        warnings=warnings[:WARNINGS_MAX],
    )


def _commit(work: _Work, metadata: BackupMetadata) -> BackupMetadata:
    """Commit; an ID that another run took meanwhile moves on by a second."""
    wanted = metadata
    for _ in range(100):
        try:
            with _uncertain():
                catalog.commit(work.store, work.prefix, wanted)
            return wanted
        except ObjectExists:
            named, own = catalog.choose_id(
                work.store, work.prefix, work.request.backup_type, wanted.timestamp, work.identity.text
            )
            if own is not None:  # another pod of this very run was faster, or our own answer was lost
                its_own = {each.file for each in own.artifacts}
                _remove(work, [each for each in metadata.artifacts if each.file not in its_own])
                return own
            wanted = metadata.model_copy(update={"backup_id": named, "timestamp": parse_backup_id(named)[1]})
    raise StorageUnavailable("a hundred names for this backup were taken meanwhile")


@contextmanager
def _uncertain() -> Iterator[None]:
    """Say of whatever breaks a commit off that the backup may exist all the same; nothing is tidied up then."""
    try:
        yield
    except ObjectExists:
        raise
    except BaseException as error:
        mark_uncertain(error)
        raise


def _remove(work: _Work, artifacts: list[ArtifactMetadata]) -> None:
    for artifact in artifacts:
        with suppress(Failure):  # a writer's key may not delete: cleanup removes what nothing names
            work.store.delete(layout.folder(work.prefix, work.request.backup_type) + artifact.file)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _result(request: BackupRequest, metadata: BackupMetadata, reason: str, message: str) -> Result:
    return Result(
        nonce=request.nonce,
        verb="backup",
        verdict="Succeeded",
        reason=reason,
        message=message,
        backup_id=metadata.backup_id,
        run_identity=metadata.run.identity,
        start_time=metadata.start_time,
        completion_time=metadata.completion_time,
        snapshot_time=metadata.snapshot_time,
        size_bytes=metadata.size_bytes,
        source_bytes=metadata.source_bytes,
        checksum=metadata.checksum,
        verified_time=metadata.completion_time,
    )
