"""What `kubectl apply` refuses, and the sentence that it says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import objects
from tests.e2e.kubectl import CommandFailed, Kubectl, Object

DATABASE = objects.postgresql_source("db", secret_name="database")
FILES = objects.files_source("data", "data")
MAIL: Object = {
    "name": "mail",
    "email": {"host": "mail", "from": "a@b", "to": ["c@d"], "credentialsSecretRef": {"name": "mail"}},
}
RECIPIENT = "age1" + "q" * 58
DIGEST = "sha256:" + "0" * 64


def _policy(*sources: Object, name: str = "refused", **more: Any) -> Object:
    return objects.policy(name, *sources, storage="s3", **more)


REFUSED = {
    "no source": (_policy(), "at least 1 items"),
    "two kinds in one source": (_policy({**DATABASE, "files": FILES["files"]}), "exactly one kind"),
    "two backends in one storage": (
        {
            **objects.claim_storage("refused", "volume"),
            "spec": {"claim": {"name": "volume"}, "s3": {"bucket": "abc"}},
        },
        "exactly one backend",
    ),
    "six fields": (_policy(DATABASE, schedule="0 0 2 * * *"), "five fields"),
    "weekday 7": (_policy(DATABASE, schedule="0 2 * * 7"), "Sunday is 0"),
    "a path with two dots": (_policy(objects.files_source("data", "data", paths=["a/../b"])), "no '..'"),
    "an absolute path": (_policy(objects.files_source("data", "data", paths=["/etc"])), "relative"),
    "a key with a slash": (
        _policy(
            {
                **DATABASE,
                "postgresql": {**DATABASE["postgresql"], "caSecretRef": {"name": "ca", "key": "../ca.crt"}},
            }
        ),
        "in body should match",
    ),
    "a limit that is no quantity": (
        _policy(DATABASE, podTemplate={"resources": {"limits": {"memory": "much"}}}),
        "in body should match",
    ),
    "jitter of many minutes": (
        _policy(DATABASE, schedule="*/5 * * * *", jitterSeconds=60),
        "minute is one number",
    ),
    "more copies than destinations": (_policy(DATABASE, minCopies=2), "at most the number of destinations"),
    "a destination twice": (
        _policy(DATABASE, destinations=[{"storageRef": {"name": "s3"}}, {"storageRef": {"name": "s3"}}]),
        "each storage is a destination once",
    ),
    "a long name": (_policy(DATABASE, name="a" * 41), "at most 40 characters"),
    "a level that gzip has not": (
        _policy(DATABASE, compression={"algorithm": "Gzip", "level": 12}),
        "1 to 9 for Gzip",
    ),
    "encryption for nobody": (_policy(DATABASE, encryption={}), "names its recipients once"),
    "a recipient that is none": (_policy(DATABASE, encryption={"recipients": ["age1x"]}), "public key"),
    "jobs without a directory": (
        _policy({**DATABASE, "postgresql": {**DATABASE["postgresql"], "jobs": 2}}),
        "need format: Directory",
    ),
    "a scratch volume beside a claim": (
        _policy(DATABASE, FILES, podTemplate={"scratch": {"ephemeral": {"size": "1Gi"}}}),
        "sources are all postgresql",
    ),
    "two kinds of scratch": (
        _policy(DATABASE, podTemplate={"scratch": {"sizeLimit": "1Gi", "ephemeral": {"size": "1Gi"}}}),
        "exactly one of sizeLimit and ephemeral",
    ),
    "two ways in one notification": (
        _policy(DATABASE, notifications=[{**MAIL, "urlsSecretRef": {"name": "chat"}}]),
        "exactly one way",
    ),
    "a password without TLS": (
        _policy(DATABASE, notifications=[{**MAIL, "email": {**MAIL["email"], "tls": "None"}}]),
        "never sent without TLS",
    ),
    "an address that is none": (
        _policy(DATABASE, notifications=[{**MAIL, "email": {**MAIL["email"], "to": ["a, b"]}}]),
        "should match",
    ),
    "a size without a unit": (_policy(DATABASE, verification={"maxSize": "1000000"}), "such as 100Gi"),
    "a drill that compares with what is no number": (
        _policy(DATABASE, verification={"drill": {"queries": [{"sql": "SELECT 1", "expect": "> many"}]}}),
        "stands a number",
    ),
    "a drill that compares by a sign that is none": (
        _policy(DATABASE, verification={"drill": {"queries": [{"sql": "SELECT 1", "expect": "== 1"}]}}),
        "a comparison is one of",
    ),
    "a question to files": (
        _policy(FILES, verification={"drill": {"queries": [{"sql": "SELECT 1", "expect": "1"}]}}),
        "names a postgresql or sqlite source",
    ),
    "a question to one of two databases, and to neither": (
        _policy(
            DATABASE,
            {**DATABASE, "name": "other"},
            verification={"drill": {"queries": [{"sql": "SELECT 1", "expect": "1"}]}},
        ),
        "names a postgresql or sqlite source",
    ),
    "a drill of what nothing opens": (
        _policy(DATABASE, encryption={"recipients": [RECIPIENT]}, verification={"drill": {}}),
        "encryption.identitySecretRef",
    ),
    "a verification at six fields": (
        _policy(DATABASE, verification={"schedule": "0 0 6 * * *"}),
        "five fields",
    ),
    "objectives of nothing": (_policy(DATABASE, objectives={}), "at least one of recoveryPointSeconds"),
    "a share of shrinking that is no percentage": (
        _policy(DATABASE, anomaly={"maxShrinkPercent": 101}),
        "should be less than or equal to 100",
    ),
    "a retention that keeps nothing": (_policy(DATABASE, retention={"keepDaily": 0}), "keeps something"),
    "a percentage of 0": (
        _policy(DATABASE, retention={"keepDaily": 1, "maxDeletePercent": 0}),
        "greater than or equal to 1",
    ),
    "a held backup that is to be erased": (
        {
            **objects.backup("refused", "some"),
            "spec": {"policyRef": {"name": "some"}, "hold": True, "deleteRequested": True},
        },
        "a Backup that is held is not erased",
    ),
    "an approved restore": (objects.restore("refused", "any", approvedPlan=DIGEST), "not created approved"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_object_is_refused_with_a_sentence(bare: Kubectl, case: str) -> None:
    wrong, sentence = REFUSED[case]
    with pytest.raises(CommandFailed, match=sentence):
        bare.apply(wrong)


def test_a_backup_cannot_change(bare: Kubectl) -> None:
    bare.apply(objects.backup("fixed", "some"))
    with pytest.raises(CommandFailed, match="its spec cannot change"):
        bare.apply(objects.backup("fixed", "other"))


def test_of_a_backup_only_what_keeps_it_may_change(bare: Kubectl) -> None:
    bare.apply(objects.backup("kept", "some"))
    said = {"hold": True, "expirationTime": "2030-01-01T00:00:00Z", "acceptAnomaly": True}
    bare.patch("backups.avalanche.io", "kept", {"spec": said})
    with pytest.raises(CommandFailed, match="its spec cannot change"):
        bare.patch("backups.avalanche.io", "kept", {"spec": {"hold": False, "origin": "Scheduled"}})


def test_a_restore_request_changes_by_its_approval_alone(bare: Kubectl) -> None:
    bare.apply(objects.restore("fixed", "some"))
    with pytest.raises(CommandFailed, match="cannot change, approvedPlan aside"):
        bare.apply(objects.restore("fixed", "other"))
    bare.patch("restorerequest", "fixed", {"spec": {"approvedPlan": DIGEST}})
