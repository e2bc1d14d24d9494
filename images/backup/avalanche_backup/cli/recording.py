"""Around a command that does something: its beginning and end in the log, and mail where it could not even begin."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from avalanche_backup.cli import logfile
from avalanche_backup.cli.configuration import Configuration
from avalanche_backup.cli.output import ConsoleReport
from avalanche_backup.errors import Failure, RunUnderWay, explain
from avalanche_contract.names import BackupType

_LOG = structlog.get_logger()


@contextmanager
def recorded(configuration: Configuration, command: str) -> Iterator[None]:
    """Keep what a command does in the log."""
    logfile.begin(configuration.root_dir, configuration.keep_days)
    log = _LOG.bind(command=command, pid=os.getpid())
    log.info("started")
    try:
        yield
    except SystemExit as ended:
        log.error("ended", exit_code=ended.code)
        raise
    except BaseException as error:
        code, reason, message = explain(error)
        log.error("ended", exit_code=int(code), reason=reason, message=message)
        raise
    log.info("ended", exit_code=0)


def tell_of_refusal(configuration: Configuration, backup_type: BackupType, failure: Failure) -> None:
    """Tell that a backup could not begin: no verb was there to do so. One that found another under way was missed."""
    from avalanche_backup.notifications.message import Occurrence  # noqa: PLC0415
    from avalanche_backup.notifications.send import tell  # noqa: PLC0415

    happened = Occurrence(
        event="Missed" if isinstance(failure, RunUnderWay) else "Failed",
        subject=f"{backup_type} backup",
        where=socket.gethostname(),
        reason=failure.reason,
        message=failure.message,
        time=datetime.now(UTC),
    )
    told = tell(configuration.notifications, happened)
    if told is not None:
        ConsoleReport().told(told)
