"""What the Jobs are built of: restricted pods, one request, and nothing that a user's text can change."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes_validate.utils import validate

from avalanche_backup.sources.opening import open_source
from avalanche_contract import names
from avalanche_contract.request import Run
from avalanche_contract.wire import parse_request
from avalanche_operator.api.pod import PodTemplate
from avalanche_operator.api.restore import Target
from avalanche_operator.api.scratch import EphemeralScratch, Scratch
from avalanche_operator.api.source import PolicySource
from avalanche_operator.applying.build import backup_job, cron_job, probe_job
from avalanche_operator.jobs.build import Placement, RequestTooLarge, job, pinned_nodes
from avalanche_operator.jobs.mounts import ClaimMount, Mounts, SecretMount, source_part
from avalanche_operator.restores.targets import redirect
from tests.unit.operator.objects import DATABASE, FILES, SQLITE, applied, plan

Object = dict[str, Any]
PRINTABLE = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


def _container(built: Object) -> Object:
    found: Object = built["spec"]["template"]["spec"]["containers"][0]
    return found


def _expanded(text: str, environment: dict[str, str]) -> str:
    """Expand as the kubelet does: ``$$`` is a dollar, ``$(NAME)`` a variable where there is one."""

    def each(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([A-Za-z0-9_.-]+)\)", each, text)


@given(PRINTABLE | st.sampled_from(["$(HOME)", "$$", "$$(HOME)", "$($HOME)", "$", "a$b$$c$(HOME)d"]))
def test_a_value_reaches_the_pod_as_it_was_written(text: str) -> None:
    environment = {each["name"]: each.get("value", "") for each in _container(job(plan(text)))["env"]}
    request = parse_request(
        _expanded(environment[names.ENV_REQUEST], {"HOME": "/root"}), environment[names.ENV_REQUEST_SHA256]
    )
    assert request == plan(text).request


@pytest.mark.parametrize("built", [
    job(backup_job(applied(DATABASE, SQLITE, FILES), applied().policy, "ab-run", Run())),
    cron_job(applied(DATABASE, SQLITE, FILES), "0 2 * * *"),
    job(probe_job(applied(storage={"claim": {"name": "volume", "subPath": "a/b"}}), 1)),
    job(plan(owned=False, suspended=True)),
    job(plan(template=PodTemplate(scratch=Scratch(ephemeral=EphemeralScratch(size="1Gi"))))),
], ids=["backup", "cron", "probe", "restore", "scratch"])  # fmt: skip
def test_kubernetes_knows_every_field(built: Object) -> None:
    validate(built, "1.34", strict=True)


def test_a_pod_meets_the_restricted_standard_and_holds_no_token() -> None:
    pod = job(plan())["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_scratch_is_what_the_policy_asks_for_and_only_where_data_is_moved() -> None:
    large = {"scratch": {"ephemeral": {"size": "50Gi", "storageClassName": "fast"}}}
    policy = applied(DATABASE, podTemplate=large)
    pod = job(backup_job(policy, policy.policy, "ab-run", Run()))["spec"]["template"]["spec"]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}, "storageClassName": "fast"}  # fmt: skip
    assert {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}} in pod["volumes"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]
    probed = job(probe_job(policy, 1))["spec"]["template"]["spec"]
    assert {"name": "scratch", "emptyDir": {}} in probed["volumes"] and "fsGroup" not in probed[
        "securityContext"
    ]


def test_a_limit_of_scratch_is_one_of_the_nodes_disk() -> None:
    policy = applied(DATABASE, SQLITE, podTemplate={"scratch": {"sizeLimit": "5Gi"}})
    pod = job(backup_job(policy, policy.policy, "ab-run", Run()))["spec"]["template"]["spec"]
    assert {"name": "scratch", "emptyDir": {"sizeLimit": "5Gi"}} in pod["volumes"]
    assert "fsGroup" not in pod["securityContext"]


def test_no_group_is_set_where_a_claim_is_mounted() -> None:
    policy = applied(
        DATABASE,
        storage={"claim": {"name": "volume"}},
        podTemplate={"scratch": {"ephemeral": {"size": "1Gi"}}},
    )
    pod = job(backup_job(policy, policy.policy, "ab-run", Run()))["spec"]["template"]["spec"]
    assert "fsGroup" not in pod["securityContext"]


def test_a_claim_that_is_read_and_written_is_mounted_once() -> None:
    both = Mounts(
        claims=(ClaimMount("data", "/a", read_only=True), ClaimMount("data", "/b", read_only=False))
    )
    pod = job(plan(mounts=both))["spec"]["template"]["spec"]
    claims = [each["persistentVolumeClaim"] for each in pod["volumes"] if "persistentVolumeClaim" in each]
    assert claims == [{"claimName": "data"}]
    mounts = {each["mountPath"]: each.get("readOnly", False) for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["/a"] is True and mounts["/b"] is False


def test_a_missing_secret_does_not_keep_a_pod_from_saying_so() -> None:
    pod = job(plan(mounts=Mounts(secrets=(SecretMount("gone", ("username",)),))))["spec"]["template"]["spec"]
    sources = next(each["projected"]["sources"] for each in pod["volumes"] if "projected" in each)
    assert sources[0]["secret"]["optional"] is True
    assert sources[0]["secret"]["items"] == [{"key": "username", "path": "username"}]


def test_a_pod_runs_on_the_node_and_as_the_user_of_its_claims() -> None:
    placement = Placement(nodes=("node-a",), run_as_user=1000, run_as_group=2000, supplemental_groups=(3000,))
    pod = job(plan(placement=placement))["spec"]["template"]["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert terms == [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]}]
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["supplementalGroups"]) == (
        1000,
        2000,
        [3000],
    )


def test_a_result_outlives_the_deadline_of_its_pod() -> None:
    spec = job(plan(deadline_seconds=900))["spec"]
    assert spec["template"]["spec"]["activeDeadlineSeconds"] < spec["activeDeadlineSeconds"] == 900


def test_an_evicted_pod_is_replaced_only_where_runs_may_be_repeated() -> None:
    def actions(backoff_limit: int) -> list[str]:
        rules = job(plan(backoff_limit=backoff_limit))["spec"]["podFailurePolicy"]["rules"]
        return [each["action"] for each in rules]

    assert actions(2) == ["Ignore", "FailJob"] and actions(0) == ["FailJob"]


def test_deleting_a_request_does_not_kill_its_restore_midway() -> None:
    assert "ownerReferences" not in job(plan(owned=False))["metadata"]
    assert job(plan())["metadata"]["ownerReferences"][0]["controller"] is True


def test_a_request_that_no_environment_can_hold_is_refused() -> None:
    with pytest.raises(RequestTooLarge, match="shorten paths"):
        job(plan("x" * names.REQUEST_MAX_BYTES))


def test_a_cron_job_needs_nobody_to_fire() -> None:
    spec = cron_job(applied(timeZone="Europe/Berlin", suspend=True), "5 2 * * *")["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["suspend"]) == ("5 2 * * *", "Europe/Berlin", True)
    assert spec["concurrencyPolicy"] == "Forbid" and spec["startingDeadlineSeconds"] == 3600
    request = _container({"spec": spec["jobTemplate"]["spec"]})["env"][0]["value"]
    assert '"policy":"nightly"' in request and '"prefix":"edna/nightly/"' in request


def test_no_label_of_a_deployment_tool_is_set() -> None:
    """Argo CD and Helm adopt or prune what carries their labels; what the operator makes is its own."""
    built = cron_job(applied(), "5 2 * * *")
    assert not [name for name in built["metadata"]["labels"] if "instance" in name or "helm" in name]


@pytest.mark.parametrize("source", [FILES, SQLITE], ids=lambda source: source["name"])
def test_a_plan_names_the_claim_that_it_writes_to(source: Object) -> None:
    here = PolicySource.model_validate(source)
    there = redirect(here, Target.model_validate({"claim": {"name": "spare"}}))
    asked = [source_part(each, "restore")[0] for each in (here, there)]
    targets = [open_source(each, Path("unused")).target for each in asked]
    assert f"claim {source[list(source)[1]]['claim']['name']}" in targets[0] and "claim spare" in targets[1]


def test_only_a_job_that_may_be_asked_again_goes_by_itself() -> None:
    assert job(plan(ttl_seconds=60))["spec"]["ttlSecondsAfterFinished"] == 60
    assert "ttlSecondsAfterFinished" not in job(plan())["spec"]


def test_annotations_of_a_policy_reach_its_pods_beside_ours() -> None:
    pods = {"annotations": {"linkerd.io/inject": "disabled", names.ANNOTATION_OWNER: "another"}}
    built = cron_job(applied(podTemplate=pods), "5 2 * * *")
    template = built["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["annotations"]
    assert template["linkerd.io/inject"] == "disabled" and template[names.ANNOTATION_OWNER] == "nightly"
    assert "linkerd.io/inject" not in built["metadata"]["annotations"]


def test_the_nodes_that_a_pod_is_bound_to_are_read_back() -> None:
    bound = job(plan(placement=Placement(nodes=("a", "b"))))["spec"]["template"]["spec"]
    assert (
        pinned_nodes(bound) == {"a", "b"} and pinned_nodes(job(plan())["spec"]["template"]["spec"]) == set()
    )


def test_resources_and_tolerations_of_a_policy_reach_its_pods_as_written() -> None:
    resources = {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}}
    tolerations = [{"operator": "Exists"}, {"key": "gpu", "value": "yes", "effect": "NoSchedule"}]
    built = cron_job(applied(podTemplate={"resources": resources, "tolerations": tolerations}), "5 2 * * *")
    pod = built["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"] == resources and pod["tolerations"] == tolerations
    validate(built, "1.34", strict=True)
