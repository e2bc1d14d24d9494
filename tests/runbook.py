"""The commands of ``docs/disaster-recovery.md``, as they stand there: read by section, and run by the shell that a person has.

Every block fenced as ``sh`` belongs to a section, and is run with it. One that is not run says so itself: its first line is
:data:`NOT_RUN` and the reason.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "disaster-recovery.md"
NOT_RUN = "# not run by the tests: "
VARIABLES = "The variables"
_HEADING = re.compile(r"^#+ (?P<title>.+)$")
_VARIABLE = re.compile(r"^export (?P<name>[A-Z_]+)=(?P<value>[^\s#]*)", re.MULTILINE)
_SHELL = ("bash", "-o", "errexit", "-o", "nounset", "-o", "pipefail")


@dataclass(frozen=True)
class Block:
    """One fenced block: the heading above it, and what stands in it."""

    section: str
    text: str

    @property
    def run(self) -> bool:
        """Say whether the tests run it."""
        return not self.text.startswith(NOT_RUN)


def blocks() -> list[Block]:
    """Give every block of the page that is fenced as ``sh``, in its order."""
    found: list[Block] = []
    section, language, lines = "", "", list[str]()
    for line in PAGE.read_text().splitlines():
        if language:
            if line == "```":
                found += [Block(section, "\n".join(lines) + "\n")] if language == "sh" else []
                language, lines = "", []
            else:
                lines.append(line)
        elif line.startswith("```"):
            language = line.removeprefix("```") or "text"
        elif heading := _HEADING.match(line):
            section = heading["title"]
    return found


def variables() -> dict[str, str]:
    """Give the variables that the page sets at its head, with the values that it shows."""
    head = next(each.text for each in blocks() if each.section == VARIABLES)
    return {found["name"]: found["value"] for found in _VARIABLE.finditer(head)}


def script(section: str, values: Mapping[str, str]) -> str:
    """Give the commands of a section behind the head of the page, whose variables have other values; nothing else differs.

    :raises KeyError: ``values`` names none of the page's variables, or leaves one out.
    """
    head = next(each.text for each in blocks() if each.section == VARIABLES)
    if unlike := set(values) ^ set(variables()):
        raise KeyError(f"the page has other variables: {', '.join(sorted(unlike))}")
    filled = _VARIABLE.sub(lambda found: f"export {found['name']}='{values[found['name']]}'", head)
    return filled + "".join(each.text for each in blocks() if each.section == section and each.run)


def run(section: str, values: Mapping[str, str], folder: Path, **environment: str) -> str:
    """Run a section in a folder, and give what it printed.

    :raises AssertionError: a command failed; the text is what was said until then.
    """
    ended = subprocess.run(
        [*_SHELL, "-c", script(section, values)], cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"{section} ended with {ended.returncode}:\n{ended.stdout}"
    return ended.stdout
