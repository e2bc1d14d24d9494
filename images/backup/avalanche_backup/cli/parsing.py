"""Reading ``config/backup.yaml`` into its sections.

An unknown key is an error that names the nearest known one: a typing error must never mean a backup that is not made.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from avalanche_backup.cli.sections import SECRET, BackupSection, Document
from avalanche_backup.errors import UsageInvalid

DEFAULT_FILE = Path("config/backup.yaml")
VARIABLES = (
    "DB_TYPE",
    "DB_HOST",
    "DB_PORT",
    "DB_NAME",
    "DB_USER",
    "DB_PASSWORD",
    "DB_PATH",
    "BACKUP_CLOUD_ENABLED",
)


def parse(document: Any) -> BackupSection:
    """Parse what the YAML file holds.

    :raises UsageInvalid: a key is unknown, or a value does not fit.
    """
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise UsageInvalid("the configuration is no mapping: it begins with 'backup:'")
    _refuse_unknown(document, Document, "")
    try:
        return Document.model_validate(document).backup
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        shown = "" if SECRET.intersection(map(str, first["loc"])) else f", not {first['input']!r}"
        raise UsageInvalid(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}{shown}") from None


def load(path: Path | None) -> Any:
    """Read the YAML of a file; the default one may be absent.

    :raises UsageInvalid: it is missing, or no YAML.
    """
    chosen = path or DEFAULT_FILE
    try:
        return yaml.safe_load(chosen.read_text())
    except FileNotFoundError:
        if path is None:
            return {}
        raise UsageInvalid(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError):
        raise UsageInvalid(f"{chosen} cannot be read") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageInvalid(
            f"{chosen}{where}: not YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}"
        ) from None


def _refuse_unknown(document: Mapping[str, Any], model: type[BaseModel], path: str) -> None:
    for key, value in document.items():
        field = model.model_fields.get(str(key))
        if field is None:
            near = difflib.get_close_matches(str(key), model.model_fields, n=1, cutoff=0)
            hint = f"; did you mean {path}{near[0]}?" if near else ""
            raise UsageInvalid(f"unknown key {path}{key}{hint}")
        inner = field.annotation
        if isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, BaseModel):
            _refuse_unknown(value, inner, f"{path}{key}.")


def refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Refuse a variable that is nearly one of ours: left out in silence, it would mean another database."""
    for name in environment:
        near = difflib.get_close_matches(name, VARIABLES, n=1, cutoff=0.85)
        if near and near[0] != name and name.startswith(("DB_", "BACKUP_")):
            raise UsageInvalid(f"environment variable {name} is not known; did you mean {near[0]}?")
