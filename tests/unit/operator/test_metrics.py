"""What a scrape says of policies: what their status says, no more, and the same after any restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import kopf
import pytest
from aiohttp import ClientConnectionError, ClientSession
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from avalanche_operator.app import Operator
from avalanche_operator.kube.gateway import ApiError
from avalanche_operator.metrics.build import exposition, told_of
from avalanche_operator.metrics.serve import Scrapes, application, serve
from avalanche_operator.settings import SettingMissing, read_settings
from tests.fakes.world import World
from tests.unit.operator.objects import CHAT, S3_SPEC, found, policy_spec

Object = dict[str, Any]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
DRILL: Object = {
    "job": "drill-now",
    "time": "2026-03-31T07:00:29Z",
    "result": "Succeeded",
    "reason": "Drilled",
}


def _policy(status: Object | None = None, name: str = "nightly", **spec: Any) -> Object:
    return found("BackupPolicy", name, policy_spec(**spec), {"observedGeneration": 1, **(status or {})})


def _series(text: bytes) -> Series:
    return {
        (sample.name.removeprefix("avalanche_policy_"), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def _told(*policies: Object) -> Series:
    return _series(exposition(told_of(each) for each in policies))


def _value(series: Series, metric: str, policy: str = "nightly", **labels: str) -> float | None:
    wanted = {"namespace": "edna", "policy": policy, **labels}
    return series.get((metric, frozenset(wanted.items())))


def _names(series: Iterable[tuple[str, Any]]) -> set[str]:
    return {name for name, _ in series}


def test_moments_sizes_and_counts_are_those_of_the_status() -> None:
    told = _told(
        _policy(
            {
                "lastSuccessfulTime": "2026-03-31T02:00:41Z",
                "lastFailedTime": "2026-03-30T02:01:00Z",
                "lastScheduleTime": "2026-03-31T02:00:00Z",
                "nextScheduleTime": "2026-04-01T02:00:00Z",
                "lastVerifiedTime": "2026-03-31T06:01:00Z",
                "consecutiveFailures": 0,
                "backupCount": 21,
                "sizeBytes": 5_000_000_000,
                "missedRuns": 2,
                "slots": {"since": "2026-01-01T00:00:00Z", "missed": 3},
            }
        )
    )
    assert _value(told, "last_success_timestamp_seconds") == 1774922441
    assert _value(told, "last_failure_timestamp_seconds") == 1774836060
    assert _value(told, "last_schedule_timestamp_seconds") == 1774922400
    assert _value(told, "next_schedule_timestamp_seconds") == 1775008800
    assert _value(told, "last_verified_timestamp_seconds") == 1774936860
    assert _value(told, "created_timestamp_seconds") == 1767225600
    assert (_value(told, "backups"), _value(told, "backups_size_bytes")) == (21, 5e9)
    assert (_value(told, "consecutive_failures"), _value(told, "missed_runs")) == (0, 2)
    assert _value(told, "missed_slots") == 5, "those before the last run are counted as well"


@pytest.mark.parametrize(("result", "success"), [("Succeeded", 1), ("Failed", 0), ("Lost", 0)])
def test_a_drill_succeeded_or_it_did_not(result: str, success: float) -> None:
    told = _told(_policy({"lastDrill": {**DRILL, "result": result}}))
    assert _value(told, "last_drill_success") == success
    assert _value(told, "last_drill_timestamp_seconds") == 1774940429


def test_the_times_that_a_drill_took_are_told_where_it_came_so_far() -> None:
    drills = {"lastSuccessfulTime": "2026-03-30T07:00:00Z"}
    measured = _told(_policy({"lastDrill": {**DRILL, "durationSeconds": 22, "restoreSeconds": 20}}))
    lost = _told(_policy({"lastDrill": {**DRILL, "result": "Lost"}, "drills": drills}))
    assert _value(measured, "last_drill_duration_seconds") == 22
    assert _value(measured, "last_drill_restore_seconds") == 20
    assert not {"last_drill_duration_seconds", "last_drill_restore_seconds"} & _names(lost)
    assert _value(lost, "last_good_drill_timestamp_seconds") == 1774854000


def test_a_condition_has_one_of_three_statuses() -> None:
    moment = "2026-03-31T02:00:00Z"
    met = {
        "type": "ObjectivesMet",
        "status": "False",
        "reason": "RecoveryPointMissed",
        "lastTransitionTime": moment,
    }
    told = _told(_policy({"conditions": [met]}))
    held = {
        status: _value(told, "condition", condition="ObjectivesMet", status=status)
        for status in ("True", "False", "Unknown")
    }
    assert held == {"True": 0, "False": 1, "Unknown": 0}


def test_objectives_stand_beside_what_they_are_judged_by() -> None:
    objectives = {"recoveryPointSeconds": 93600, "recoveryTimeSeconds": 3600}
    judged = {"recoveryPointTime": "2026-03-31T02:00:00Z", "recoverySeconds": 250}
    told = _told(_policy({"objectives": judged}, objectives=objectives))
    assert _value(told, "recovery_point_timestamp_seconds") == 1774922400
    assert _value(told, "recovery_point_objective_seconds") == 93600
    assert (_value(told, "recovery_time_seconds"), _value(told, "recovery_time_objective_seconds")) == (
        250,
        3600,
    )
    assert not [each for each in _names(_told(_policy())) if "recovery" in each]


def test_a_policy_that_nobody_looked_at_yet_has_no_counts_and_is_there() -> None:
    new = found(
        "BackupPolicy", "nightly", policy_spec(suspend=True, schedule="H 2 * * *", timeZone="Europe/Berlin")
    )
    told = _told(new)
    assert _names(told) == {"info", "created_timestamp_seconds", "suspended"}
    assert _value(told, "info", schedule="H 2 * * *", time_zone="Europe/Berlin") == 1
    assert _value(told, "suspended") == 1 and _value(_told(_policy()), "suspended") == 0


def test_a_status_that_cannot_be_read_hides_no_policy() -> None:
    told = _told(_policy({"lastSuccessfulTime": "yesterday"}), _policy({"backupCount": 1}, name="other"))
    assert _value(told, "info", schedule="0 2 * * *", time_zone="Etc/UTC") == 1
    assert _value(told, "backups", policy="other") == 1 and _value(told, "backups") is None


def test_messages_and_names_of_secrets_stay_where_they_are() -> None:
    drill = {**DRILL, "message": "gave '2000', and not '> 2000'", "backupID": "database_20260331_020000"}
    text = exposition([told_of(_policy({"lastDrill": drill}, notifications=[CHAT]))]).decode()
    labels = {name for _, each in _series(text.encode()) for name, _ in each}
    assert labels == {"namespace", "policy", "schedule", "time_zone"}
    assert not [word for word in ("2000", "database", "chat", "drill-now") if word in text]


def test_a_policy_has_as_many_series_whatever_number_of_backups_it_has() -> None:
    few, many = _told(_policy({"backupCount": 1})), _told(_policy({"backupCount": 100_000}))
    assert few.keys() == many.keys()


def test_every_metric_is_explained_and_written_in_base_units() -> None:
    families = list(text_string_to_metric_families(exposition([]).decode()))
    assert len(families) > 20
    for each in families:
        assert each.type == "gauge" and each.documentation.endswith("."), each.name
        assert not each.name.endswith(("_total", "_ms", "_minutes", "_mb")), each.name


def _scrapes(world: World, *, passed: Iterable[float] = (0, 0)) -> Scrapes:
    times = iter(passed)
    return Scrapes(world.around, clock=lambda: next(times))


def test_two_operators_tell_the_same_of_the_same_objects() -> None:
    world = World()
    world.person("BackupStorage", "s3", S3_SPEC)
    world.person("BackupPolicy", "nightly", policy_spec())
    world.run(rounds=4)
    world.fire("nightly", world.time.replace(hour=2, minute=0, second=0))
    world.run(rounds=6)
    first, second = (asyncio.run(_scrapes(world).text()) for _ in range(2))
    told = _series(first)
    assert first == second
    assert _value(told, "backups") == 1 and _value(told, "condition", condition="Ready", status="True") == 1
    assert _value(told, "last_success_timestamp_seconds") is not None


def test_only_policies_of_watched_namespaces_are_told_of() -> None:
    world = World()
    for namespace in ("edna", "another", "third"):
        body = _policy()
        world.gateway.put({**body, "metadata": {**body["metadata"], "namespace": namespace}})
    settings = replace(world.around.settings, namespaces=("edna", "third"))
    around = replace(world.around, settings=settings)
    told = _series(asyncio.run(Scrapes(around).text()))
    assert sorted({dict(labels)["namespace"] for _, labels in told}) == ["edna", "third"]


def test_who_asks_again_at_once_costs_the_api_server_nothing_and_who_asks_later_is_told_what_changed() -> (
    None
):
    world = World()
    world.person("BackupPolicy", "nightly", policy_spec())
    scrapes = _scrapes(world, passed=(0, 0, 1, 6, 6))

    async def ask() -> list[int]:
        listed = []
        for _ in range(3):
            await scrapes.text()
            listed.append(world.gateway.listed["BackupPolicy"])
        return listed

    assert asyncio.run(ask()) == [1, 1, 2]


def _page(world: World, path: str = "/metrics") -> tuple[int, str, str]:
    async def ask() -> tuple[int, str, str]:
        async with TestClient(TestServer(application(Scrapes(world.around)))) as client:
            answer = await client.get(path)
            return answer.status, answer.headers["Content-Type"], await answer.text()

    return asyncio.run(ask())


def test_the_page_is_prometheus_text() -> None:
    world = World()
    world.person("BackupPolicy", "nightly", policy_spec())
    status, kind, text = _page(world)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'avalanche_policy_info{namespace="edna",policy="nightly"' in text
    assert _page(world, "/anything")[0] == 404


def test_without_the_api_server_a_scrape_fails_and_says_so_instead_of_telling_of_no_policy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()

    def away(*_: Any) -> Any:
        raise ApiError(0, "TimeoutError")

    monkeypatch.setattr(world.gateway, "iterate", away)
    status, _, text = _page(world)
    assert (status, text) == (503, "the API server did not list the policies\n")


def _operator(port: int) -> Operator:
    world = World()
    world.person("BackupPolicy", "nightly", policy_spec())
    return Operator(replace(world.around, settings=replace(world.around.settings, metrics_port=port)))


def test_an_operator_serves_from_its_start_to_its_end_and_refuses_to_start_where_the_port_is_taken() -> None:
    async def live() -> tuple[str, list[Any]]:
        free = await serve(Scrapes(World().around), 0)
        port = free.addresses[0][1]
        taken = _operator(port)
        with pytest.raises(kopf.PermanentError, match="AVALANCHE_METRICS_PORT"):
            await taken.start()
        await free.cleanup()
        operator = _operator(port)
        await operator.start()
        async with ClientSession() as session:
            text = await (await session.get(f"http://127.0.0.1:{port}/metrics")).text()
            await operator.stop()
            with pytest.raises(ClientConnectionError):
                await session.get(f"http://127.0.0.1:{port}/metrics")
        return text, taken._tasks

    text, tasks = asyncio.run(live())
    assert 'avalanche_policy_info{namespace="edna",policy="nightly"' in text
    assert tasks == [], "nothing is reconciled by an operator that did not start"


@pytest.mark.parametrize(
    ("written", "port"),
    [({}, None), ({"AVALANCHE_METRICS_PORT": ""}, None), ({"AVALANCHE_METRICS_PORT": "8081"}, 8081)],
)
def test_metrics_are_served_where_a_port_is_named(written: dict[str, str], port: int | None) -> None:
    assert read_settings({"AVALANCHE_BACKUP_IMAGE": "backup:1", **written}, "cluster").metrics_port == port


@pytest.mark.parametrize("written", ["0", "65536", "http", "-1", "٨٠٨١"])
def test_what_is_no_port_is_refused(written: str) -> None:
    environment = {"AVALANCHE_BACKUP_IMAGE": "backup:1", "AVALANCHE_METRICS_PORT": written}
    with pytest.raises(SettingMissing, match="AVALANCHE_METRICS_PORT"):
        read_settings(environment, "cluster")
