"""What a policy may say about scratch and jobs, as the API server would judge it."""

from __future__ import annotations

from typing import Any

import cel
import pytest

from avalanche_operator.api.generate import structural
from avalanche_operator.api.policy import BackupPolicySpec
from avalanche_operator.api.scratch import Scratch
from avalanche_operator.api.source import Postgresql
from tests.unit.operator.objects import DATABASE, FILES, policy_spec

OWN_VOLUME = {"scratch": {"ephemeral": {"size": "1Gi"}}}


def _refused(model: type[Any], value: Any) -> list[str]:
    rules = structural(model)["x-kubernetes-validations"]
    return [each["message"] for each in rules if not cel.evaluate(each["rule"], {"self": value})]


@pytest.mark.parametrize(("model", "value", "good"), [
    (Postgresql, {}, True),
    (Postgresql, {"jobs": 1, "format": "Plain"}, True),
    (Postgresql, {"jobs": 2, "format": "Plain"}, False),
    (Postgresql, {"jobs": 16, "format": "Directory"}, True),
    (Scratch, {"sizeLimit": "5Gi"}, True),
    (Scratch, {}, False),
    (Scratch, {"sizeLimit": "5Gi", "ephemeral": {"size": "5Gi"}}, False),
    (BackupPolicySpec, policy_spec(DATABASE, podTemplate=OWN_VOLUME), True),
    (BackupPolicySpec, policy_spec(DATABASE, FILES, podTemplate=OWN_VOLUME), False),
    (BackupPolicySpec, policy_spec(FILES, podTemplate={"scratch": {"sizeLimit": "5Gi"}}), True),
])  # fmt: skip
def test_scratch_and_jobs_are_taken_or_refused_with_a_sentence(
    model: type[Any], value: Any, good: bool
) -> None:
    assert (_refused(model, value) == []) is good
