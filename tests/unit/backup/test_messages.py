"""What is worth telling, and in which words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.attempts import History
from avalanche_backup.notifications import decide
from avalanche_backup.notifications.message import SUBJECT_MAX, Occurrence, compose, one_line
from avalanche_contract.exitcodes import RETRYABLE, ExitCode
from avalanche_contract.notification import EVENTS, Event

MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)


def _happened(event: Event = "Failed", **more: str) -> Occurrence:
    values = {
        "subject": "database backup",
        "where": "edna/nightly",
        "reason": "StorageUnavailable",
        "message": "m",
    }
    return Occurrence(event=event, time=MOMENT, **{**values, **more})


def test_a_subject_says_what_why_and_where() -> None:
    assert (
        compose(_happened()).subject
        == "[avalanche] database backup failed: StorageUnavailable (edna/nightly)"
    )
    assert compose(_happened("Recovered")).subject == "[avalanche] database backup works again (edna/nightly)"


@pytest.mark.parametrize("event", EVENTS)
def test_a_body_says_what_happened_what_to_do_and_which_run(event: Event) -> None:
    body = compose(
        _happened(event, message="the bucket is gone", backup_id="b", run_identity="scheduled/u/1")
    ).body
    first, empty, remedy = body.splitlines()[:3]
    assert first == "the bucket is gone" and empty == "" and len(remedy) > 15
    assert "Backup:  b" in body and "Run:     scheduled/u/1" in body and "2026-03-01 02:00:00 UTC" in body


@given(st.text(), st.text(), st.text())
def test_no_text_becomes_a_second_line_of_a_subject_or_a_long_one(
    where: str, reason: str, subject: str
) -> None:
    made = compose(_happened(where=where, reason=reason, subject=subject)).subject
    assert len(made.splitlines()) == 1 and len(made) <= SUBJECT_MAX and made.isprintable()


@given(st.text())
def test_one_line_is_one_line_and_keeps_every_word(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1 and one_line(line) == line
    if text.isprintable():
        assert line == " ".join(text.split())


@pytest.mark.parametrize("code", ExitCode)
def test_what_may_pass_is_told_only_where_no_try_follows(code: ExitCode) -> None:
    if code in (ExitCode.SKIPPED, ExitCode.OK):
        assert decide.of_failure(ExitCode.SKIPPED, retried=False) is None
        return
    assert decide.of_failure(code, retried=False) == "Failed"
    assert decide.of_failure(code, retried=True) == (None if code in RETRYABLE else "Failed")


def test_a_success_is_news_only_after_a_failure_that_was_told() -> None:
    assert decide.of_success("Succeeded", failing=True) == "Recovered"
    assert decide.of_success("Succeeded", failing=False) is None
    assert decide.of_success("Suspect", failing=True) == "Suspect"


@pytest.mark.parametrize(("reason", "hours", "lately"), [("A", 11, True), ("A", 12, False), ("B", 1, False)])
def test_the_same_failure_is_known_for_twelve_hours(reason: str, hours: int, lately: bool) -> None:
    assert decide.told_lately(reason, "A", MOMENT, MOMENT + timedelta(hours=hours)) is lately
    assert not decide.told_lately(reason, reason, None, MOMENT)
    assert decide.of_failure(ExitCode.SOURCE_INVALID, retried=False, lately=lately) == (
        None if lately else "Failed"
    )


def test_a_failure_lasts_until_a_newer_backup() -> None:
    failed, backups = ("files_20260301_010000", "files_20260301_030000"), ("files_20260301_020000",)
    assert History(failed, backups).last_failure() == "files_20260301_030000"
    assert History(failed[:1], backups).last_failure() is None
    assert History(failed[:1], backups).last_failure(own=backups[0]) == failed[0]
    assert History((), backups).last_failure() is None
