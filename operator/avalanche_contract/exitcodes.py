"""Exit codes of the backup image, a documented enum: scripts and ``podFailurePolicy`` both rely on them.

An unknown code means failure. The scheme follows restic's: what a script can act on has a code of its own.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process's end says. Numbers are never reused."""

    OK = 0
    UNEXPECTED = 1
    """A defect or an unforeseen failure. Worth another try."""
    USAGE = 2
    """The request, the configuration or the command line is wrong. Only a change mends it."""
    SOURCE_UNAVAILABLE = 10
    """The database or volume did not answer. Worth another try."""
    SOURCE_INVALID = 11
    """The source cannot be backed up as it is: wrong password, empty, corrupt, unreadable, server too new."""
    STORAGE_UNAVAILABLE = 12
    """The storage did not answer, or broke off. Worth another try."""
    STORAGE_INVALID = 13
    """The storage refuses: no such bucket, no permission, no conditional writes, full."""
    CREDENTIALS_MISSING = 14
    """A Secret, a key of it or an environment variable is missing."""
    VERIFICATION_FAILED = 15
    """What lies in storage is not what was written."""
    SUSPECT = 16
    """The backup was written, and looks wrong."""
    RESTORE_REFUSED = 17
    """The target is untouched: no confirmation, or the plan no longer fits."""
    RESTORE_FAILED = 18
    """The restore began and did not end well; the target is marked."""
    SKIPPED = 19
    """Nothing was done, on purpose: the target is being restored, or another run is under way."""
    NOT_FOUND = 20
    """No such backup."""
    REMOVAL_REFUSED = 21
    """Nothing was removed: too much would go at once, the backup is held or needed, or nobody confirmed."""
    NOTIFICATION_FAILED = 22
    """Of the verb ``notify`` alone: somebody could not be told."""
    COPIES_MISSING = 23
    """Fewer copies were made than are needed. What was made stays; another try completes the others from it."""
    COPIES_INCOMPLETE = 24
    """Of the command line: the backup is there and good, and fewer copies of it than there are places."""
    DRILL_FAILED = 25
    """The backup could not be restored into a throwaway target, or what came back is not what was expected."""
    INTERRUPTED = 130
    """SIGINT."""
    TERMINATED = 143
    """SIGTERM: never a success, however far the work was (kubernetes/kubernetes#120182)."""


RETRYABLE = frozenset(
    {
        ExitCode.UNEXPECTED,
        ExitCode.SOURCE_UNAVAILABLE,
        ExitCode.STORAGE_UNAVAILABLE,
        ExitCode.COPIES_MISSING,
        ExitCode.TERMINATED,
    }
)
"""Failures that another attempt may mend."""

PERMANENT = tuple(sorted(code for code in ExitCode if code not in RETRYABLE and code is not ExitCode.OK))
"""Failures that another attempt repeats: ``podFailurePolicy`` ends the Job on them."""
