"""Reading one secret value, when it is needed and not before. Values go nowhere but into the caller's hands."""

from __future__ import annotations

import os
from pathlib import Path

from avalanche_backup.errors import CredentialsMissing
from avalanche_contract.base import Credential

_GIVEN: dict[str, str] = {}
"""What the configuration says itself, by the variable that would win over it: never put into the environment, which children see."""


def give(variable: str, value: str) -> None:
    """Take a value for a variable that the environment may leave out."""
    _GIVEN[variable] = value


def read_credential(credential: Credential) -> str:
    """Give the value, without the line's end that people leave in Secrets.

    :raises CredentialsMissing: there is none; the message names the Secret and key, or the variable.
    """
    value = find_credential(credential)
    if value is None:
        raise CredentialsMissing(f"{credential.described} is missing or empty")
    return value


def find_credential(credential: Credential | None) -> str | None:
    """Give the value of a credential that need not be there."""
    if credential is None:
        return None
    if credential.file:
        return _from_file(credential.file) or None
    variable = credential.environment or ""
    return os.environ.get(variable) or _GIVEN.get(variable) or None


def _from_file(path: str) -> str | None:
    try:
        return Path(path).read_text().rstrip("\r\n")
    except OSError:
        return None
