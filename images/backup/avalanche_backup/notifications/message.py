"""The text of a message. Pure: plain text, and every name in it on one line, so that no name becomes a header."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from avalanche_contract.notification import Event

SUBJECT_MAX = 200
LINE_MAX = 2000
_VERBS: dict[Event, str] = {
    "Failed": "failed",
    "Recovered": "works again",
    "Suspect": "is suspect",
    "VerificationFailed": "failed verification",
    "Missed": "did not run",
    "ObjectiveMissed": "misses its recovery objective",
    "DrillFailed": "could not be restored in a drill",
}
_WHAT_TO_DO: dict[Event, str] = {
    "Failed": "This run left no backup; earlier ones are untouched. Mend what the message names: the next run, or one by "
    "hand, shows whether that was it. You will be told when it works again.",
    "Recovered": "Nothing is to be done.",
    "Suspect": "The backup is kept and counts as none: retention goes by the good ones. Look whether the source is as it "
    "should be; accept the backup only if it is.",
    "VerificationFailed": "What lies in storage is not what was written. Restore from another backup or copy, make a new "
    "backup now, and look at the storage.",
    "ObjectiveMissed": "If everything were lost now, more would be gone, or it would take longer, than is allowed. Look why "
    "there is no newer good backup, or why restoring takes so long. You will be told when it is met again.",
    "DrillFailed": "A backup that cannot be restored is none. Look what the message says: whether data is missing or damaged, or "
    "the drill itself lacks something; then drill again. You will be told when a drill succeeds again.",
    "Missed": "No backup was made. Look whether the scheduler, the nodes and the run before it are in order.",
}


@dataclass(frozen=True)
class Occurrence:
    """What happened: ``subject`` is what it happened to, ``where`` is ``<namespace>/<policy>`` or the host."""

    event: Event
    subject: str
    where: str
    reason: str
    message: str
    time: datetime
    backup_id: str = ""
    run_identity: str = ""


@dataclass(frozen=True)
class Message:
    """What is sent."""

    subject: str
    body: str


def compose(happened: Occurrence) -> Message:
    """Write the message of an occurrence."""
    told = one_line(f"{happened.subject} {_VERBS[happened.event]}")
    reason = "" if happened.event == "Recovered" else f": {one_line(happened.reason)}"
    subject = f"[avalanche] {told}{reason} ({one_line(happened.where)})"
    facts = [
        ("Reason", happened.reason),
        ("Where", happened.where),
        ("Backup", happened.backup_id),
        ("Run", happened.run_identity),
        ("Time", f"{happened.time:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    lines = [
        one_line(happened.message) or f"{told}.",
        "",
        _WHAT_TO_DO[happened.event],
        "",
        *(f"{name + ':':<9}{one_line(value)}" for name, value in facts if value),
    ]
    return Message(_shortened(subject, SUBJECT_MAX), "\n".join(lines) + "\n")


def one_line(text: str) -> str:
    """Put a text on one line: what is not printed becomes a space."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return _shortened(" ".join(plain.split()), LINE_MAX)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
