"""Retention: an example of every verdict, and properties against a slow oracle over awkward time zones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_backup.retention import Candidate, Retention, State, decide, too_many

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
STANDARD = Retention(daily=7, weekly=4, monthly=12)
ZONES = ("Etc/UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")
STATES: tuple[State, ...] = (
    "Verified",
    "Verified",
    "Verified",
    "NotVerified",
    "VerificationFailed",
    "Suspect",
    "Incomplete",
    "Duplicate",
)


def _backup(moment: str | datetime, **more: Any) -> Candidate:
    found = datetime.fromisoformat(moment).replace(tzinfo=UTC) if isinstance(moment, str) else moment
    values = {
        "backup_id": f"database_{found:%Y%m%d_%H%M%S}",
        "group": "policy/database",
        "moment": found,
        "state": "Verified",
    }
    return Candidate(**{**values, **more})


def _reasons(
    *candidates: Candidate, retention: Retention | None = STANDARD, zone: str = "Etc/UTC"
) -> dict[str, Any]:
    verdicts = decide(candidates, retention, NOW, ZoneInfo(zone))
    return {each.backup_id[9:]: " ".join(each.reasons) if each.keep else each.reasons for each in verdicts}


def _daily(days: int, *, hour: int = 2) -> list[Candidate]:
    newest = datetime(2026, 3, 31, hour, tzinfo=UTC)
    return [_backup(newest - timedelta(days=number)) for number in range(days)]


def test_a_year_of_dailies_leaves_seven_days_four_weeks_and_twelve_months() -> None:
    kept = {name: why for name, why in _reasons(*_daily(365)).items() if isinstance(why, str)}
    assert kept["20260331_020000"] == "last-verified daily-1"
    assert kept["20260329_020000"] == "daily-3 weekly-1"
    assert kept["20260308_020000"] == "weekly-4"
    assert kept["20260301_020000"] == "monthly-1"
    assert kept["20250501_020000"] == "monthly-11" and len(kept) == 7 + 3 + 12


@pytest.mark.parametrize(("candidate", "why"), [
    (_backup("2020-01-01", held=True), "hold"),
    (_backup("2020-01-01", manual=True), "manual"),
    (_backup("2020-01-01", expiration=NOW + timedelta(days=1)), "expiration-time"),
    (_backup("2020-01-01", state="Suspect"), "suspect"),
    (_backup("2020-01-01", state="VerificationFailed"), "verification-failed"),
    (_backup("2020-01-01", state="NotVerified"), "not-verified"),
    (_backup("2020-01-01", state="Incomplete"), "objects-missing"),
    (_backup("2020-01-01", state="Duplicate"), "duplicate"),
    (_backup("2020-01-01", state="Unreadable", expiration=NOW), "metadata-unreadable"),
    (_backup("2020-01-01", restoring=True), "restoring"),
    (_backup("2099-01-01", expiration=NOW), "future-dated"),
    (_backup("0001-01-01"), "dated-before-1970"),
    (_backup("2020-01-01"), ("no-rule",)),
    (_backup("2020-01-01", manual=True, expiration=NOW), ("expired",)),
    (_backup("2020-01-01", state="Suspect", expiration=NOW), ("expired",)),
    (_backup("2020-01-01", held=True, expiration=NOW), "hold"),
])  # fmt: skip
def test_every_verdict_has_its_reason(candidate: Candidate, why: Any) -> None:
    newer = [replace(each, depends_on=()) for each in _daily(1)]
    assert _reasons(candidate, *newer, retention=Retention(daily=1))[candidate.backup_id[9:]] == why


def test_without_retention_everything_stays() -> None:
    assert set(_reasons(*_daily(30), retention=None).values()) == {
        "no-retention",
        "no-retention last-verified",
    }


def test_the_newest_verified_backup_stays_whatever_the_rules_say() -> None:
    assert _reasons(_backup("2020-01-01", expiration=NOW), retention=Retention()) == {
        "20200101_000000": "last-verified"
    }


def test_when_backups_stop_nothing_ages_away() -> None:
    old = [_backup(each.moment - timedelta(days=900)) for each in _daily(7)]
    assert all(isinstance(why, str) for why in _reasons(*old).values())


def test_a_backup_that_fails_verification_loses_its_day_to_the_next_good_one() -> None:
    first, second = _backup("2026-03-30T02:00:00"), _backup("2026-03-30T03:00:00")
    last = _backup("2026-03-31T02:00:00")
    assert _reasons(first, second, last, retention=Retention(daily=2))["20260330_030000"] == ("no-rule",)
    damaged = replace(first, state="VerificationFailed")
    reasons = _reasons(damaged, second, last, retention=Retention(daily=2))
    assert reasons["20260330_030000"] == "daily-2" and reasons["20260330_020000"] == "verification-failed"


def test_what_will_expire_stands_for_no_day_so_that_the_day_is_not_lost_with_it() -> None:
    first = _backup("2026-03-30T02:00:00", expiration=NOW + timedelta(days=1))
    second, last = _backup("2026-03-30T03:00:00"), _backup("2026-03-31T02:00:00")
    reasons = _reasons(first, second, last, retention=Retention(daily=2))
    assert reasons["20260330_020000"] == "expiration-time" and reasons["20260330_030000"] == "daily-2"


def test_copies_that_claim_the_future_push_nothing_out() -> None:
    """restic#22057: whoever adds backups with later times must not make the pruner remove the real ones."""
    poison = [_backup(NOW + timedelta(days=number)) for number in range(1, 400)]
    kept = _reasons(*_daily(7))
    assert kept.items() <= _reasons(*_daily(7), *poison).items()


@pytest.mark.parametrize("rule", ["last", "daily", "weekly", "monthly", "yearly"])
def test_each_rule_names_its_periods_from_the_newest(rule: str) -> None:
    reasons = _reasons(*_daily(800), retention=Retention(**{rule: 2}))
    names = [why for why in reasons.values() if isinstance(why, str)]
    assert sorted(" ".join(names).split()) == sorted(["last-verified", f"{rule}-1", f"{rule}-2"])


def test_what_a_kept_backup_depends_on_stays_and_what_that_depends_on() -> None:
    base, middle = _backup("2020-01-01"), _backup("2020-01-02", depends_on=("database_20200101_000000",))
    top = _backup("2026-03-31T02:00:00", depends_on=(middle.backup_id,))
    reasons = _reasons(base, middle, top, retention=Retention(daily=1))
    assert reasons["20200102_000000"] == f"needed-by-{top.backup_id}"
    assert reasons["20200101_000000"] == f"needed-by-{middle.backup_id}"


def test_types_and_policies_have_periods_of_their_own() -> None:
    other = _backup("2026-03-31T02:00:01", group="policy/files")
    assert set(_reasons(*_daily(1), other, retention=Retention(daily=1)).values()) == {
        "last-verified daily-1"
    }


def test_a_day_is_a_day_where_the_policy_lives() -> None:
    """23:30 UTC is the next day in Berlin: two days there, one in UTC."""
    backups = _backup("2026-03-30T20:00:00"), _backup("2026-03-30T23:30:00")
    assert sum(isinstance(why, str) for why in _reasons(*backups, zone="Europe/Berlin").values()) == 2
    assert _reasons(*backups, retention=Retention(daily=1), zone="Europe/Berlin")["20260330_200000"] == (
        "no-rule",
    )


@pytest.mark.parametrize(
    ("gone", "kept", "refused"), [(1, 1, False), (2, 1, True), (0, 0, False), (0, 5, False)]
)
def test_more_than_a_share_at_once_is_refused(gone: int, kept: int, refused: bool) -> None:
    old = [_backup(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=number)) for number in range(gone)]
    verdicts = decide([*old, *_daily(kept)], Retention(daily=kept), NOW, UTC)
    said = too_many(verdicts, 50)
    assert (said is not None) is refused and (said is None or f"{gone} of {gone + kept}" in said)


# --- properties -------------------------------------------------------------------------------------------
MOMENTS = (
    st.datetimes(datetime(2010, 12, 20), datetime(2012, 3, 5), timezones=st.just(UTC))
    | st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 10), timezones=st.just(UTC))
    | st.datetimes(datetime(1985, 12, 30), datetime(1986, 1, 3), timezones=st.just(UTC))
)
"""Around the day that Apia left out (2011-12-30), a leap day, year ends, changes of clocks, and Nepal's quarter of an hour."""
NOWS = st.just(datetime(2026, 4, 11, tzinfo=UTC)) | MOMENTS
"""Mostly after everything: what is dated into the future says little."""
GAPS = st.integers(0, 14) | st.integers(15, 40) | st.sampled_from([7 * 24, 28 * 24, 31 * 24, 365 * 24])
"""Hours from one backup to the next: several in a day, a day and a bit, now and then a whole period."""
RETENTIONS = st.builds(
    Retention,
    last=st.integers(0, 3),
    daily=st.integers(0, 8),
    weekly=st.integers(0, 5),
    monthly=st.integers(0, 6),
    yearly=st.integers(0, 3),
)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    """Give backups that share their days, weeks and months: rules decide nothing where each has a period of its own."""
    moment = draw(MOMENTS).replace(microsecond=0)
    made: list[Candidate] = []
    for hours in draw(st.lists(GAPS, max_size=25)):
        moment += timedelta(hours=hours, seconds=1)
        known = [each.backup_id for each in made]
        made.append(
            _backup(
                moment,
                group=draw(st.sampled_from(["policy/database"] * 3 + ["policy/files"])),
                state=draw(st.just("Verified") | st.sampled_from(STATES)),
                manual=draw(st.integers(0, 7)) == 0,
                held=draw(st.integers(0, 9)) == 0,
                expiration=draw(MOMENTS) if draw(st.integers(0, 5)) == 0 else None,
                depends_on=(draw(st.sampled_from(known)),) if known and draw(st.integers(0, 9)) == 0 else (),
            )
        )
    return made


def _period(kind: str, moment: datetime, zone: str) -> str:
    local = moment.astimezone(ZoneInfo(zone))
    if kind == "weekly":
        day = local.date()
        while day.strftime("%A") != "Sunday":
            day -= timedelta(days=1)
        return day.isoformat()
    return local.strftime({"daily": "%Y-%m-%d", "monthly": "%Y-%m", "yearly": "%Y"}[kind])


def _oracle(backups: list[Candidate], retention: Retention | None, now: datetime, zone: str) -> set[str]:
    """Say who stays, one question at a time and without any cleverness."""
    kept: set[str] = set()
    for each in backups:
        own = [
            other
            for other in backups
            if other.group == each.group and other.state == "Verified" and other.moment <= now
        ]
        expired = each.expiration is not None and each.expiration <= now
        if each.held or each.moment > now or (own and each is max(own, key=lambda other: other.moment)):
            kept.add(each.backup_id)
        elif expired:
            continue
        elif retention is None or each.manual or each.expiration is not None or each.state != "Verified":
            kept.add(each.backup_id)
        else:
            regular = [other for other in own if not other.manual and other.expiration is None]
            if each in regular and sum(other.moment > each.moment for other in regular) < retention.last:
                kept.add(each.backup_id)
            for kind in ("daily", "weekly", "monthly", "yearly"):
                mine = _period(kind, each.moment, zone)
                counts = not each.manual and each.expiration is None
                is_first = counts and all(
                    other.moment >= each.moment
                    for other in regular
                    if _period(kind, other.moment, zone) == mine
                )
                later = {found for other in regular if (found := _period(kind, other.moment, zone)) > mine}
                if is_first and len(later) < getattr(retention, kind):
                    kept.add(each.backup_id)
    while True:
        needed = {needed for each in backups if each.backup_id in kept for needed in each.depends_on} - kept
        if not needed:
            return kept
        kept |= needed


@settings(max_examples=250)
@given(candidates(), RETENTIONS | st.none(), st.sampled_from(ZONES), NOWS)
def test_it_agrees_with_a_slow_oracle(
    backups: list[Candidate], retention: Retention | None, zone: str, now: datetime
) -> None:
    verdicts = decide(backups, retention, now, ZoneInfo(zone))
    assert {each.backup_id for each in verdicts if each.keep} == _oracle(backups, retention, now, zone)
    assert all(each.reasons for each in verdicts) and len(verdicts) == len(backups)


@settings(max_examples=100)
@given(
    RETENTIONS,
    st.sampled_from(ZONES),
    st.lists(st.integers(0, 36), min_size=1, max_size=40),
    st.dates(date(2011, 11, 1), date(2012, 2, 1)),
)
def test_cleaning_up_often_keeps_what_cleaning_up_once_keeps(
    retention: Retention, zone: str, gaps: list[int], begin: date
) -> None:
    moment = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
    every: list[Candidate] = []
    often: list[Candidate] = []
    for hours in gaps:
        moment += timedelta(hours=hours, seconds=1)
        every.append(_backup(moment))
        often.append(_backup(moment))
        kept = {each.backup_id for each in decide(often, retention, moment, ZoneInfo(zone)) if each.keep}
        often = [each for each in often if each.backup_id in kept]
    once = {each.backup_id for each in decide(every, retention, moment, ZoneInfo(zone)) if each.keep}
    assert once == {each.backup_id for each in often}


@settings(max_examples=100)
@given(candidates(), RETENTIONS, st.sampled_from(ZONES), NOWS)
def test_a_second_cleanup_removes_nothing(
    backups: list[Candidate], retention: Retention, zone: str, now: datetime
) -> None:
    kept = {each.backup_id for each in decide(backups, retention, now, ZoneInfo(zone)) if each.keep}
    again = decide([each for each in backups if each.backup_id in kept], retention, now, ZoneInfo(zone))
    assert all(each.keep for each in again)


@settings(max_examples=100)
@given(candidates(), RETENTIONS | st.none(), st.sampled_from(ZONES), NOWS)
def test_the_newest_good_backup_of_each_group_and_what_is_held_never_go(
    backups: list[Candidate], retention: Retention | None, zone: str, now: datetime
) -> None:
    kept = {each.backup_id for each in decide(backups, retention, now, ZoneInfo(zone)) if each.keep}
    for group in {each.group for each in backups}:
        good = [
            each
            for each in backups
            if each.group == group and each.state == "Verified" and each.moment <= now
        ]
        assert not good or max(good, key=lambda each: each.moment).backup_id in kept
    held = {each.backup_id for each in backups if each.held or each.restoring}
    assert held <= kept and kept >= {
        needed for each in backups if each.backup_id in kept for needed in each.depends_on
    }


@settings(max_examples=100)
@given(candidates(), candidates(), RETENTIONS, st.sampled_from(ZONES), NOWS)
def test_what_is_no_good_backup_never_pushes_a_good_one_out(
    backups: list[Candidate], bad: list[Candidate], retention: Retention, zone: str, now: datetime
) -> None:
    known = {each.backup_id for each in backups}
    added = [
        replace(each, state="Suspect", depends_on=()) if each.moment <= now else replace(each, depends_on=())
        for each in bad
        if each.backup_id not in known
    ]
    without = {each.backup_id for each in decide(backups, retention, now, ZoneInfo(zone)) if each.keep}
    kept = {
        each.backup_id for each in decide([*backups, *added], retention, now, ZoneInfo(zone)) if each.keep
    }
    assert kept & known == without


@settings(max_examples=100)
@given(candidates(), RETENTIONS, st.sampled_from(ZONES), NOWS)
def test_the_order_in_which_backups_are_listed_changes_nothing(
    backups: list[Candidate], retention: Retention, zone: str, now: datetime
) -> None:
    where = ZoneInfo(zone)
    assert decide(backups, retention, now, where) == decide(backups[::-1], retention, now, where)


PRESENCE = st.lists(st.sampled_from(["good", "good", "damaged", "missing"]), min_size=25, max_size=25)
"""What became of each copy in one place."""


def _copies_of(backups: list[Candidate], presence: list[str]) -> list[Candidate]:
    return [
        replace(each, state="VerificationFailed") if said == "damaged" else each
        for each, said in zip(backups, presence, strict=False)
        if said != "missing"
    ]


@settings(max_examples=200)
@given(
    st.lists(st.integers(1, 40), min_size=2, max_size=25),
    st.lists(PRESENCE, min_size=2, max_size=3),
    RETENTIONS,
    st.sampled_from(ZONES),
    st.dates(date(2011, 11, 20), date(2012, 2, 27)),
)
def test_what_all_places_together_should_keep_stays_in_each_place_where_it_is_good(
    gaps: list[int], presences: list[list[str]], retention: Retention, zone: str, begin: date
) -> None:
    """Each place decides alone: what is missing or damaged there never costs the good copy that lies elsewhere."""
    now, backups = datetime(begin.year, begin.month, begin.day, tzinfo=UTC), []
    for hours in gaps:
        now += timedelta(hours=hours)
        backups.append(_backup(now))
    places = [_copies_of(backups, presence) for presence in presences]
    good = [{each.backup_id for each in place if each.state == "Verified"} for place in places]
    together = [each for each in backups if any(each.backup_id in ids for ids in good)]
    wanted = {each.backup_id for each in decide(together, retention, now, ZoneInfo(zone)) if each.keep}
    for place, ids in zip(places, good, strict=True):
        kept = {each.backup_id for each in decide(place, retention, now, ZoneInfo(zone)) if each.keep}
        assert wanted & ids <= kept
