"""What the page on metrics says: every metric is in its table, and its alerts are rules on metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from avalanche_operator.metrics.build import PolicyCollector

PAGE = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
NAMES = [each.name for each in PolicyCollector(()).collect()]


def _alerts() -> dict[str, dict[str, Any]]:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return {rule["alert"]: rule for group in yaml.safe_load(block)["groups"] for rule in group["rules"]}


def test_the_table_names_every_metric_in_the_order_in_which_they_are_served() -> None:
    assert re.findall(r"^\| `(avalanche_\w+)` \|", PAGE, re.MULTILINE) == NAMES


def test_alerts_ask_for_metrics_that_are_served_and_say_of_whom_they_tell() -> None:
    alerts = _alerts()
    assert len(alerts) == 4
    for name, rule in alerts.items():
        asked = re.findall(r"avalanche_\w+", rule["expr"])
        assert asked and set(asked) <= set(NAMES), name
        if "absent" not in rule["expr"]:
            summary = rule["annotations"]["summary"]
            assert "$labels.namespace" in summary and "$labels.policy" in summary, name


def test_a_missing_backup_a_failed_drill_and_a_missed_objective_are_told() -> None:
    asked = " ".join(rule["expr"] for rule in _alerts().values())
    for each in ("last_success_timestamp_seconds", "last_drill_success == 0", 'condition="ObjectivesMet"'):
        assert each in asked
