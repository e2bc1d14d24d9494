"""What the documents say exists: links, tests, exit codes, commands, packages."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from avalanche_backup.cli.main import cli
from avalanche_contract.exitcodes import RETRYABLE, ExitCode
from tests.integration.combinations import COMBINATIONS

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


def _named_tests() -> list[str]:
    return sorted(
        set(
            re.findall(
                r"`((?:e2e|integration|exhaustive|unit)/[\w/]+\.py::\w+)`", (DOCS / "faults.md").read_text()
            )
        )
    )


def _commands(group: click.Group) -> list[tuple[str, click.Command]]:
    return [(name, each) for name, each in group.commands.items() if not each.hidden]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"`[^`]*`", "", page.read_text())
    links = [each for each in LINK.findall(prose) if "://" not in each]
    assert [each for each in links if not (page.parent / each).exists()] == []


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_found_from_the_readme(page: Path) -> None:
    assert f"docs/{page.name}" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("named", _named_tests())
def test_every_test_that_a_fault_names_is_there(named: str) -> None:
    path, _, function = named.partition("::")
    assert f"def {function}(" in (ROOT / "tests" / path).read_text()


def test_the_table_of_combinations_is_what_is_tested() -> None:
    page = (DOCS / "combinations.md").read_text()
    cells = [
        cell
        for line in page.splitlines()
        if line.startswith("| ")
        for cell in re.findall(r"`([a-z0-9-]+)`", line)
    ]
    assert cells == [each.name for each in COMBINATIONS]
    path, _, function = re.findall(r"`(integration/\w+\.py::\w+)`", page)[0].partition("::")
    assert f"def {function}(" in (ROOT / "tests" / path).read_text()


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `(\w+)` \| (yes|no|) ?\|", (DOCS / "exit-codes.md").read_text(), re.MULTILINE
    )
    told = {(int(number), name): again == "yes" for number, name, again in rows}
    assert told == {(int(code), code.name): code in RETRYABLE for code in ExitCode}


@pytest.mark.parametrize(("name", "command"), _commands(cli), ids=[name for name, _ in _commands(cli)])
def test_every_command_and_option_is_explained(name: str, command: click.Command) -> None:
    page = (DOCS / "command-line.md").read_text()
    assert f"| `{name}" in page
    assert [
        option
        for each in command.params
        for option in each.opts
        if option.startswith("--") and option not in page
    ] == []


def test_every_package_says_what_it_may_do_and_is_drawn() -> None:
    page = (DOCS / "architecture.md").read_text()
    for root in (ROOT / "operator", ROOT / "images" / "backup"):
        for package in root.glob("avalanche_*/**/__init__.py"):
            assert package.read_text().startswith('"""'), package
            assert f"`{package.parent.name}`" in page, package
