"""The environment that the command line reads: the process's own, and ``.env`` where that is silent."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from avalanche_backup.errors import UsageInvalid

_LINE = re.compile(r"^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$")

_SINGLE = re.compile(r"^'([^']*)'\s*(?:#.*)?$")
_DOUBLE = re.compile(r'^"((?:[^"\\]|\\.)*)"\s*(?:#.*)?$')


def load_dotenv(path: Path, environment: MutableMapping[str, str] | None = None) -> None:
    """Add what ``.env`` says to the environment; what is set there already wins. No file is no error.

    :raises UsageInvalid: a line is no ``NAME=value``.
    """
    target = os.environ if environment is None else environment
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageInvalid(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageInvalid(f"{path} is no UTF-8: save it as UTF-8") from None
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _LINE.match(stripped)
        if found is None:
            raise UsageInvalid(f"{path}, line {number}: write NAME=value")
        target.setdefault(found[1], _value(found[2]))


def _value(text: str) -> str:
    """Take quotes off; a comment may follow after a space."""
    if found := _SINGLE.match(text):
        return found[1]
    if found := _DOUBLE.match(text):
        return re.sub(r"\\(.)", r"\1", found[1])
    return re.split(r"\s+#", text, maxsplit=1)[0].strip()
