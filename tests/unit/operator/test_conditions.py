"""Conditions as kstatus and people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from avalanche_operator.kube.conditions import Verdict, merge_conditions, ready
from avalanche_operator.kube.events import changed, event, write_status
from avalanche_operator.kube.gateway import Refused
from tests.fakes.gateway import FakeGateway
from tests.fakes.world import finished
from tests.unit.operator.objects import S3_SPEC, found

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
GOOD, BAD = Verdict("Ready", "True", "Usable", "works"), Verdict("Ready", "False", "Broken", "does not")


def test_the_time_moves_with_the_status_and_not_with_its_words() -> None:
    first = merge_conditions([], [BAD], generation=1, now=NOW)
    reworded = merge_conditions(first, [Verdict("Ready", "False", "Worse", "still")], generation=2, now=LATER)
    assert (
        reworded[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
        and reworded[0]["observedGeneration"] == 2
    )
    assert (
        merge_conditions(first, [GOOD], generation=2, now=LATER)[0]["lastTransitionTime"]
        != first[0]["lastTransitionTime"]
    )


def test_what_is_no_longer_said_is_gone() -> None:
    before = merge_conditions([], ready(BAD), generation=1, now=NOW)
    assert [each["type"] for each in before] == ["Ready", "Reconciling"]
    assert [each["type"] for each in merge_conditions(before, ready(GOOD), generation=1, now=NOW)] == [
        "Ready"
    ]


def test_what_will_not_mend_itself_is_stalled() -> None:
    assert [each.type for each in ready(BAD, stalled=True)] == ["Ready", "Stalled"]


def test_an_event_is_written_when_the_reason_changes_and_only_then() -> None:
    before = merge_conditions([], [BAD], generation=1, now=NOW)
    assert changed(before, [BAD], "Ready") is None
    assert changed(before, [GOOD], "Ready") == GOOD


def test_a_long_message_is_cut_to_what_an_event_takes() -> None:
    about = found("BackupStorage", "s3", S3_SPEC)
    made = event(about, reason="Broken", message="x" * 5000, warning=True, now=NOW)
    assert len(made["message"]) == 1024 and made["type"] == "Warning"


def test_an_event_of_one_look_is_one_event_however_often_it_is_written() -> None:
    about = found("BackupStorage", "s3", S3_SPEC)
    about["metadata"]["resourceVersion"] = "7"
    first = event(about, reason="Broken", message="x", warning=True, now=NOW)
    again = event(about, reason="Broken", message="x", warning=True, now=LATER)
    assert first["metadata"]["name"] == again["metadata"]["name"]
    about["metadata"]["resourceVersion"] = "8"
    later = event(about, reason="Broken", message="x", warning=True, now=LATER)
    assert later["metadata"]["name"] != first["metadata"]["name"]


def test_killed_between_event_and_status_nothing_is_lost_and_nothing_is_told_twice() -> None:
    gateway, writes = FakeGateway(lambda: NOW), 0

    def kill() -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise RuntimeError("killed before the status was written")

    about = gateway.put(found("BackupStorage", "s3", S3_SPEC))
    gateway.on_write = kill
    with pytest.raises(RuntimeError):
        finished(write_status(gateway, about, {"a": "b"}, news=BAD, now=NOW))
    assert finished(write_status(gateway, about, {"a": "b"}, news=BAD, now=LATER))
    assert [key[0] for key in gateway.objects] == ["BackupStorage", "Event"]


def test_an_event_that_is_not_allowed_keeps_no_status_back() -> None:
    gateway = FakeGateway(lambda: NOW)
    about = gateway.put(found("BackupStorage", "s3", S3_SPEC))
    gateway.refusals["Event"] = Refused(403, "exceeded quota")
    assert finished(write_status(gateway, about, {"a": "b"}, news=BAD, now=NOW))
