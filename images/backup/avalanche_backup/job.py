"""The edge towards Kubernetes: the request from the environment, the result into the termination message.

Protocol lines go to standard output, logs as JSON to standard error. SIGTERM ends the run with 143, however far it
was: what is not committed does not exist.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TextIO

import structlog

from avalanche_backup.errors import (
    Failure,
    RemovalRefused,
    RestoreRefused,
    TargetLocked,
    Terminated,
    UsageInvalid,
    explain,
    is_uncertain,
)
from avalanche_backup.verbs.context import Context
from avalanche_contract import names
from avalanche_contract.exitcodes import ExitCode
from avalanche_contract.log import Progress, write_line
from avalanche_contract.notification import Told
from avalanche_contract.request import Request
from avalanche_contract.result import (
    Checked,
    Decision,
    Drilled,
    Entry,
    Listed,
    Plan,
    Result,
    Unreadable,
    Verdict,
    dump_result,
)
from avalanche_contract.wire import RequestInvalid, parse_request

ENV_TERMINATION_LOG = "AVALANCHE_TERMINATION_LOG"
PROGRESS_SECONDS = 5.0


class LogReport:
    """Tells the operator by lines of the log; progress at most every five seconds, or when the phase changes."""

    def __init__(self, nonce: str, output: TextIO) -> None:
        self._nonce, self._output = nonce, output
        self._last: tuple[float, str, str] = (0.0, "", "")
        self._count = 0
        self.notification: Told | None = None

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Write a line of progress, now and then."""
        now = time.monotonic()
        if (phase, source) == self._last[1:] and now - self._last[0] < PROGRESS_SECONDS:
            return
        self._last = (now, phase, source)
        told = Progress(phase=phase, source=source, done_bytes=done_bytes, total_bytes=total_bytes)
        self._write(write_line(self._nonce, "progress", told))

    def entry(self, entry: Entry) -> None:
        """Write one entry of a page."""
        self._count += 1
        self._write(write_line(self._nonce, "entry", entry))

    def plan(self, plan: Plan) -> None:
        """Write the plan."""
        self._count += 1
        self._write(write_line(self._nonce, "plan", plan))

    def told(self, told: Told) -> None:
        """Keep it for the result; a mail server that fails is a warning, never a failed backup."""
        self.notification = told
        for channel, why in told.failed.items():
            structlog.get_logger().warning("nobody was told", channel=channel, occasion=told.event, why=why)

    def decision(self, decision: Decision) -> None:
        """Write what retention says of one backup."""
        self._count += 1
        self._write(write_line(self._nonce, "decision", decision))

    def checked(self, checked: Checked) -> None:
        """Write what a verification found of one backup."""
        self._count += 1
        self._write(write_line(self._nonce, "checked", checked))

    def drilled(self, drilled: Drilled) -> None:
        """Write what a drill came to."""
        self._count += 1
        self._write(write_line(self._nonce, "drilled", drilled))

    def listed(self, listed: Listed) -> None:
        """Write a page of what is there."""
        self._count += 1
        self._write(write_line(self._nonce, "listed", listed))

    def unreadable(self, found: Unreadable) -> None:
        """Write which metadata file cannot be read."""
        self._count += 1
        self._write(write_line(self._nonce, "unreadable", found))

    def end(self) -> None:
        """Write the closing line, which counts the lines of the answer."""
        self._write(write_line(self._nonce, "end", {"count": self._count}))

    def _write(self, line: str) -> None:
        self._output.write(line + "\n")
        self._output.flush()


def main() -> int:
    """Run the request of the environment, and give the exit code."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        request = _read_request()
    except Failure as failure:
        return _end(None, failure, None)
    signal.signal(signal.SIGTERM, _terminate)
    report = LogReport(request.nonce, sys.stdout)
    scratch = Path(request.scratch) / f"run-{os.getpid()}"
    log = structlog.get_logger().bind(verb=request.verb, job=os.environ.get(names.ENV_JOB_NAME, ""))
    log.info("started")
    ended: Result | BaseException
    try:
        _make(scratch)
        ended = _run(request, report, scratch)
        report.end()
    except BaseException as error:  # the edge: whatever it was, the result says so
        report.end()
        ended = error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    code = _end(request, ended, report.notification)
    log.info("ended", exit_code=code)
    return code


def _make(scratch: Path) -> None:
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageInvalid(
            f"scratch {scratch.parent} cannot be written: {error.strerror}. See podTemplate.scratch",
            reason="ScratchUnusable",
        ) from None


def _run(request: Request, report: LogReport, scratch: Path) -> Result:
    from avalanche_backup.verbs.dispatch import run  # noqa: PLC0415 - loading may fail, and the result must say so

    context = Context(
        report=report,
        scratch=scratch,
        job_name=os.environ.get(names.ENV_JOB_NAME, ""),
        job_uid=os.environ.get(names.ENV_JOB_UID, ""),
    )
    return run(request, context)


def _read_request() -> Request:
    text = os.environ.get(names.ENV_REQUEST)
    if text is None:
        raise UsageInvalid(f"{names.ENV_REQUEST} is not set: `job` is what the operator's Jobs run")
    try:
        return parse_request(text, os.environ.get(names.ENV_REQUEST_SHA256))
    except RequestInvalid as error:
        raise UsageInvalid(str(error)) from None


def _terminate(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what follows tidies up
    raise Terminated


def _end(request: Request | None, ended: Result | BaseException, told: Told | None) -> int:
    result = ended if isinstance(ended, Result) else _failed(request, ended)
    if told is not None:
        result = result.model_copy(update={"notified": not told.failed, "notification": told})
    path = Path(os.environ.get(ENV_TERMINATION_LOG, str(names.TERMINATION_LOG)))
    text = dump_result(result)
    try:
        path.write_text(text)
    except OSError as error:
        structlog.get_logger().error("the result could not be written", path=str(path), error=error.strerror)
    if not isinstance(ended, Result):
        structlog.get_logger().error(result.message, reason=result.reason)
    return exit_code(ended)


def _failed(request: Request | None, error: BaseException) -> Result:
    _, reason, message = explain(error)
    verdict: Verdict = "Failed"
    if isinstance(error, TargetLocked):
        verdict = "Skipped"
    elif isinstance(error, RestoreRefused | RemovalRefused):
        verdict = "Refused"
    return Result(
        nonce=request.nonce if request else "",
        verb=request.verb if request else "",
        verdict=verdict,
        reason=reason,
        message=message,
        may_be_committed=is_uncertain(error),
    )


def exit_code(ended: Result | BaseException) -> int:
    """Give the exit code of a result or of what was raised instead."""
    if isinstance(ended, Result):
        return ExitCode.OK if ended.verdict == "Succeeded" else ExitCode.SUSPECT
    return explain(ended)[0]
