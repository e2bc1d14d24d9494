"""Every reason that the code may give is explained where people look it up."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
CAMEL = re.compile(r"^[A-Z][A-Za-z]+$")
ARGUMENT = {
    "Verdict": 2,
    "Finding": 1,
    "failed": 2,
    "RestoreImpossible": 0,
    "ScheduleInvalid": 0,
    "Outcome": 1,
}
"""At which place a call takes a reason, where it is not the keyword `reason`."""


def _texts(node: ast.expr | None) -> Iterator[str]:
    """Give the CamelCase texts that an expression may come to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and CAMEL.match(node.value):
        yield node.value
    for inner in getattr(node, "values", ()) if isinstance(node, ast.BoolOp) else ():
        yield from _texts(inner)
    if isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _table(node: ast.expr | None) -> Iterator[str]:
    """Give the reasons of a table: {"what a server says": ("Reason", "what to do")}, or a tuple of (pattern, reason)."""
    for value in node.values if isinstance(node, ast.Dict) else ():
        if isinstance(value, ast.Tuple) and len(value.elts) == 2:
            yield from _texts(value.elts[0])
    for row in node.elts if isinstance(node, ast.Tuple) else ():
        if isinstance(row, ast.Tuple) and len(row.elts) >= 2:
            yield from _texts(row.elts[1])


def _of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.keyword) and node.arg == "reason":
        yield from _texts(node.value)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if _name(target) == "default_reason":
            yield from _texts(node.value)
        yield from _table(node.value)
    elif isinstance(node, ast.Call) and len(node.args) > ARGUMENT.get(_name(node.func), 99):
        yield from _texts(node.args[ARGUMENT[_name(node.func)]])
    elif (
        isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) in (2, 3)
    ):
        yield from _texts(node.value.elts[-2])


@cache
def _reasons() -> list[str]:
    paths = [path for folder in ("operator", "images/backup") for path in (ROOT / folder).rglob("*.py")]
    return sorted(
        {reason for path in paths for node in ast.walk(ast.parse(path.read_text())) for reason in _of(node)}
    )


@pytest.mark.parametrize("reason", _reasons())
def test_every_reason_is_explained(reason: str) -> None:
    assert f"`{reason}`" in PAGE, f"add a row for {reason} to docs/troubleshooting.md"


def test_reasons_are_found_in_every_way_that_they_are_written() -> None:
    found = set(_reasons())
    assert len(found) > 80
    assert {
        "SourceEmpty",
        "StorageFull",
        "AuthenticationFailed",
        "OutOfMemory",
        "InvalidTimeZone",
        "Terminated",
    } <= found
    assert {"NameTaken", "AccessDenied", "CredentialsMissing", "StorageNotFound", "BackupNotUsable"} <= found


def test_no_row_explains_a_reason_twice() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = [reason for row in rows for reason in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(set(named))
