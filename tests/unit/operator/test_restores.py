"""A restore: the backup that was meant, the target that was meant, and nothing twice."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from avalanche_contract.log import Answer
from avalanche_contract.result import Result
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.restore import (
    RestorePlan,
    RestoreRequestSpec,
    RestoreRequestStatus,
    Target,
)
from avalanche_operator.api.source import PolicySource
from avalanche_operator.jobs.observe import Outcome
from avalanche_operator.restores.decide import condition, ended, next_step, replan
from avalanche_operator.restores.targets import (
    NotYet,
    RestoreImpossible,
    choose_backup,
    chosen_sources,
    readers_of,
    redirect,
)
from tests.unit.operator.objects import DATABASE, FILES, SQLITE, found, policy_spec

Object = dict[str, Any]
NOW = datetime(2026, 3, 1, 2, tzinfo=UTC)
OTHER_DATABASE: Object = {
    **DATABASE,
    "name": "db2",
    "postgresql": {**DATABASE["postgresql"], "database": "two"},
}
OTHER_SQLITE: Object = {"name": "lite2", "sqlite": {"claim": {"name": "state"}, "path": "two.sqlite"}}
OTHER_FILES: Object = {"name": "data2", "files": {"claim": {"name": "two"}}}
DIGEST, OTHER = "sha256:" + "d" * 64, "sha256:" + "e" * 64
PLAN = RestorePlan(digest=DIGEST, backup_id="database_20260301_020000", checksum=DIGEST, storage="s3", snapshot_time=NOW, targets=(),
                   needs_approval=True, expiration_time=NOW + timedelta(hours=24))  # fmt: skip


def _spec(**spec: Any) -> RestoreRequestSpec:
    return RestoreRequestSpec.model_validate({"backupRef": {"name": "first"}, **spec})


def _backup(
    name: str, phase: str = "Succeeded", snapshot: str = "2026-01-01T00:00:00Z", **status: Any
) -> Object:
    told = {
        "phase": phase,
        "backupID": "database_20260101_000000",
        "type": "database",
        "storage": "s3",
        "snapshotTime": snapshot,
        **status,
    }
    return found("Backup", name, {"policyRef": {"name": "nightly"}}, told)


def _source(document: Object) -> PolicySource:
    return PolicySource.model_validate(document)


@pytest.mark.parametrize(("spec", "status", "now", "step"), [
    (_spec(), RestoreRequestStatus(), NOW, "Plan"),
    (_spec(), RestoreRequestStatus(phase="AwaitingApproval", plan=PLAN), NOW, "Wait"),
    (_spec(approvedPlan=OTHER), RestoreRequestStatus(phase="AwaitingApproval", plan=PLAN), NOW, "Wait"),
    (_spec(approvedPlan=DIGEST), RestoreRequestStatus(phase="AwaitingApproval", plan=PLAN), NOW, "Execute"),
    (_spec(approvedPlan=DIGEST), RestoreRequestStatus(phase="AwaitingApproval", plan=PLAN), NOW + timedelta(hours=25), "Plan"),
    (_spec(), RestoreRequestStatus(phase="Planned", plan=PLAN.model_copy(update={"needs_approval": False})), NOW, "Execute"),
    (_spec(dryRun=True), RestoreRequestStatus(phase="Planned", plan=PLAN), NOW, "Done"),
    (_spec(approvedPlan=DIGEST), RestoreRequestStatus(phase="Restoring", plan=PLAN), NOW + timedelta(hours=25), "Watch"),
    (_spec(approvedPlan=DIGEST), RestoreRequestStatus(phase="Failed", plan=PLAN), NOW, "Done"),
], ids=["new", "unapproved", "another plan approved", "approved", "expired", "nothing to lose", "dry run", "restoring", "ended"])  # fmt: skip
def test_what_a_request_needs_next(
    spec: RestoreRequestSpec, status: RestoreRequestStatus, now: datetime, step: str
) -> None:
    assert next_step(spec, status, now) == step


def test_a_restore_whose_job_vanished_is_failed_and_says_what_is_not_known() -> None:
    after = ended(
        _spec(), RestoreRequestStatus(phase="Restoring", plan=PLAN), Outcome("Missing"), Answer(), NOW
    )
    assert after.phase == "Failed" and "not known" in (after.message or "")
    assert condition(_spec(), after)[1] is True


def test_a_refusal_is_no_success() -> None:
    result = Result(
        nonce="0" * 16,
        verb="restore",
        verdict="Refused",
        reason="ChecksumMismatch",
        message="the target is untouched",
    )
    after = ended(
        _spec(),
        RestoreRequestStatus(phase="Restoring", plan=PLAN),
        Outcome("Ended", result=result),
        Answer(),
        NOW,
    )
    assert (after.phase, after.failure_reason) == ("Failed", "ChecksumMismatch")


def test_the_jobs_of_a_dump_are_not_those_of_its_restore() -> None:
    dumped = DATABASE | {"postgresql": {**DATABASE["postgresql"], "format": "Directory", "jobs": 8}}
    policy = BackupPolicySpec.model_validate(policy_spec(dumped))
    for target, jobs in ((None, 1), ({"postgresql": {"port": 5433}}, 1), ({"postgresql": {"jobs": 4}}, 4)):
        (chosen,) = chosen_sources(_spec(**({"target": target} if target else {})), policy, _backup("first"))
        assert chosen.postgresql is not None and (chosen.postgresql.jobs, chosen.postgresql.host) == (
            jobs,
            "postgres",
        )


def test_exactly_the_backup_that_was_named_is_pinned() -> None:
    pinned = choose_backup(_spec(), [_backup("first"), _backup("newer", snapshot="2026-02-01T00:00:00Z")])
    assert (pinned.name, pinned.prefix) == ("first", "edna/nightly/")


def test_a_named_backup_that_is_not_there_is_not_replaced_by_another() -> None:
    with pytest.raises(RestoreImpossible, match="first does not exist"):
        choose_backup(_spec(), [_backup("newer")])


def test_a_backup_that_is_being_made_is_waited_for_and_a_failed_one_is_not() -> None:
    with pytest.raises(NotYet):
        choose_backup(_spec(), [_backup("first", "Running")])
    with pytest.raises(RestoreImpossible, match="nothing to restore"):
        choose_backup(_spec(), [_backup("first", "Failed")])


@pytest.mark.parametrize(
    ("as_of", "name"), [(None, "c"), ("2026-01-15T00:00:00Z", "b"), ("2026-01-01T00:00:00Z", "a")]
)
def test_the_newest_good_backup_of_a_policy_is_chosen_by_the_time_of_its_data(
    as_of: str | None, name: str
) -> None:
    backups = [
        _backup("c", snapshot="2026-01-20T00:00:00Z"),
        _backup("a"),
        _backup("b", snapshot="2026-01-10T00:00:00Z"),
        _backup("broken", snapshot="2026-01-25T00:00:00Z", verification={"status": "VerificationFailed"}),
        _backup("failed", "Failed", snapshot="2026-01-26T00:00:00Z"),
    ]
    wanted = {"name": "nightly", **({"asOf": as_of} if as_of else {})}
    assert choose_backup(RestoreRequestSpec.model_validate({"fromPolicy": wanted}), backups).name == name


def test_a_moment_before_every_backup_has_none() -> None:
    spec = RestoreRequestSpec.model_validate(
        {"fromPolicy": {"name": "nightly", "asOf": "2025-01-01T00:00:00Z"}}
    )
    with pytest.raises(RestoreImpossible, match="2025-01-01"):
        choose_backup(spec, [_backup("first")])


def test_a_database_goes_elsewhere_and_keeps_the_rest() -> None:
    moved = redirect(_source(DATABASE), Target.model_validate({"postgresql": {"database": "copy"}}))
    assert moved.postgresql is not None and (moved.postgresql.host, moved.postgresql.database) == (
        "postgres",
        "copy",
    )


def test_files_and_sqlite_go_to_another_claim() -> None:
    target = Target.model_validate({"claim": {"name": "spare"}})
    files, lite = redirect(_source(FILES), target), redirect(_source(SQLITE), target)
    assert files.files is not None and lite.sqlite is not None
    assert files.files.claim.name == lite.sqlite.claim.name == "spare"


def test_a_source_that_the_backup_has_not_is_named_with_those_that_it_has() -> None:
    policy = BackupPolicySpec.model_validate(policy_spec())
    backup = _backup("first", artifacts=[])
    with pytest.raises(RestoreImpossible, match="no source lost; it has db"):
        chosen_sources(_spec(sources=["lost"]), policy, backup)


def test_every_policy_that_reads_the_target_pauses_and_no_other() -> None:
    policies = [
        found("BackupPolicy", "same", policy_spec(DATABASE)),
        found("BackupPolicy", "files", policy_spec(FILES)),
        found("BackupPolicy", "full", policy_spec(DATABASE, FILES)),
    ]
    assert [each["metadata"]["name"] for each in readers_of([_source(DATABASE)], policies)] == [
        "same",
        "full",
    ]


@pytest.mark.parametrize(("sources", "target", "sentence"), [
    ((DATABASE, FILES), {"claim": {"name": "spare"}}, "says nothing for source db.*give target.postgresql"),
    ((DATABASE, FILES), {"postgresql": {"database": "copy"}}, "says nothing for source data.*give target.claim"),
    ((SQLITE,), {"claim": {"name": "spare"}, "postgresql": {"database": "copy"}}, "target.postgresql fits no source"),
    ((DATABASE,), {"postgresql": {"database": "copy"}, "claim": {"name": "spare"}}, "target.claim fits no source"),
    ((FILES,), {"claim": {"name": "spare"}, "path": "x"}, "target.path fits no source"),
    ((FILES,), {}, "says nothing for source data"),
    ((DATABASE, OTHER_DATABASE), {"postgresql": {"database": "copy"}}, "db and db2 into one place"),
    ((SQLITE, OTHER_SQLITE), {"path": "one.sqlite"}, "lite and lite2 into one place"),
    ((FILES, OTHER_FILES), {"claim": {"name": "spare"}}, "data and data2 into one place"),
], ids=str)  # fmt: skip
def test_a_target_that_does_not_fit_is_refused_and_nothing_is_restored_in_place(
    sources: tuple[Object, ...], target: Object, sentence: str
) -> None:
    policy = BackupPolicySpec.model_validate(policy_spec(*sources))
    with pytest.raises(RestoreImpossible, match=sentence) as raised:
        chosen_sources(_spec(target=target), policy, _backup("first"))
    assert raised.value.reason == "TargetInvalid"


def test_a_target_that_says_where_each_source_goes_is_taken() -> None:
    policy = BackupPolicySpec.model_validate(policy_spec(DATABASE, SQLITE, FILES))
    target = {"postgresql": {"database": "copy"}, "claim": {"name": "spare"}}
    db, lite, files = chosen_sources(_spec(target=target), policy, _backup("first"))
    assert db.postgresql is not None and db.postgresql.database == "copy"
    assert lite.sqlite is not None and files.files is not None
    assert lite.sqlite.claim.name == files.files.claim.name == "spare"


def test_sources_of_one_place_may_go_to_one_place() -> None:
    """Two schemas of one database, two folders of one claim: they lay together before."""
    again = {**DATABASE, "name": "db2", "postgresql": {**DATABASE["postgresql"], "host": "postgres.edna.svc"}}
    policy = BackupPolicySpec.model_validate(policy_spec(DATABASE, again))
    target = {"postgresql": {"database": "copy"}}
    assert len(chosen_sources(_spec(target=target), policy, _backup("first"))) == 2


def test_paths_bring_files_back_and_no_database() -> None:
    policy = BackupPolicySpec.model_validate(policy_spec(DATABASE, FILES))
    chosen = chosen_sources(_spec(paths=["in"]), policy, _backup("first"))
    assert [each.name for each in chosen] == ["data"]


@pytest.mark.parametrize(("sources", "spec", "sentence"), [
    ((DATABASE, FILES), {"sources": ["db", "data"]}, "db is a database: leave it out"),
    ((DATABASE,), {}, "the backup holds none"),
])  # fmt: skip
def test_paths_of_a_database_are_refused(sources: tuple[Object, ...], spec: Object, sentence: str) -> None:
    policy = BackupPolicySpec.model_validate(policy_spec(*sources))
    with pytest.raises(RestoreImpossible, match=sentence):
        chosen_sources(_spec(paths=["in"], **spec), policy, _backup("first"))


def _at(host: str) -> Object:
    return {**DATABASE, "postgresql": {**DATABASE["postgresql"], "host": host}}


NAMES = (
    "postgres",
    "postgres.edna",
    "postgres.edna.svc",
    "postgres.edna.svc.cluster.local",
    "Postgres.edna.svc.my.domain.",
)


@pytest.mark.parametrize("one", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_a_server_is_one_whichever_of_its_names_is_used(one: str, other: str) -> None:
    assert readers_of([_source(_at(one))], [found("BackupPolicy", "reader", policy_spec(_at(other)))])


@pytest.mark.parametrize(
    "other", ["postgres2", "postgres.other", "postgres.other.svc", "postgres.example.org", "db.postgres"]
)
def test_a_server_of_another_name_is_another(other: str) -> None:
    policies = [found("BackupPolicy", "other", policy_spec(_at(other)))]
    assert readers_of([_source(_at("postgres"))], policies) == []


def test_the_end_of_a_restore_still_names_the_policies_that_it_paused() -> None:
    status = RestoreRequestStatus(phase="Restoring", plan=PLAN, paused_policies=("nightly",))
    assert ended(_spec(), status, Outcome("Missing"), Answer(), NOW).paused_policies == ("nightly",)


def test_a_plan_that_counts_no_more_takes_its_job_with_it() -> None:
    status = RestoreRequestStatus(
        phase="Restoring", plan=PLAN, plan_number=1, job="j", job_uid="u", start_time=NOW
    )
    after = replan(status, "why")
    assert (after.phase, after.plan, after.plan_number, after.message) == ("Pending", None, 2, "why")
    assert (after.job, after.job_uid, after.start_time) == (None, None, None)


def test_a_backup_that_is_no_longer_in_storage_is_not_chosen() -> None:
    gone = _backup("first", removal={"reason": "Expired", "message": "retention removed it: no-rule"})
    with pytest.raises(RestoreImpossible, match="no longer in storage: retention removed it"):
        choose_backup(_spec(), [gone])
    newest = RestoreRequestSpec.model_validate({"fromPolicy": {"name": "nightly"}})
    older = _backup("older", snapshot="2025-12-31T00:00:00Z")
    assert choose_backup(newest, [gone, older]).name == "older"


def test_a_suspect_backup_that_was_accepted_may_be_the_newest_good_one() -> None:
    newest = RestoreRequestSpec.model_validate({"fromPolicy": {"name": "nightly"}})
    assert choose_backup(newest, [_backup("odd", "Suspect", anomalyAccepted=True)]).name == "odd"
    with pytest.raises(RestoreImpossible, match="no good backup"):
        choose_backup(newest, [_backup("odd", "Suspect")])
