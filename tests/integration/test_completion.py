"""The completion of bash, as bash runs it: the script that the command prints, and what it offers for a line that is begun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMPLETE = """
eval "$(avalanche-backup completion bash)"
found=$(complete -p avalanche-backup)
function=${found#*-F }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"${function%% *}" avalanche-backup "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(folder: Path, *words: str) -> set[str]:
    """Have bash complete the last word of a line."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", COMPLETE, "bash", "avalanche-backup", *words],
        env={"PATH": path, "HOME": str(folder)}, cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ended.stderr == ""
    return set(ended.stdout.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("resto",), {"restore"}),
        (("un",), {"undo"}),
        (("restore", "da"), {"database"}),
        (("restore", "database", "--strat"), {"--strategy"}),
        (("restore", "database", "--strategy", "s"), {"swap"}),
        (("completion", "b"), {"bash"}),
        (("nothing-begins-so",), set()),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_bash_completes_commands_options_and_values(
    tmp_path: Path, words: tuple[str, ...], offered: set[str]
) -> None:
    assert completed(tmp_path, *words) == offered


def test_bash_offers_every_command(tmp_path: Path) -> None:
    assert {
        "database",
        "files",
        "full",
        "list",
        "restore",
        "verify",
        "cleanup",
        "drill",
        "undo",
    } <= completed(tmp_path, "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script_of_their_own(shell: str) -> None:
    program = Path(sys.executable).with_name("avalanche-backup")
    ended = subprocess.run([program, "completion", shell], capture_output=True, text=True, check=True)
    assert f"_AVALANCHE_BACKUP_COMPLETE={shell}_complete" in ended.stdout
