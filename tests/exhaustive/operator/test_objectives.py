"""Recovery objectives: judged purely as time passes, and the whole operator killed at every write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_operator.api.objectives import ObjectivesStatus, PolicyObjectives
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.kube.conditions import Verdict
from avalanche_operator.objectives.decide import Measured, after, judged, measured
from avalanche_operator.policies.decide import Tally
from tests.fakes.twin import two_operators
from tests.fakes.world import NAMESPACE, World, Writes, undisturbed
from tests.unit.operator.objects import CHAT, DATABASE, MAIL, S3_SPEC, found, policy_spec

Object = dict[str, Any]
NOW = datetime(2026, 3, 8, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = 24 * HOUR


def _judged(newest: datetime | None, took: int | None = None, now: datetime = NOW, **asked: int) -> Any:
    found = Measured(took, "RestoreRequest back took it", NOW) if took is not None else None
    return judged(PolicyObjectives(**asked), newest=newest, found=found, created=NOW - DAY, now=now)


# --- judging ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("age", "status", "reason"), [
    (HOUR, "True", "ObjectivesMet"),
    (26 * HOUR - timedelta(seconds=1), "True", "ObjectivesMet"),
    (26 * HOUR, "False", "RecoveryPointMissed"),
    (9 * DAY, "False", "RecoveryPointMissed"),
])  # fmt: skip
def test_the_data_of_the_newest_good_backup_may_be_so_old_and_no_older(
    age: timedelta, status: str, reason: str
) -> None:
    verdict, due = _judged(NOW - age, recovery_point_seconds=26 * 3600)
    assert (verdict.status, verdict.reason) == (status, reason)
    assert due == (NOW - age + 26 * HOUR if status == "True" else None)


@given(age=st.integers(0, 10**7), allowed=st.integers(60, 10**7))
def test_it_is_met_until_it_is_due_and_missed_from_then_on(age: int, allowed: int) -> None:
    newest = NOW - timedelta(seconds=age)
    verdict, due = _judged(newest, recovery_point_seconds=allowed)
    assert (verdict.status == "True") == (age < allowed)
    if due is not None:
        before, _ = _judged(newest, now=due - timedelta(seconds=1), recovery_point_seconds=allowed)
        at, again = _judged(newest, now=due, recovery_point_seconds=allowed)
        assert (before.status, at.status, again) == ("True", "False", None)


def test_the_sentence_says_since_when_and_does_not_change_as_time_passes() -> None:
    told = {_judged(NOW - 30 * HOUR, now=NOW + each * HOUR, recovery_point_seconds=93600)[0] for each in range(5)}  # fmt: skip
    (verdict,) = told
    assert verdict.message == (
        "the newest good backup is of 2026-03-07T00:00:00Z; its data may be 1 d 2 h old:"
        " missed since 2026-03-08T02:00:00Z"
    )


def test_a_new_policy_has_as_long_as_its_objective_for_its_first_backup() -> None:
    verdict, due = _judged(None, recovery_point_seconds=26 * 3600)
    assert (verdict.status, verdict.reason, due) == ("Unknown", "NoBackupYet", NOW + 2 * HOUR)
    assert _judged(None, recovery_point_seconds=23 * 3600)[0].reason == "RecoveryPointMissed"


@pytest.mark.parametrize(("took", "status", "reason"), [
    (None, "Unknown", "RecoveryTimeUnknown"),
    (3600, "True", "ObjectivesMet"),
    (3601, "False", "RecoveryTimeMissed"),
])  # fmt: skip
def test_a_recovery_may_take_so_long_and_no_longer(took: int | None, status: str, reason: str) -> None:
    verdict, due = _judged(NOW, took, recovery_time_seconds=3600)
    assert (verdict.status, verdict.reason, due) == (status, reason, None)


def test_what_is_missed_counts_more_than_what_is_not_known_and_both_are_said() -> None:
    both: dict[str, Any] = {"recovery_point_seconds": 3600, "recovery_time_seconds": 60}
    verdict, _ = _judged(NOW - DAY, None, **both)
    assert verdict.reason == "RecoveryPointMissed" and "none was measured" in verdict.message
    assert _judged(NOW, None, **both)[0].reason == "RecoveryTimeUnknown"
    assert _judged(NOW, 10, **both)[0].status == "True"


def _restore(name: str, phase: str, ended: datetime | None, seconds: int, **spec: Any) -> Object:
    plan = {
        "digest": "sha256:" + "0" * 64, "backupID": "database_20260301_020000", "checksum": "sha256:" + "0" * 64,
        "storage": "s3", "snapshotTime": NOW, "targets": [], "needsApproval": True, "estimatedSeconds": seconds + 1,
    }  # fmt: skip
    backup = {
        "name": "b", "backupID": "database_20260301_020000", "type": "database", "storage": "s3", "prefix": "p/",
        "policy": "nightly",
    }  # fmt: skip
    status: Object = {"phase": phase, "backup": backup, "plan": plan}
    if ended is not None:
        status |= {"completionTime": ended, "durationSeconds": seconds}
    return found("RestoreRequest", name, {"backupRef": {"name": "b"}, **spec}, status)


def test_the_last_restore_of_everything_says_how_long_it_takes_and_before_one_a_plan() -> None:
    planned = _restore("plan", "AwaitingApproval", None, 99)
    old, new = (
        _restore("old", "Succeeded", NOW - DAY, 50),
        _restore("new", "Succeeded", NOW, 70),
    )
    failed, part = (
        _restore("failed", "Failed", NOW + HOUR, 1),
        _restore("part", "Succeeded", NOW + HOUR, 2, paths=["a"]),
    )
    took = measured([planned, old, new, failed, part], "nightly")
    assert took is not None and (took.seconds, took.by) == (70, "RestoreRequest new took it")
    guess = measured([planned, part], "nightly")
    assert guess is not None and guess.seconds == 100 and "estimates" in guess.by
    assert measured([old], "another") is None


def _backup(
    name: str, hour: int, phase: str = "Succeeded", verified: str = "Verified", **more: Any
) -> Object:
    moment = f"2026-03-01T{hour:02}:00:00Z"
    status = {
        "phase": phase,
        "snapshotTime": moment,
        "startTime": moment,
        "verification": {"status": verified},
    }
    return found("Backup", name, {"policyRef": {"name": "nightly"}}, {**status, **more})


def test_only_a_good_verified_backup_that_is_there_counts_and_one_from_the_future_does_not() -> None:
    tally = Tally(until=datetime(2026, 3, 1, 12, tzinfo=UTC))
    for each in (
        _backup("good", 2),
        _backup("accepted", 3, "Suspect", anomalyAccepted=True),
        _backup("suspect", 4, "Suspect"),
        _backup("failed", 5, "Failed"),
        _backup("damaged", 6, verified="VerificationFailed"),
        _backup("unread", 7, verified="NotVerified"),
        _backup("removed", 8, removal={"reason": "Expired"}),
        _backup("tomorrow", 13),
    ):
        tally.add(each)
    assert tally.newest == datetime(2026, 3, 1, 3, tzinfo=UTC)


# --- telling ----------------------------------------------------------------------------------------------
MET, MISSED = Verdict("ObjectivesMet", "True", "ObjectivesMet"), Verdict("ObjectivesMet", "False", "RecoveryPointMissed")  # fmt: skip
UNKNOWN = Verdict("ObjectivesMet", "Unknown", "NoBackupYet")


def _channels(*found: Object) -> Any:
    return BackupPolicySpec.model_validate(policy_spec(notifications=list(found))).notifications


def _sent(status: ObjectivesStatus) -> ObjectivesStatus:
    told = status.notification
    assert told is not None and told.state == "Pending"
    return status.model_copy(update={"notification": told.model_copy(update={"state": "Sent"})})


def test_a_miss_is_told_once_and_its_end_once() -> None:
    status = after(ObjectivesStatus(), MISSED, _channels(MAIL), NOW)
    assert status.notification is not None and status.notification.event == "ObjectiveMissed"
    assert after(status, MET, _channels(MAIL), NOW + HOUR) == status, "one after the other"
    told = _sent(status)
    assert after(told, MISSED, _channels(MAIL), NOW + HOUR) == told
    assert after(told, UNKNOWN, _channels(MAIL), NOW + HOUR) == told
    over = after(told, MET, _channels(MAIL), NOW + HOUR)
    assert over.notification is not None and over.notification.event == "Recovered"
    assert after(_sent(over), MET, _channels(MAIL), NOW + 2 * HOUR) == _sent(over)


def test_what_comes_and_goes_is_not_told_twice_within_half_a_day() -> None:
    told = _sent(after(ObjectivesStatus(), MISSED, _channels(MAIL), NOW))
    over = _sent(after(told, MET, _channels(MAIL), NOW + HOUR))
    assert after(over, MISSED, _channels(MAIL), NOW + 2 * HOUR) == over
    again = after(over, MISSED, _channels(MAIL), NOW + 13 * HOUR)
    assert again.notification is not None and again.notification.slot == NOW + 13 * HOUR


def test_whoever_is_named_while_it_is_missed_is_told_and_who_did_not_ask_is_not() -> None:
    unheard = after(ObjectivesStatus(), MISSED, _channels(CHAT), NOW)
    assert unheard == ObjectivesStatus()
    late = after(unheard, MISSED, _channels(CHAT, MAIL), NOW + HOUR)
    assert late.notification is not None and late.notification.channels == ("mail",)
    silent = after(_sent(late), MET, _channels(CHAT), NOW + 2 * HOUR)
    assert silent.missed_time is None and silent.notification == _sent(late).notification


# --- the whole operator -------------------------------------------------------------------------------------
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)
MISSED_AT = SLOT + 26 * HOUR


def _world() -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    asked = {"recoveryPointSeconds": 26 * 3600}
    # No slot is ever missed here: what is told is told of objectives.
    spec = policy_spec(DATABASE, schedule="0 0 1 1 *", notifications=[MAIL, CHAT], objectives=asked)
    world.person("BackupPolicy", "nightly", spec)
    return world


def _condition(world: World) -> Object:
    return world.condition("BackupPolicy", "nightly", "ObjectivesMet")


def _story(world: World) -> None:
    """A backup; a day and two hours without one, which is missed; then another one."""
    world.run(5)
    world.fire("nightly", SLOT)
    world.run(6)
    world.time = MISSED_AT + HOUR
    world.run(8)
    world.fire("nightly", MISSED_AT + HOUR)
    world.run(12)


def _came_to(world: World) -> Object:
    told = world.status("BackupPolicy", "nightly")["objectives"]
    return {
        "told": world.told,
        "reason": _condition(world)["reason"],
        "state": told["notification"]["state"],
        "open": told.get("missedTime"),
    }


EXPECTED, WRITES = undisturbed(_world, _story, _came_to)


def test_undisturbed_it_is_told_that_it_is_missed_and_that_it_is_met_again() -> None:
    assert EXPECTED == {
        "told": [("ObjectiveMissed", "mail", "RecoveryPointMissed"), ("Recovered", "mail", "ObjectivesMet")],
        "reason": "ObjectivesMet",
        "state": "Sent",
        "open": None,
    }


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_killed_between_any_two_writes_it_is_told_neither_never_nor_twice(number: int) -> None:
    world = _world()
    writes = Writes(world, number)
    _story(world)
    assert writes.count >= number
    assert _came_to(world) == EXPECTED


def _calls() -> int:
    """Count the writes that an operator asks for: also those that change nothing."""
    world = _world()
    alone = two_operators(world, 0)
    _story(world)
    return alone.count


@pytest.mark.parametrize("number", range(1, _calls() + 1))
def test_a_second_operator_before_any_write_of_the_first_tells_nobody_twice(number: int) -> None:
    world = _world()
    overtaken = two_operators(world, number)
    _story(world)
    assert overtaken.overtaken
    assert _came_to(world) == EXPECTED


def test_the_policy_is_looked_at_again_at_the_moment_of_the_miss() -> None:
    world = _world()
    world.run(5)
    world.fire("nightly", SLOT)
    world.run(6)
    newest = datetime.fromisoformat(
        world.status("BackupPolicy", "nightly")["objectives"]["recoveryPointTime"]
    )
    world.time = newest + 26 * HOUR - timedelta(seconds=200)
    world.run(6)  # the probe of the sources is due as well
    world.time = newest + 26 * HOUR - timedelta(seconds=90)
    assert world.look("BackupPolicy", "nightly") == pytest.approx(90)
    assert _condition(world)["status"] == "True"
    world.time = newest + 26 * HOUR
    world.look("BackupPolicy", "nightly")
    assert (_condition(world)["status"], _condition(world)["reason"]) == ("False", "RecoveryPointMissed")


def test_while_it_is_missed_nothing_is_written_as_time_passes() -> None:
    world = _world()
    _story(world)
    world.time += 3 * DAY
    world.run(8)
    before = _condition(world), world.status("BackupPolicy", "nightly")["objectives"]
    for _ in range(3):
        world.time += HOUR
        world.run(3)
    assert (_condition(world), world.status("BackupPolicy", "nightly")["objectives"]) == before
    assert before[0]["status"] == "False"


def test_a_backup_that_is_found_damaged_misses_the_objective_that_it_met() -> None:
    world = _world()
    world.run(5)
    world.fire("nightly", SLOT)
    world.run(6)
    assert _condition(world)["status"] == "True"
    world.rotten["database_20260301_020000"] = {"s3"}
    world.fire("nightly", SLOT + HOUR, "verify")
    world.run(6)
    assert _condition(world)["reason"] == "NoBackupYet"


def test_without_objectives_nothing_is_said_and_taking_them_away_ends_it() -> None:
    world = _world()
    _story(world)
    world.change("BackupPolicy", "nightly", objectives=None)
    world.run(2)
    assert _condition(world) == {} and "objectives" not in world.status("BackupPolicy", "nightly")
    assert ("BackupPolicy", NAMESPACE, "nightly") in world.gateway.objects
