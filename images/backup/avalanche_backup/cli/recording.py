"""Around a command that does something: its beginning and end in the log, and mail where it could not even begin."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from avalanche_backup.cli import logfile
from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.output import ConsoleReport
from avalanche_backup.errors import Failure, RunUnderWay, explain
from avalanche_contract.names import BackupType, backup_id

if TYPE_CHECKING:
    from avalanche_backup.notifications.message import Occurrence

_LOG = structlog.get_logger()


@dataclass
class Ended:
    """How a command ended that did not fail: not every success is one that a script should take for whole."""

    exit_code: int = 0


@contextmanager
def recorded(configuration: Configuration, command: str) -> Iterator[Ended]:
    """Keep what a command does in the log; what is yielded takes the exit code of one that did not fail."""
    logfile.begin(configuration.root_dir, configuration.keep_days)
    log = _LOG.bind(command=command, pid=os.getpid())
    log.info("started")
    ended = Ended()
    try:
        yield ended
    except SystemExit as left:
        log.error("ended", exit_code=left.code)
        raise
    except BaseException as error:
        code, reason, message = explain(error)
        log.error("ended", exit_code=int(code), reason=reason, message=message)
        raise
    log.info("ended", exit_code=int(ended.exit_code))


def tell_of_refusal(configuration: Configuration, backup_type: BackupType, failure: Failure) -> None:
    """Tell that a backup could not begin: no verb was there to do so. One that found another under way was missed."""
    from avalanche_backup.notifications.message import Occurrence  # noqa: PLC0415 - `--help` needs none of it
    from avalanche_backup.notifications.send import tell  # noqa: PLC0415

    now, missed = datetime.now(UTC), isinstance(failure, RunUnderWay)
    happened = Occurrence(
        event="Missed" if missed else "Failed",
        subject=f"{backup_type} backup",
        where=socket.gethostname(),
        reason=failure.reason,
        message=failure.message,
        time=now,
    )
    told = tell(configuration.notifications, happened)
    if told is not None:
        ConsoleReport().told(told)
    if not missed:
        with suppress(Exception):  # so that the next success is known to be a recovery; nothing depends on it
            _remember(configuration, backup_type, happened, told=told is not None and bool(told.sent))


def _remember(
    configuration: Configuration, backup_type: BackupType, happened: Occurrence, *, told: bool
) -> None:
    from avalanche_backup import attempts  # noqa: PLC0415
    from avalanche_backup.storage.opening import open_store  # noqa: PLC0415

    attempt = attempts.Attempt(
        backup_id(backup_type, happened.time), f"standalone/{uuid.uuid4()}", happened.time, happened.reason, happened.message,
        told_time=happened.time if told else None, told_reason=happened.reason if told else "",
    )  # fmt: skip
    for place in configuration.places:
        with suppress(Failure):
            attempts.record(open_store(place.storage), place.prefix, attempt)
