"""What can go wrong, as a tree: each failure knows its reason, its exit code and what to tell a person.

::

    Failure
    ├── UsageInvalid            the request, configuration or command line
    ├── CredentialsMissing      a Secret, a key of it, an environment variable
    │   └── IdentityMissing     nothing that was given opens an encrypted backup
    ├── SourceUnavailable       no answer, broken off: another try may do
    ├── SourceInvalid           wrong password, empty, corrupt, unreadable, server too new
    ├── StorageUnavailable      no answer, broken off: another try may do
    ├── StorageInvalid          no bucket, no permission, full, no conditional writes, another owner
    │   └── ObjectExists        a create-only write found the name taken
    ├── ObjectMissing           a read found nothing
    ├── BackupMissing           no such backup
    ├── CopiesMissing           fewer copies than are needed: another try completes them
    ├── VerificationFailed      stored bytes are not what was written
    ├── RestoreRefused          the target is untouched
    ├── RestoreFailed           the target is marked
    ├── TargetLocked            the target is being restored: nothing was done
    ├── RunUnderWay             another run of the command line is under way: nothing was done
    ├── RemovalRefused          too much at once, held, needed, not confirmed: nothing was removed
    ├── DrillFailed             a backup could not be restored into a throwaway target, or is not what was expected
    └── NotificationFailed      somebody could not be told

Domain code raises these and nothing else on purpose; the edges (:mod:`job`, :mod:`cli`) map them.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from avalanche_contract.exitcodes import ExitCode


class Failure(Exception):
    """Something went wrong that we can name.

    ``message`` is for a person: what happened and what to do, without secrets and without response bodies.
    ``reason`` is CamelCase, and becomes the reason of a condition.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED
    default_reason: ClassVar[str] = "Unexpected"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


_UNCERTAIN = "the metadata may have been written all the same"


def mark_uncertain(error: BaseException) -> None:
    """Note on whatever ended a commit that the backup may exist all the same."""
    error.add_note(_UNCERTAIN)


def is_uncertain(error: BaseException) -> bool:
    """Say whether a commit was under way: only what lies in storage tells how it ended."""
    return _UNCERTAIN in getattr(error, "__notes__", ())


def describe_defect(error: BaseException) -> str:
    """Say what an unforeseen error was and where: its text may hold anything, a secret as well."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__} at {place}: a defect; please report it"


class UsageInvalid(Failure):
    """The request, the configuration or the command line is wrong."""

    exit_code = ExitCode.USAGE
    default_reason = "RequestInvalid"


class CredentialsMissing(Failure):
    """A Secret, a key of it or an environment variable is missing."""

    exit_code = ExitCode.CREDENTIALS_MISSING
    default_reason = "CredentialsMissing"


class IdentityMissing(CredentialsMissing):
    """A backup is encrypted, and no identity was given, or none that opens it. Nothing was read yet."""

    default_reason = "IdentityMissing"


class SourceUnavailable(Failure):
    """The database or volume did not answer, or broke off."""

    exit_code = ExitCode.SOURCE_UNAVAILABLE
    default_reason = "SourceUnavailable"


class SourceInvalid(Failure):
    """The source cannot be backed up as it is."""

    exit_code = ExitCode.SOURCE_INVALID
    default_reason = "SourceInvalid"


class StorageUnavailable(Failure):
    """The storage did not answer, or broke off."""

    exit_code = ExitCode.STORAGE_UNAVAILABLE
    default_reason = "StorageUnavailable"


class StorageInvalid(Failure):
    """The storage refuses, and will refuse again."""

    exit_code = ExitCode.STORAGE_INVALID
    default_reason = "StorageInvalid"


class ObjectExists(StorageInvalid):
    """A create-only write found the name taken."""

    default_reason = "ObjectExists"


class ObjectMissing(Failure):
    """A read found nothing under the name."""

    exit_code = ExitCode.VERIFICATION_FAILED
    default_reason = "ObjectMissing"


class BackupMissing(Failure):
    """There is no such backup."""

    exit_code = ExitCode.NOT_FOUND
    default_reason = "BackupNotFound"


class CopiesMissing(Failure):
    """A backup was committed in fewer places than are needed; those copies stay, and another try completes the others."""

    exit_code = ExitCode.COPIES_MISSING
    default_reason = "CopiesMissing"


class VerificationFailed(Failure):
    """What lies in storage is not what was written."""

    exit_code = ExitCode.VERIFICATION_FAILED
    default_reason = "VerificationFailed"


class RestoreRefused(Failure):
    """The restore was not begun; the target is untouched."""

    exit_code = ExitCode.RESTORE_REFUSED
    default_reason = "RestoreRefused"


class RestoreFailed(Failure):
    """The restore began and did not end well; the target is marked."""

    exit_code = ExitCode.RESTORE_FAILED
    default_reason = "RestoreFailed"


class TargetLocked(Failure):
    """The target is being restored: no backup may capture it half restored."""

    exit_code = ExitCode.SKIPPED
    default_reason = "TargetBeingRestored"


class RemovalRefused(Failure):
    """Nothing was removed: too much would go at once, the backup is held or needed, or nobody confirmed."""

    exit_code = ExitCode.REMOVAL_REFUSED
    default_reason = "TooManyRemovals"


class DrillFailed(Failure):
    """A backup could not be restored into a throwaway target, or what came back is not what was expected."""

    exit_code = ExitCode.DRILL_FAILED
    default_reason = "DrillFailed"


class RunUnderWay(Failure):
    """Another run of the command line works here: nothing was done."""

    exit_code = ExitCode.SKIPPED
    default_reason = "AlreadyRunning"


class NotificationFailed(Failure):
    """Somebody could not be told; no backup is the worse for it."""

    exit_code = ExitCode.NOTIFICATION_FAILED
    default_reason = "NotificationFailed"


class Terminated(BaseException):
    """SIGTERM arrived: everything under way is given up."""


def explain(error: BaseException) -> tuple[ExitCode, str, str]:
    """Give exit code, reason and message of whatever ended a run."""
    if isinstance(error, Failure):
        return error.exit_code, error.reason, error.message
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, "Interrupted", "the run was interrupted before it was complete"
    if isinstance(error, Terminated):
        return ExitCode.TERMINATED, "Terminated", "told to stop before the run was complete"
    return ExitCode.UNEXPECTED, "Unexpected", describe_defect(error)
