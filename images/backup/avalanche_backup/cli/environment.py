"""The environment that the command line reads: the process's own, and ``.env`` where that is silent."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from avalanche_backup.errors import UsageInvalid

_LINE = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")


def load_dotenv(path: Path, environment: MutableMapping[str, str] | None = None) -> None:
    """Add what ``.env`` says to the environment; what is set there already wins. No file is no error.

    :raises UsageInvalid: a line is no ``NAME=value``.
    """
    target = os.environ if environment is None else environment
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageInvalid(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.match(stripped)
        if found is None:
            raise UsageInvalid(f"{path}, line {number}: write NAME=value")
        target.setdefault(found[1], _value(found[2]))


def _value(text: str) -> str:
    """Take quotes off; a comment may follow an unquoted value after a space."""
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()
