"""No command of the runbook escapes the tests that run it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests import runbook

RUN_BY = (
    Path(__file__).parents[2] / "e2e" / "test_runbook.py",
    Path(__file__).parents[2] / "integration" / "test_runbook.py",
)


def _sections_that_are_run() -> list[str]:
    """Give the sections that the tests name: the first argument of every call of ``runbook.run``."""
    calls = [
        node
        for path in RUN_BY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    return [
        str(each.args[0].value)
        for each in calls
        if ast.unparse(each.func) == "runbook.run" and isinstance(each.args[0], ast.Constant)
    ]


def test_every_block_is_run_by_one_test_or_says_why_it_is_not() -> None:
    sections = {each.section for each in runbook.blocks() if each.run} - {runbook.VARIABLES}
    assert sorted(_sections_that_are_run()) == sorted(sections) and len(sections) == 4
    left_out = [each.text.splitlines()[0] for each in runbook.blocks() if not each.run]
    assert all(len(each.removeprefix(runbook.NOT_RUN)) > 10 for each in left_out)


def test_no_command_hides_in_a_block_of_another_name() -> None:
    fences = re.findall(r"^ *(?:```|~~~)(\S*)", runbook.PAGE.read_text(), re.MULTILINE)
    assert set(fences) == {"sh", ""} and len(fences) == 2 * len(runbook.blocks())


def test_the_commands_are_run_as_they_stand_but_for_the_values_of_the_variables() -> None:
    values = {name: f"of {name}" for name in runbook.variables()}
    section = next(each.section for each in runbook.blocks() if each.section.startswith("(b)"))
    script = runbook.script(section, values)
    assert (
        "export BUCKET='of BUCKET'" in script and runbook.variables()["BUCKET"] not in script.splitlines()[1]
    )
    assert all(each.text in script for each in runbook.blocks() if each.section == section)
    assert len(values) >= 12 and all(f"${name}" in runbook.PAGE.read_text() for name in values)
