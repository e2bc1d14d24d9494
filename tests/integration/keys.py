"""Pairs of age keys as people have them: made by ``age-keygen``, the identity in a file."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from avalanche_contract.base import Credential
from avalanche_contract.request import Encryption
from tests.cluster.packages import ensure_packages


@dataclass(frozen=True)
class KeyPair:
    """One pair."""

    recipient: str
    file: Path

    @property
    def credential(self) -> Credential:
        """Say where the identity is read."""
        return Credential(described=f'key "{self.file.name}" of Secret "age"', file=str(self.file))

    @property
    def secret(self) -> str:
        """Give the private key itself, to see that it is nowhere."""
        return self.file.read_text().splitlines()[-1]


def key_pair(file: Path) -> KeyPair:
    """Make a pair."""
    ensure_packages({"age-keygen": "age"}, print)
    subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
    shown = subprocess.run(["age-keygen", "-y", file], check=True, capture_output=True, text=True)
    return KeyPair(shown.stdout.strip(), file)


def encrypted_for(*pairs: KeyPair) -> Encryption:
    """Ask for encryption to several."""
    return Encryption(recipients=tuple(each.recipient for each in pairs))
