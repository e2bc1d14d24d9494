"""Who is told of what only the operator sees: once, whatever happens to the operator."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given
from hypothesis import strategies as st

from avalanche_contract.notification import EVENTS, Told
from avalanche_operator.api.notification import PolicyNotification
from avalanche_operator.api.policy import CountedSlots
from avalanche_operator.applying.build import backup_job, probe_job
from avalanche_operator.jobs.build import job
from avalanche_operator.notifications.build import notifications_part
from avalanche_operator.notifications.decide import Past, event_of, wanted
from avalanche_operator.notifications.missed import GRACE_SECONDS, MOST, counted, mark_of, missed, passed_over
from avalanche_operator.policies.decide import Tally
from tests.fakes.world import NAMESPACE, World, Writes
from tests.unit.operator.objects import CHAT, DATABASE, MAIL, S3_SPEC, applied, found, policy_spec

Object = dict[str, Any]
SLOT = datetime(2026, 3, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHANNELS = [PolicyNotification.model_validate(each) for each in (MAIL, CHAT)]
ZONES = st.sampled_from(
    ["Etc/UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"]
).map(ZoneInfo)
MOMENTS = st.datetimes(datetime(2011, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))
SCHEDULES = st.sampled_from(["0 2 * * *", "30 2 * * *", "0 3 * * 0", "0 4 1 * *", "15 * * * *", "0 0 29 2 *"])


def _world(**spec: Any) -> World:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE, notifications=[MAIL, CHAT], **spec))
    return world


def _run_at(world: World, slot: datetime, rounds: int = 6) -> None:
    world.time = max(world.time, slot)
    cron_job = next(each for key, each in world.gateway.objects.items() if key[0] == "CronJob")
    cron_job.setdefault("status", {})["lastScheduleTime"] = slot.isoformat()
    world.fire("nightly", slot)
    world.run(rounds)


# --- what is worth telling -----------------------------------------------------------------------------
@pytest.mark.parametrize(("phase", "failing", "event"), [
    ("Failed", False, "Failed"), ("Suspect", True, "Suspect"), ("Succeeded", True, "Recovered"),
    ("Succeeded", False, None), ("Skipped", True, None), ("Running", True, None),
])  # fmt: skip
def test_only_an_end_that_is_news_is_told(phase: str, failing: bool, event: str | None) -> None:
    assert event_of(phase, failing=failing) == event


def _past(*backups: Object) -> Past:
    past = Past(("9999", ""))
    for each in backups:
        past.add(each)
    return past


@given(st.permutations(range(4)))
def test_a_suspect_backup_ends_no_failure_and_a_skipped_run_is_none(order: list[int]) -> None:
    def failing(*phases: str) -> bool:
        row = [
            found("Backup", str(n), {}, {"phase": each, "startTime": f"2026-03-0{n + 1}T02:00:00Z"})
            for n, each in enumerate(phases)
        ]
        return _past(*(row[n] for n in order if n < len(row))).failing

    assert failing("Succeeded", "Failed", "Suspect", "Skipped") and not failing(
        "Failed", "Succeeded", "Suspect"
    )
    assert not failing()


def test_who_was_told_by_the_pod_is_not_told_again() -> None:
    told = Told(event="Failed", sent=("mail",), failed={"chat": "cannot be reached"})
    status = wanted(CHANNELS, "Failed", told)
    assert status is not None and (status.state, status.channels) == ("Pending", ("chat",))
    everybody = wanted(CHANNELS, "Failed", Told(event="Failed", sent=("mail", "chat")))
    assert everybody is not None and everybody.state == "Sent"
    assert wanted(CHANNELS[1:], "Suspect", None) is None
    other = wanted(CHANNELS, "Recovered", told)
    assert other is not None and other.channels == ("mail",)


def test_a_policy_that_fails_every_minute_is_told_twice_a_day_and_another_reason_at_once() -> None:
    def ended(phase: str, hour: int, **status: Any) -> Object:
        at = f"2026-03-01T{hour:02}:00:00Z"
        return found(
            "Backup", str(hour), {}, {"phase": phase, "startTime": at, "completionTime": at, **status}
        )

    sent: Object = {"event": "Failed", "state": "Sent", "channels": ["mail"]}
    row = [
        ended("Failed", 0, failureReason="A", notification=sent),
        *(ended("Failed", n, failureReason="A") for n in (1, 2)),
    ]
    assert _past(*row).told_lately("A", SLOT + HOUR) and not _past(*row).told_lately("B", SLOT + HOUR)
    assert not _past(*row).told_lately("A", SLOT + 10 * HOUR)
    assert not _past(*row, ended("Succeeded", 3)).told_lately("A", SLOT + HOUR)


# --- what is built --------------------------------------------------------------------------------------
def test_the_pod_of_a_backup_mounts_the_password_and_the_request_names_only_where_it_lies() -> None:
    policy = applied(DATABASE, notifications=[MAIL, CHAT])
    plan = backup_job(policy, policy.policy, "ab-job", run=_run())
    text = str(job(plan))
    assert "/avalanche/secrets/mail/password" in plan.request.model_dump_json()
    volumes = job(plan)["spec"]["template"]["spec"]["volumes"]
    secrets = {
        each["projected"]["sources"][0]["secret"]["name"]: each for each in volumes if "projected" in each
    }
    assert {
        "mail",
        "chat",
        "database",
        "bucket",
    } == secrets.keys() and "valueFrom': {'secretKeyRef" not in text
    assert all(each["projected"]["sources"][0]["secret"]["optional"] for each in secrets.values())


def _run() -> Any:
    from avalanche_contract.request import Run

    return Run(cron_job="ab-job")


def test_a_pod_keeps_quiet_only_where_another_try_follows() -> None:
    def retried(**spec: Any) -> bool:
        policy = applied(DATABASE, notifications=[MAIL], **spec)
        request: Any = backup_job(policy, policy.policy, "ab-job", run=_run()).request
        return bool(request.notifications.retried)

    assert retried() and not retried(backoffLimit=0)


def test_a_probe_tells_nobody() -> None:
    plan = probe_job(applied(DATABASE, notifications=[MAIL]), 1)
    assert "mail" not in plan.request.model_dump_json() and all(
        each.secret != "mail" for each in plan.mounts.secrets
    )


def test_the_defaults_are_mail_by_starttls_of_everything() -> None:
    notifications, _ = notifications_part(CHANNELS[:1], retried=False)
    channel = notifications.channels[0]
    assert channel.kind == "email" and (channel.tls, channel.port, channel.events) == (
        "StartTLS",
        587,
        EVENTS,
    )


# --- slots ----------------------------------------------------------------------------------------------
@given(SCHEDULES, ZONES, MOMENTS, st.integers(0, 90), st.integers(1, 48))
def test_missed_are_the_slots_since_the_last_run_that_are_too_old_to_start(
    schedule: str, zone: ZoneInfo, last: datetime, days: int, hours: int
) -> None:
    """Against a slow oracle: every minute of the schedule's own iterator, also over changes of summer time."""
    now, late = last + timedelta(days=days), timedelta(hours=hours)
    result = missed(schedule, zone, since=last, late=late, now=now)
    expected = []
    for slot in CronSim(schedule, last.astimezone(zone)):
        if slot.astimezone(UTC) > now - late - timedelta(seconds=GRACE_SECONDS):
            break
        expected.append(slot.astimezone(UTC))
    assert (result.count if result else 0) == min(len(expected), MOST)
    assert result is None or result.first == expected[0]


@given(st.integers(0, 23), st.integers(0, 59), ZONES, MOMENTS, st.integers(1, 60))
def test_a_daily_slot_is_missed_once_for_each_day_of_the_calendar(
    hour: int, minute: int, zone: ZoneInfo, last: datetime, days: int
) -> None:
    """Against the calendar alone, wherever the time of day exists: also where it comes twice at the end of summer time."""
    now = last + timedelta(days=days)
    latest = now - HOUR - timedelta(seconds=GRACE_SECONDS)
    first_day = last.astimezone(zone).date() - timedelta(days=1)
    slots = {
        datetime.combine(first_day + timedelta(days=n), time(hour, minute), zone).astimezone(UTC)
        for n in range(days + 3)
    }
    assume(all(slot.astimezone(zone).time() == time(hour, minute) for slot in slots))
    result = missed(f"{minute} {hour} * * *", zone, since=last, late=HOUR, now=now)
    assert (result.count if result else 0) == len([slot for slot in slots if last < slot <= latest])


@given(SCHEDULES, ZONES, MOMENTS, st.integers(1, 60), st.integers(1, 60))
def test_the_first_missed_slot_stays_the_same_while_more_are_missed(
    schedule: str, zone: ZoneInfo, last: datetime, days: int, more: int
) -> None:
    """It names the one message about them."""
    early = missed(schedule, zone, since=last, late=HOUR, now=last + timedelta(days=days))
    later = missed(schedule, zone, since=last, late=HOUR, now=last + timedelta(days=days + more))
    assert early is None or (later is not None and later.first == early.first and later.count >= early.count)


def test_a_slot_that_may_still_start_is_not_missed() -> None:
    def count(now: datetime) -> int:
        result = missed("0 2 * * *", ZoneInfo("Etc/UTC"), since=SLOT - HOUR, late=HOUR, now=now)
        return result.count if result else 0

    assert count(SLOT + HOUR) == 0 and count(SLOT + HOUR + timedelta(minutes=2)) == 1
    assert count(SLOT + timedelta(days=3)) == 3


def test_nothing_is_missed_before_a_policy_was_made_or_its_schedule_changed_or_it_was_suspended() -> None:
    mark = mark_of("0 2 * * *", "Etc/UTC", suspended=False)
    first = counted(None, mark, created=SLOT, now=SLOT + HOUR)
    assert first.since == SLOT and counted(first, mark, created=SLOT, now=SLOT + 9 * HOUR) == first
    suspended = mark_of("0 2 * * *", "Etc/UTC", suspended=True)
    resumed = counted(CountedSlots(mark=suspended, since=SLOT), mark, created=SLOT, now=SLOT + 9 * HOUR)
    assert resumed.since == SLOT + 9 * HOUR
    elsewhere = mark_of("0 2 * * *", "Europe/Berlin", suspended=False)
    assert counted(first, elsewhere, created=SLOT, now=SLOT + 5 * HOUR).since == SLOT + 5 * HOUR


def test_the_last_slot_is_read_from_scheduled_backups_alone() -> None:
    tally = Tally()
    minutes = int(SLOT.timestamp()) // 60
    for identity in ("manual/uid", "job/1", f"scheduled/uid/{minutes}", f"scheduled/uid/{minutes - 60}"):
        spec = {"policyRef": {"name": "nightly"}, "origin": "Scheduled", "runIdentity": identity}
        tally.add(found("Backup", identity.replace("/", "-"), spec))
    assert tally.last_slot == SLOT and Tally().last_slot is None


# --- the whole operator ---------------------------------------------------------------------------------
def test_a_failure_that_its_pod_told_is_told_by_nobody_else() -> None:
    world = _world()
    world.run(5)
    world.failing = "SourceEmpty"
    _run_at(world, SLOT)
    assert world.told == [("Failed", "mail", "SourceEmpty"), ("Failed", "chat", "SourceEmpty")]
    status = world.status("Backup", "nightly-20260301020000")
    assert status["notification"] == {"event": "Failed", "state": "Sent", "channels": ["mail", "chat"]}


def test_tries_that_ran_out_are_told_once_by_a_job_and_what_works_again_as_well() -> None:
    world = _world()
    world.run(5)
    world.failing = "StorageUnavailable"
    _run_at(world, SLOT)
    world.failing = None
    _run_at(world, SLOT + timedelta(days=1))
    _run_at(world, SLOT + timedelta(days=2))
    assert world.told == [
        ("Failed", "mail", "StorageUnavailable"),
        ("Failed", "chat", "StorageUnavailable"),
        ("Recovered", "mail", "Succeeded"),
    ]
    status = world.status("Backup", "nightly-20260301020000")["notification"]
    told_by = world.gateway.objects["Job", NAMESPACE, status["job"]]
    assert status["state"] == "Sent" and told_by["spec"]["ttlSecondsAfterFinished"] == 600


def test_a_lost_pod_is_told_and_a_channel_that_takes_nothing_is_said() -> None:
    world = _world()
    world.run(5)
    world.lose_results_of.add("backup")
    world.deaf.add("chat")
    world.failing = "SourceEmpty"
    _run_at(world, SLOT)
    assert ("Failed", "mail", "ResultLost") in world.told
    status = world.status("Backup", "nightly-20260301020000")["notification"]
    assert (status["state"], status["channels"]) == ("NotSent", ["mail"])


def test_backups_that_ended_before_anybody_asked_are_not_told_of() -> None:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    world.run(5)
    world.failing = "StorageUnavailable"
    _run_at(world, SLOT)
    policy = world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    policy["spec"] = {**policy["spec"], "notifications": [MAIL]}
    world.run(6)
    assert world.told == []


def test_missed_slots_are_counted_shown_and_told_once_in_a_row() -> None:
    world = _world()
    world.run(5)
    _run_at(world, SLOT)
    for days in (1, 2, 3):
        world.time = SLOT + timedelta(days=days, hours=2)
        world.run(4)
    assert world.status("BackupPolicy", "nightly")["missedRuns"] == 3
    assert world.told == [("Missed", "mail", "MissedSchedule"), ("Missed", "chat", "MissedSchedule")]
    _run_at(world, SLOT + timedelta(days=4))
    status = world.status("BackupPolicy", "nightly")
    assert status["missedRuns"] == 0 and status["notification"]["slot"] == "2026-03-02T02:00:00Z"
    world.time = SLOT + timedelta(days=5, hours=2)
    world.run(4)
    assert len(world.told) == 4


def test_slots_that_were_missed_while_nobody_looked_are_counted_and_told_although_a_run_came_first() -> None:
    """The cluster and the operator were away for three days; the CronJob was faster than the operator."""
    world = _world()
    world.run(5)
    _run_at(world, SLOT)
    _run_at(world, SLOT + timedelta(days=4))
    status = world.status("BackupPolicy", "nightly")
    assert (status["missedRuns"], status["slots"]["missed"]) == (0, 3)
    assert status["slots"]["last"] == "2026-03-05T02:00:00Z"
    assert status["notification"]["slot"] == "2026-03-02T02:00:00Z"
    assert world.told == [("Missed", "mail", "MissedSchedule"), ("Missed", "chat", "MissedSchedule")]


def test_slots_that_were_shown_as_missed_are_still_counted_when_a_run_has_come() -> None:
    world = _world()
    world.run(5)
    _run_at(world, SLOT)
    world.time = SLOT + timedelta(days=2, hours=2)
    world.run(4)
    assert world.status("BackupPolicy", "nightly")["missedRuns"] == 2
    _run_at(world, SLOT + timedelta(days=3))
    status = world.status("BackupPolicy", "nightly")
    assert (status["missedRuns"], status["slots"]["missed"]) == (0, 2)
    assert len(world.told) == 2


def test_runs_that_were_all_started_while_the_operator_was_away_miss_nothing() -> None:
    world = _world()
    world.run(5)
    _run_at(world, SLOT)
    for day in (1, 2, 3):
        world.fire("nightly", SLOT + timedelta(days=day))
    world.time = SLOT + timedelta(days=3)
    world.run(4)
    assert world.status("BackupPolicy", "nightly")["slots"].get("missed", 0) == 0 and world.told == []


@given(SCHEDULES, ZONES, MOMENTS, st.lists(st.integers(0, 60), max_size=6), st.integers(1, 48))
def test_looking_late_finds_what_looking_all_the_time_would_have_found(
    schedule: str, zone: ZoneInfo, begin: datetime, days: list[int], hours: int
) -> None:
    """A slot is missed when no run is of it, or of one that came before it was too old to start."""
    late, old = timedelta(hours=hours), timedelta(hours=hours, seconds=GRACE_SECONDS)
    runs = sorted({begin + timedelta(days=each) for each in days if each})
    rows = passed_over(schedule, zone, since=begin, runs=runs, late=late)
    slots = itertools.takewhile(
        lambda each: each <= (runs or [begin])[-1],
        (each.astimezone(UTC) for each in CronSim(schedule, begin.astimezone(zone))),
    )
    lost = [each for each in slots if not any(each <= run < each + old for run in runs)]
    by_run = itertools.groupby(lost, key=lambda slot: next(run for run in runs if run > slot))
    expected = [(row[0], min(len(row), MOST)) for row in (list(each) for _, each in by_run)]
    assert [(each.first, each.count) for each in rows] == expected


def test_a_suspended_policy_misses_nothing_then_or_later() -> None:
    world = _world(suspend=True)
    world.run(5)
    world.time = SLOT + timedelta(days=3)
    world.run(3)
    policy = world.gateway.objects["BackupPolicy", NAMESPACE, "nightly"]
    policy["spec"] = {**policy["spec"], "suspend": False}
    world.run(3)
    assert world.status("BackupPolicy", "nightly")["missedRuns"] == 0 and world.told == []


def _story(world: World) -> None:
    """A run whose tries run out, a good one, and a slot that is missed."""
    world.run(5)
    world.failing = "StorageUnavailable"
    _run_at(world, SLOT)
    world.failing = None
    _run_at(world, SLOT + timedelta(days=1))
    world.time = SLOT + timedelta(days=2, hours=2)
    world.run(6)


def _writes() -> tuple[list[tuple[str, str, str]], int]:
    world = _world()
    writes = Writes(world)
    _story(world)
    return world.told, writes.count


EXPECTED, WRITES = _writes()


def test_undisturbed_each_occasion_is_told_once() -> None:
    assert [event for event, _, _ in EXPECTED] == [
        "Failed",
        "Failed",
        "Recovered",
        "Missed",
        "Missed",
    ] and WRITES > 20


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_killed_operator_sends_neither_none_nor_two(number: int) -> None:
    world = _world()
    writes = Writes(world, number)
    _story(world)
    assert writes.count >= number
    assert world.told == EXPECTED
