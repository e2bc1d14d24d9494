"""Around a backup and a verification: what people are told of their outcome, and what a failed run leaves.

Nothing here changes an outcome: whatever goes wrong with telling is a warning of the log.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import structlog

from avalanche_backup import attempts, ownership
from avalanche_backup.attempts import Attempt
from avalanche_backup.errors import explain, is_uncertain
from avalanche_backup.layout import type_of
from avalanche_backup.notifications import decide
from avalanche_backup.notifications.message import Occurrence
from avalanche_backup.notifications.send import tell
from avalanche_backup.storage.opening import open_store
from avalanche_backup.verbs import backup, rotation, verify
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.destinations import RunIdentity
from avalanche_backup.verbs.examined import Examined
from avalanche_contract.exitcodes import ExitCode
from avalanche_contract.names import backup_id
from avalanche_contract.notification import Event
from avalanche_contract.request import BackupRequest, Rotation, VerifyRequest, Writer
from avalanche_contract.result import Result

_LOG = structlog.get_logger()
NAMED_MAX = 20


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
        if explain(error)[0] is not ExitCode.SKIPPED:  # left out on purpose is no failure
            with _harmless():
                _failed(request, context, identity, error)
        raise
    with _harmless():
        _succeeded(request, context, result)
    return result


def check(request: VerifyRequest, context: Context) -> Result:
    """Verify one backup or several, and tell once of damage that nobody was told of; also where it is broken off."""
    found: list[Examined] = []
    try:
        if isinstance(request.backup, Rotation):
            return rotation.run(request, request.backup, context, found.append)
        return verify.run(request, request.backup, context, found.append)
    finally:
        with _harmless():
            _damaged(request, context, [each for each in found if each.damaged and not each.is_told])


def where(writer: Writer) -> str:
    """Name the policy, or without one this machine."""
    return f"{writer.namespace}/{writer.policy}" if writer.policy else socket.gethostname()


def _failed(request: BackupRequest, context: Context, identity: RunIdentity, error: Exception) -> None:
    code, reason, message = explain(error)
    retried = request.notifications is not None and request.notifications.retried
    if retried and code is ExitCode.STORAGE_UNAVAILABLE:
        return  # nothing is told yet, and nothing can be left there: the next try must not wait for it
    now, before = context.now(), _last_failure(request)
    attempt = Attempt(
        backup_id(request.backup_type, identity.moment), identity.text, now, reason, message,
        told_time=before.told_time if before else None, told_reason=before.told_reason if before else "",
    )  # fmt: skip
    lately = decide.told_lately(reason, attempt.told_reason, attempt.told_time, now)
    event = decide.of_failure(code, retried=retried, lately=lately)
    if request.writer.policy and is_uncertain(error):
        event = None  # the control plane asks the storage first whether it was committed
    if event is not None and _tell(
        request, context, _of_backup(request, context, event, _Run(identity.text, reason, message))
    ):
        attempt = replace(attempt, told_time=now, told_reason=reason)
    for place in request.destinations:
        with _harmless():
            store = open_store(place.storage)
            ownership.check_owner(store, place.prefix, request.writer, claim=False, adopting=True)
            attempts.record(store, place.prefix, attempt)


def _last_failure(request: BackupRequest, own: str = "") -> Attempt | None:
    """Give the failure that lasts, by the first storage that knows of one."""
    for place in request.destinations:
        with _harmless():
            store = open_store(place.storage)
            last = attempts.history(store, place.prefix, request.backup_type).last_failure(own)
            if (found := attempts.read(store, place.prefix, last)) is not None:
                return found
    return None


def _succeeded(request: BackupRequest, context: Context, result: Result) -> None:
    own = result.backup_id or ""
    last = _last_failure(request, own)
    event = decide.of_success(result.verdict, failing=last is not None and last.told_time is not None)
    if event is not None:
        run = _Run(result.run_identity or "", result.reason, result.message, own)
        _tell(request, context, _of_backup(request, context, event, run))
    for place in request.destinations if result.verdict == "Succeeded" else ():
        with _harmless():
            store = open_store(place.storage)
            failed = attempts.history(store, place.prefix, request.backup_type).failed
            attempts.forget(store, place.prefix, failed)


def _damaged(request: VerifyRequest, context: Context, new: list[Examined]) -> None:
    if not new:
        return
    place, one = request.backup.place, new[0].backup_id if len(new) == 1 else ""
    happened = Occurrence(
        event="VerificationFailed",
        subject=f"{type_of(one)} backup {one}" if one else f"{len(new)} backups",
        where=place.prefix.strip("/") or socket.gethostname(),
        reason=", ".join(
            sorted({part.failure.reason for each in new for part in each.damaged if part.failure})
        ),
        message="; ".join(each.message for each in new[:NAMED_MAX]),
        time=context.now(),
        backup_id=one,
    )
    if _tell(request, context, happened):
        for each in new:
            verify.remember_told(each, context)


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
    told = tell(request.notifications, happened) if request.notifications is not None else None
    if told is None:
        return False
    context.report.told(told)
    return bool(told.sent)


@contextmanager
def _harmless() -> Iterator[None]:
    """Let nothing that goes wrong with telling reach the run."""
    try:
        yield
    except Exception as error:
        _, reason, message = explain(error)
        _LOG.warning("telling people went wrong", reason=reason, why=message)
