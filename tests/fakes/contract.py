"""What every gateway does, whether a cluster is behind it or not. Each function is one sentence of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import pytest

from avalanche_operator.kube.gateway import ApiError, Gateway, Refused

Object = dict[str, Any]
LABELS = {"avalanche.io/test": "contract"}


def job(namespace: str, name: str, *, labels: dict[str, str] | None = None) -> Object:
    """Give a suspended Job: the smallest object of ours that an API server takes."""
    container = {"name": "backup", "image": "localhost/none", "imagePullPolicy": "Never"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "suspend": True,
            "backoffLimit": 1,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
    }


def cron_job(namespace: str, name: str) -> Object:
    """Give a suspended CronJob: it has a status that nobody else writes."""
    spec = {"schedule": "0 0 1 1 *", "suspend": True, "jobTemplate": {"spec": job(namespace, name)["spec"]}}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}


async def what_is_not_there_reads_as_none(gateway: Gateway, namespace: str) -> None:
    assert await gateway.get("Job", namespace, "nothing") is None


async def a_name_is_created_once(gateway: Gateway, namespace: str) -> None:
    first = await gateway.create(job(namespace, "once"))
    assert first is not None and await gateway.create(job(namespace, "once")) is None
    there = await gateway.get("Job", namespace, "once")
    assert there is not None and there["metadata"]["uid"] == first["metadata"]["uid"]


async def a_list_is_chosen_by_labels_and_names_the_kind_of_each(gateway: Gateway, namespace: str) -> None:
    await gateway.create(job(namespace, "chosen", labels=LABELS))
    await gateway.create(job(namespace, "other"))
    found = await gateway.list("Job", namespace, LABELS)
    assert [(each["kind"], each["metadata"]["name"]) for each in found] == [("Job", "chosen")]


async def what_is_iterated_is_what_is_listed(gateway: Gateway, namespace: str) -> None:
    await gateway.create(job(namespace, "iterated", labels=LABELS))
    found = [each["metadata"]["uid"] async for each in gateway.iterate("Job", namespace, labels=LABELS)]
    listed = await gateway.list("Job", namespace, LABELS)
    assert found == [each["metadata"]["uid"] for each in listed] != []
    names = [
        each["metadata"]["name"]
        async for each in gateway.iterate("Job", namespace, fields={"metadata.name": "iterated"})
    ]
    assert names == ["iterated"]


async def what_an_api_server_does_not_take_is_refused(gateway: Gateway, namespace: str) -> None:
    with pytest.raises(Refused) as refused:
        await gateway.create(job(namespace, "Not_A_Name"))
    assert refused.value.status == HTTPStatus.UNPROCESSABLE_ENTITY and refused.value.mended_by_spec
    assert isinstance(refused.value, ApiError) and "Not_A_Name" in refused.value.message
    with pytest.raises(Refused):
        await gateway.apply(cron_job(namespace, "Not_A_Name"))


async def names_and_labels_are_what_kubernetes_takes_for_such(gateway: Gateway, namespace: str) -> None:
    for name in ("a..b", "a.-b", "-a", "a-", "a.", "a_b", "\u00e9", "x" * 64):
        with pytest.raises(Refused) as refused:
            await gateway.create(job(namespace, name))
        assert refused.value.mended_by_spec
    with pytest.raises(Refused):
        await gateway.apply(cron_job(namespace, "x" * 53))
    for value in ("-a", "a b", "\u00e9", "x" * 64):
        with pytest.raises(Refused):
            await gateway.create(job(namespace, "labelled", labels={"avalanche.io/test": value}))
    assert await gateway.create(job(namespace, f"{'a' * 30}.b-c")) is not None


async def what_cannot_be_read_is_refused_created_or_applied(gateway: Gateway, namespace: str) -> None:
    wrong = cron_job(namespace, "unreadable")
    container = wrong["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"limits": {"memory": "much"}}
    for ask in (gateway.create, gateway.apply):
        with pytest.raises(Refused) as refused:
            await ask(wrong)
        assert refused.value.mended_by_spec and "quantities" in refused.value.message


async def replacing_a_spec_takes_out_what_others_added_and_leaves_the_rest(
    gateway: Gateway, namespace: str
) -> None:
    wanted = cron_job(namespace, "replaced-spec")
    made = await gateway.apply(wanted)
    foreign = {"suspend": False, "jobTemplate": {"spec": {"ttlSecondsAfterFinished": 0}}}
    change = {"spec": foreign, "metadata": {"labels": {"theirs": "x"}}}
    await gateway.patch("CronJob", namespace, "replaced-spec", change)
    await gateway.replace_spec(made, wanted["spec"])
    there = await gateway.get("CronJob", namespace, "replaced-spec")
    assert there is not None and there["spec"]["suspend"] is True
    assert "ttlSecondsAfterFinished" not in there["spec"]["jobTemplate"]["spec"]
    assert there["metadata"]["labels"]["theirs"] == "x"


async def replacing_a_spec_by_the_same_writes_nothing(gateway: Gateway, namespace: str) -> None:
    wanted = cron_job(namespace, "same-spec")
    made = await gateway.apply(wanted)
    await gateway.replace_spec(made, wanted["spec"])
    there = await gateway.get("CronJob", namespace, "same-spec")
    assert there is not None and there["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await gateway.delete(made)
    await gateway.replace_spec(made, wanted["spec"])
    assert await gateway.get("CronJob", namespace, "same-spec") is None


async def applying_again_sets_back_what_was_changed_and_keeps_what_is_not_ours(
    gateway: Gateway, namespace: str
) -> None:
    await gateway.apply(job(namespace, "drift", labels=LABELS))
    await gateway.patch(
        "Job", namespace, "drift", {"spec": {"suspend": True}, "metadata": {"annotations": {"theirs": "x"}}}
    )
    await gateway.apply(job(namespace, "drift", labels=LABELS))
    there = await gateway.get("Job", namespace, "drift")
    assert there is not None and there["metadata"]["annotations"]["theirs"] == "x"
    assert there["metadata"]["labels"].items() >= LABELS.items()


async def a_status_is_as_given_and_what_is_no_longer_said_is_gone(gateway: Gateway, namespace: str) -> None:
    found = await gateway.create(cron_job(namespace, "told"))
    assert found is not None
    both = {"lastScheduleTime": "2026-01-01T00:00:00Z", "lastSuccessfulTime": "2026-01-01T00:00:01Z"}
    told = await gateway.apply_status(found, both)
    assert told is not None and told["status"] == both
    after = await gateway.apply_status(told, {"lastScheduleTime": "2026-01-01T00:00:00Z"})
    assert after is not None and after["status"] == {"lastScheduleTime": "2026-01-01T00:00:00Z"}


async def a_status_of_what_changed_meanwhile_is_not_written(gateway: Gateway, namespace: str) -> None:
    old = await gateway.create(cron_job(namespace, "changed"))
    assert old is not None
    await gateway.patch("CronJob", namespace, "changed", {"spec": {"schedule": "0 0 2 1 *"}})
    assert await gateway.apply_status(old, {"lastScheduleTime": "2026-01-01T00:00:00Z"}) is None
    there = await gateway.get("CronJob", namespace, "changed")
    assert there is not None and not there.get("status")


async def a_status_of_an_object_that_was_replaced_is_not_written(gateway: Gateway, namespace: str) -> None:
    old = await gateway.create(cron_job(namespace, "replaced"))
    assert old is not None
    await gateway.delete(old)
    await gateway.create(cron_job(namespace, "replaced"))
    assert await gateway.apply_status(old, {"lastScheduleTime": "2026-01-01T00:00:00Z"}) is None
    there = await gateway.get("CronJob", namespace, "replaced")
    assert there is not None and not there.get("status")


async def a_patch_of_what_is_gone_says_so(gateway: Gateway, namespace: str) -> None:
    assert await gateway.patch("Job", namespace, "nothing", {"spec": {"suspend": False}}) is None


async def only_the_very_object_is_deleted(gateway: Gateway, namespace: str) -> None:
    found = await gateway.create(cron_job(namespace, "very"))
    assert found is not None
    await gateway.delete(
        {**found, "metadata": {**found["metadata"], "uid": "00000000-dead-4000-8000-000000000000"}}
    )
    assert await gateway.get("CronJob", namespace, "very") is not None
    await gateway.delete(found)
    await gateway.delete(found)
    assert await gateway.get("CronJob", namespace, "very") is None


async def the_log_of_no_pod_is_empty(gateway: Gateway, namespace: str) -> None:
    assert await gateway.logs(namespace, "nothing") == ""


CONTRACT: tuple[Callable[[Gateway, str], Awaitable[None]], ...] = (
    what_is_not_there_reads_as_none,
    a_name_is_created_once,
    a_list_is_chosen_by_labels_and_names_the_kind_of_each,
    what_is_iterated_is_what_is_listed,
    what_an_api_server_does_not_take_is_refused,
    names_and_labels_are_what_kubernetes_takes_for_such,
    what_cannot_be_read_is_refused_created_or_applied,
    replacing_a_spec_takes_out_what_others_added_and_leaves_the_rest,
    replacing_a_spec_by_the_same_writes_nothing,
    applying_again_sets_back_what_was_changed_and_keeps_what_is_not_ours,
    a_status_is_as_given_and_what_is_no_longer_said_is_gone,
    a_status_of_what_changed_meanwhile_is_not_written,
    a_status_of_an_object_that_was_replaced_is_not_written,
    a_patch_of_what_is_gone_says_so,
    only_the_very_object_is_deleted,
    the_log_of_no_pod_is_empty,
)
