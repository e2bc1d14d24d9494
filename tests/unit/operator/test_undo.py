"""A RestoreRequest that takes another one back, against a cluster in memory."""

from __future__ import annotations

from typing import Any

import pytest

from avalanche_operator.api.restore import RestoreRequestSpec
from tests.fakes.world import NAMESPACE, World
from tests.unit.operator.test_restore_life import approve, ask, jobs, world

__all__ = ["world"]


def restored(world: World, **spec: Any) -> str:
    """Restore, keeping what was there, and give the UID of the request."""
    approve(world, ask(world, keepPrevious=True, **spec))
    world.run(4)
    assert world.status("RestoreRequest", "back")["phase"] == "Succeeded"
    return str(world.gateway.objects["RestoreRequest", NAMESPACE, "back"]["metadata"]["uid"])


def ask_undo(world: World, name: str = "undo", of: str = "back") -> dict[str, Any]:
    world.person("RestoreRequest", name, {"undo": {"name": of}})
    world.run(4)
    return world.status("RestoreRequest", name)


def test_an_undo_waits_for_an_approval_and_takes_that_very_restore_back(world: World) -> None:
    uid = restored(world)
    status = ask_undo(world)
    assert status["phase"] == "AwaitingApproval"
    assert status["backup"]["name"] == "first"
    assert "checksum" not in status["plan"]
    assert world.undone == []
    request = world.gateway.objects["RestoreRequest", NAMESPACE, "undo"]
    world.gateway.put({**request, "spec": {**request["spec"], "approvedPlan": status["plan"]["digest"]}})
    world.run(4)
    assert world.status("RestoreRequest", "undo")["phase"] == "Succeeded"
    assert world.undone == [uid]
    assert len(jobs(world, verb="undo", mode='"mode":"Execute"')) == 1


def test_the_approval_of_a_restore_is_none_of_its_undo(world: World) -> None:
    restored(world)
    digest = world.status("RestoreRequest", "back")["plan"]["digest"]
    ask_undo(world)
    request = world.gateway.objects["RestoreRequest", NAMESPACE, "undo"]
    world.gateway.put({**request, "spec": {**request["spec"], "approvedPlan": digest}})
    world.run(4)
    assert world.status("RestoreRequest", "undo")["phase"] == "AwaitingApproval"
    assert world.undone == []


@pytest.mark.parametrize(
    ("of", "reason"), [("nobody", "RestoreNotFound"), ("plain", "NothingKept"), ("undo", "NothingKept")]
)
def test_what_cannot_be_undone_is_named_and_nothing_runs(world: World, of: str, reason: str) -> None:
    restored(world)
    world.person("RestoreRequest", "plain", {"backupRef": {"name": "first"}, "dryRun": False})
    world.run(3)
    plain = world.gateway.objects["RestoreRequest", NAMESPACE, "plain"]
    digest = world.status("RestoreRequest", "plain")["plan"]["digest"]
    world.gateway.put({**plain, "spec": {**plain["spec"], "approvedPlan": digest}})
    world.run(4)
    ask_undo(world)
    status = ask_undo(world, "other", of)
    assert (status["phase"], status["failureReason"]) == ("Failed", reason)


def test_an_undo_waits_for_the_end_of_its_restore(world: World) -> None:
    ask(world, keepPrevious=True)
    status = ask_undo(world)
    assert (status["phase"], status["message"]) == ("Pending", "RestoreRequest back has not ended")


def test_strategy_and_what_is_kept_reach_the_job_and_the_plan(world: World) -> None:
    ask(world, strategy="Swap", keepPrevious=True)
    (plan,) = jobs(world)
    request = str(plan["spec"]["template"]["spec"]["containers"][0]["env"])
    assert '"keepPrevious":true' in request
    assert '"strategy":"Swap"' in request
    assert world.status("RestoreRequest", "back")["plan"]["targets"][0]["strategy"] == "InPlace"


def test_a_spec_without_a_word_of_strategy_leaves_it_to_the_plan() -> None:
    spec = RestoreRequestSpec.model_validate({"backupRef": {"name": "first"}})
    assert (spec.strategy, spec.keep_previous) == (None, False)
