"""Around a backup and a verification: what people are told of their outcome, and what a failed run leaves.

Nothing here changes an outcome: whatever goes wrong with telling is a warning of the log.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from avalanche_backup import attempts, catalog
from avalanche_backup.attempts import Attempt
from avalanche_backup.errors import TargetLocked, VerificationFailed, explain, is_uncertain
from avalanche_backup.notifications import decide
from avalanche_backup.notifications.message import Occurrence
from avalanche_backup.notifications.send import tell
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import backup, verify
from avalanche_backup.verbs.context import Context
from avalanche_contract.names import backup_id
from avalanche_contract.notification import Event
from avalanche_contract.request import BackupRequest, Place, VerifyRequest, Writer
from avalanche_contract.result import Result

_LOG = structlog.get_logger()


@dataclass(frozen=True)
class _Run:
    """How one run ended."""

    identity: str
    reason: str
    message: str
    backup_id: str = ""


def back_up(request: BackupRequest, context: Context) -> Result:
    """Back up, and tell of it what is worth telling."""
    identity = backup.identify(request, context, context.now())
    try:
        result = backup.run(request, context)
    except Exception as error:
        if not isinstance(error, TargetLocked):
            with _harmless():
                _failed(request, context, identity, error)
        raise
    with _harmless():
        _succeeded(request, context, result)
    return result


def check(request: VerifyRequest, context: Context) -> Result:
    """Verify, and tell of damage that was not there before."""
    before = ""
    with _harmless():
        before = _last_verdict(request)
    try:
        return verify.run(request, context)
    except VerificationFailed as failure:
        with _harmless():
            _damaged(request, context, failure, told_before=before == "VerificationFailed")
        raise


def where(writer: Writer) -> str:
    """Name the policy, or without one this machine."""
    return f"{writer.namespace}/{writer.policy}" if writer.policy else socket.gethostname()


def _failed(request: BackupRequest, context: Context, identity: backup.RunIdentity, error: Exception) -> None:
    code, reason, message = explain(error)
    named = backup_id(request.backup_type, identity.moment)
    event = decide.of_failure(code, retried=request.notifications.retried)
    if request.writer.policy and is_uncertain(error):
        event = None  # the control plane asks the storage first whether it was committed
    told = False
    if event is not None:
        told = _tell(
            request, context, _of_backup(request, context, event, _Run(identity.text, reason, message))
        )
    attempt = Attempt(named, identity.text, context.now(), reason, message, told=told)
    for place in request.destinations:
        with _harmless():
            store = open_store(place.storage)
            catalog.check_owner(store, place.prefix, request.writer, claim=False)
            attempts.record(store, place.prefix, attempt)


def _succeeded(request: BackupRequest, context: Context, result: Result) -> None:
    own, known = result.backup_id or "", False
    found: list[tuple[Place, tuple[str, ...]]] = []
    for place in request.destinations:
        with _harmless():
            store = open_store(place.storage)
            history = attempts.history(store, place.prefix, request.backup_type)
            found.append((place, history.failed))
            known = known or attempts.were_told(store, place.prefix, history.since_last_commit(own))
    event = decide.of_success(result.verdict, failing=known)
    if event is not None:
        run = _Run(result.run_identity or "", result.reason, result.message, own)
        _tell(request, context, _of_backup(request, context, event, run))
    if result.verdict == "Succeeded":
        for place, failed in found:
            with _harmless():
                attempts.forget(open_store(place.storage), place.prefix, failed)


def _damaged(
    request: VerifyRequest, context: Context, failure: VerificationFailed, *, told_before: bool
) -> None:
    event = decide.of_verification(failure.exit_code, told_before=told_before)
    if event is None:
        return
    reference = request.backup
    happened = Occurrence(
        event=event,
        subject=f"{reference.backup_type} backup {reference.backup_id}",
        where=reference.place.prefix.strip("/") or socket.gethostname(),
        reason=failure.reason,
        message=failure.message,
        time=context.now(),
        backup_id=reference.backup_id,
    )
    _tell(request, context, happened)


def _of_backup(request: BackupRequest, context: Context, event: Event, run: _Run) -> Occurrence:
    return Occurrence(
        event=event,
        subject=f"{request.backup_type} backup",
        where=where(request.writer),
        reason=run.reason,
        message=run.message,
        time=context.now(),
        backup_id=run.backup_id,
        run_identity=run.identity,
    )


def _tell(request: BackupRequest | VerifyRequest, context: Context, happened: Occurrence) -> bool:
    told = tell(request.notifications, happened)
    if told is None:
        return False
    context.report.told(told)
    return bool(told.sent)


def _last_verdict(request: VerifyRequest) -> str:
    place, named = request.backup.place, request.backup.backup_id
    found = catalog.find(open_store(place.storage), place.prefix, named)
    return str((found.verification or {}).get("status", ""))


@contextmanager
def _harmless() -> Iterator[None]:
    """Let nothing that goes wrong with telling reach the run."""
    try:
        yield
    except Exception as error:
        _, reason, message = explain(error)
        _LOG.warning("what a run leaves for notifications could not be kept", reason=reason, why=message)
