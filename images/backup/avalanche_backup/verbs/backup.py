"""Back sources up as one backup: every artifact stored and read back, then the metadata, which is the commit."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from avalanche_backup import catalog, layout
from avalanche_backup.catalog import Found
from avalanche_backup.errors import (
    CopiesMissing,
    ObjectExists,
    StorageUnavailable,
    is_uncertain,
    mark_uncertain,
)
from avalanche_backup.locks import Lock
from avalanche_backup.metadata import (
    AnomalyMetadata,
    ArtifactMetadata,
    BackupMetadata,
    RunMetadata,
    combined_checksum,
)
from avalanche_backup.pipeline.download import StreamFacts
from avalanche_backup.pipeline.fanout import Destination
from avalanche_backup.pipeline.signing import Signer
from avalanche_backup.pipeline.upload import Encoding, Upload
from avalanche_backup.sources.base import Beside, Dump, Inspection, Source
from avalanche_backup.sources.opening import open_source
from avalanche_backup.verbs import baseline, copying
from avalanche_backup.verbs.baseline import Baseline
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import (
    RunIdentity,
    attempt,
    commit,
    find_own,
    open_destinations,
    refuse_locked,
    refuse_restored,
    remove,
)
from avalanche_backup.verbs.keys import recipients_for, signer_for
from avalanche_contract.names import slot_of_job
from avalanche_contract.request import Anomaly, BackupRequest
from avalanche_contract.result import Copy, Result

WARNINGS_MAX = 100
TRIES = 5


@dataclass(frozen=True)
class _Work:
    """What every step of one run needs."""

    request: BackupRequest
    context: Context
    destinations: Sequence[Destination]
    identity: RunIdentity
    backup_id: str
    start: datetime
    encoding: Encoding
    locks: Mapping[str, Lock | None]
    """By destination: of the last restore of the target, as it was before anything was read."""
    signer: Signer | None
    """What signs the metadata."""

    @property
    def several(self) -> bool:
        return len(self.request.sources) > 1

    @property
    def folder(self) -> str:
        return layout.folder("", self.request.backup_type)

    def sealed(self, metadata: BackupMetadata) -> BackupMetadata:
        """Sign metadata, where there is a key."""
        return self.signer.sign(metadata) if self.signer else metadata


def run(request: BackupRequest, context: Context) -> Result:
    """Make one backup in every destination, or find that this very run made it already, and complete its copies.

    :raises CopiesMissing: it was committed, in fewer destinations than are needed.
    :raises Failure: nothing was committed.
    """
    start = context.now()
    identity = identify(request, context, start)
    encoding = Encoding(
        request.compression.algorithm, request.compression.level, recipients_for(request.encryption)
    )
    signer = signer_for(request)
    destinations = open_destinations(request)
    for _ in range(TRIES):
        own = find_own(destinations, request, identity)
        if not isinstance(own, str):
            _complete(destinations, own, context)
            return _end(request, context, destinations, own, "AlreadyCommitted")
        locks = refuse_locked(destinations, context.now())
        work = _Work(request, context, destinations, identity, own, start, encoding, locks, signer)
        try:
            made = _store(work)
        except ObjectExists:
            continue  # another attempt wrote under our name meanwhile: look again, and take the next one
        return _end(request, context, destinations, made, "Committed")
    raise StorageUnavailable(f"other attempts took every name of {own}")


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


def _store(work: _Work) -> tuple[Destination, Found]:
    with ExitStack() as stack:
        opened = [
            open_source(source, _folder(work.context.scratch / f"source-{number}"))
            for number, source in enumerate(work.request.sources)
        ]
        looked = [(source, source.inspect()) for source in opened]
        usual = baseline.read(work.destinations, work.start)
        for source, inspection in looked:
            baseline.refuse_empty(source, inspection, usual)
        artifacts: list[ArtifactMetadata] = []
        dumps: list[Dump] = []
        # Until the commit is begun: from then on the metadata may name them, whatever answer came.
        stack.callback(lambda: remove(work.destinations, artifacts, work.folder))
        for source, inspection in looked:
            dump = _store_source(work, source, inspection, artifacts)
            baseline.refuse_empty(source, dump, usual)
            dumps.append(dump)
        work.context.report.progress("Verifying", "", sum(each.source_bytes for each in artifacts), None)
        # A restore that began meanwhile may have been captured half done, and may have ended since.
        refuse_restored(work.destinations, work.locks)
        anomaly = work.request.anomaly or Anomaly()
        metadata = _judged(_describe(work, artifacts, dumps), usual, anomaly.max_shrink_percent)
        stack.pop_all()
    made = commit(work.destinations, work.request, metadata, work.sealed)
    committed = made[1].metadata
    if committed.artifacts != metadata.artifacts:  # another pod of this very run was faster
        its_own = {each.file for each in committed.artifacts}
        remove(work.destinations, [each for each in artifacts if each.file not in its_own], work.folder)
        _complete(work.destinations, made, work.context)
    return made


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

    def name(number: int) -> str:
        return work.folder + layout.object_name(work.backup_id, named, extension + encoding.suffix, number)

    return Upload(work.destinations, name, encoding)


def _artifact(source: Source, upload: Upload, dump: Dump, role: str) -> ArtifactMetadata:
    stored = upload.commit()
    facts = stored.facts
    form = "Plain" if role == "globals" else source.format
    file = stored.name.rpartition("/")[2]
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
            "selection": dict(source.selection) if role == "data" else None,
            "statistics": dict(dump.statistics) if role == "data" else {},
            "recreate": dict(dump.recreate) if role == "data" else {},
            "restore_command": ""
            if role == "index"
            else restore_command("globals" if role == "globals" else source.kind, form, file, facts, dump),
        }
    )


_PSQL = "psql --no-psqlrc --single-transaction --set=ON_ERROR_STOP=1 --dbname=<database>"
_BY_HAND = {
    "Plain": _PSQL,
    "Custom": "pg_restore --exit-on-error --single-transaction --dbname=<database>",
    "Directory": "tar -xf - -C <empty folder> && pg_restore --exit-on-error --single-transaction --dbname=<database> <empty folder>",
}
_WITH_ATTRIBUTES = "--xattrs --xattrs-include='*' "
_WITHOUT_TIMEOUT = "sed '1,40{/^SET transaction_timeout = 0;$/d}' | "
_BY_HAND_OLDER = {
    "Plain": f"{_WITHOUT_TIMEOUT}{_PSQL}",
    "Custom": f"pg_restore --exit-on-error --file=- | {_WITHOUT_TIMEOUT}{_PSQL}",
    "Directory": f"tar -xf - -C <empty folder> && pg_restore --exit-on-error --file=- <empty folder> | {_WITHOUT_TIMEOUT}{_PSQL}",
}


def _older_server(dump: Dump) -> bool:
    """Say whether pg_dump wrote a setting that the server does not know, as pg_dump 17 does for older ones."""
    versions = (str(dump.recreate.get(name) or "0") for name in ("server_version", "pg_dump"))
    server, written_by = (int(each.partition(".")[0]) for each in versions)
    return 0 < server < 17 <= written_by


def restore_command(kind: str, form: str, file: str, facts: StreamFacts, dump: Dump) -> str:
    """Say how to restore an artifact by hand, with plain tools."""
    unpack = _unpack(file, facts)
    if kind == "postgresql":
        return f"{unpack} | {(_BY_HAND_OLDER if _older_server(dump) else _BY_HAND)[form]}"
    if kind == "globals":  # roles that exist already are errors that do no harm: it does not stop at them
        return f"{unpack} | psql --no-psqlrc --dbname=postgres"
    if kind == "sqlite":
        return f"{unpack} > <database file>"
    held = (dump.recreate.get("preserve") or {}).get("extendedAttributes")
    return f"{unpack} | tar {_WITH_ATTRIBUTES if held else ''}-xpf - -C <folder>"


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


def _judged(metadata: BackupMetadata, usual: Baseline, max_shrink_percent: int) -> BackupMetadata:
    """Give the metadata with what looks wrong: the commit carries the verdict, so that every reader has it."""
    data = [each for each in metadata.artifacts if each.role == "data"]
    findings = baseline.look_wrong(data, usual, max_shrink_percent)
    told = "; ".join(each.message for each in findings)
    return metadata.model_copy(
        update={
            "status": "suspect" if findings else "succeeded",
            "error_message": told or None,
            "anomalies": [
                AnomalyMetadata(source=each.source, reason=each.reason, message=each.message)
                for each in findings
            ],
            "warnings": [*baseline.not_compared(data, usual), *metadata.warnings][:WARNINGS_MAX],
        }
    )


def _complete(destinations: Sequence[Destination], own: tuple[Destination, Found], context: Context) -> None:
    """Copy what this run committed to the destinations that do not have it; the source is not read again."""
    good, found = own

    def complete(each: Destination) -> None:
        if each is not good:
            copying.copy(good, each, found.metadata.backup_id, context.copied)

    attempt(destinations, complete)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _end(
    request: BackupRequest,
    context: Context,
    destinations: Sequence[Destination],
    made: tuple[Destination, Found],
    reason: str,
) -> Result:
    """Tell of every copy, and fail where there are too few."""
    first, found = made
    copies = tuple(_copy(each, found.metadata) for each in destinations)
    entry = catalog.entry(first.store, found)
    context.report.entry(entry.model_copy(update={"copies": copies}) if len(copies) > 1 else entry)
    missing = [each for each in copies if each.status != "Verified"]
    told = "".join(f"; no copy in {each.storage}: {each.message}" for each in missing)
    if len(copies) - len(missing) < (request.min_copies or len(copies)):
        raise _too_few(found.metadata.backup_id, len(copies) - len(missing), request, destinations, told)
    said = (
        "was written and read back"
        if reason == "Committed"
        else "was committed by another attempt of this run"
    )
    if found.metadata.status == "suspect":
        reason = found.metadata.anomalies[0].reason if found.metadata.anomalies else "Suspect"
        said += f", and looks wrong: {found.metadata.error_message}"
    return _result(request, found.metadata, reason, f"{found.metadata.backup_id} {said}{told}", copies)


def _copy(each: Destination, metadata: BackupMetadata) -> Copy:
    where = {
        "storage": each.store.name,
        "location": each.store.locate(layout.metadata_key(each.prefix, metadata.backup_id)),
    }
    if each.failure is not None:
        return Copy(**where, status="NotVerified", reason=each.failure.reason, message=each.failure.message)
    return Copy(
        **where, status="Verified", checksum=metadata.checksum, verified_time=metadata.completion_time
    )


def _too_few(
    backup_id: str, count: int, request: BackupRequest, destinations: Sequence[Destination], told: str
) -> CopiesMissing:
    needed = request.min_copies or len(request.destinations)
    failure = CopiesMissing(
        f"{backup_id} was written and read back in {count} of {len(request.destinations)} destinations, and {needed} are "
        f"needed{told}"
    )
    if any(each.failure is not None and is_uncertain(each.failure) for each in destinations):
        mark_uncertain(failure)
    return failure


def _result(
    request: BackupRequest, metadata: BackupMetadata, reason: str, message: str, copies: Sequence[Copy]
) -> Result:
    return Result(
        nonce=request.nonce,
        verb="backup",
        verdict="Suspect" if metadata.status == "suspect" else "Succeeded",
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
        copies=tuple(each.brief for each in copies) if len(copies) > 1 else (),
    )
