"""What every command is given: the options before its name, and the way to ask a person."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from avalanche_backup.cli.configuration import Configuration, read_configuration
from avalanche_backup.cli.environment import load_dotenv
from avalanche_backup.errors import Failure


class Settings:
    """The configuration's path, and whom the output is for."""

    def __init__(self, config: Path | None, output: str) -> None:
        self.config, self.json = config, output == "json"

    @property
    def configuration(self) -> Configuration:
        """Read the configuration, when a command needs it."""
        load_dotenv(Path(".env"))
        return read_configuration(self.config, os.environ)


def confirm(what: str, refusal: type[Failure], untouched: str) -> None:
    """Ask for the word ``yes``.

    :raises Failure: of the kind ``refusal``, where it was not typed, or there is no terminal to ask on.
    """
    if not sys.stdin.isatty():
        raise refusal(
            "there is no terminal to ask on: read what stands above, then run it with --force",
            reason="NotConfirmed",
        )
    answer = click.prompt(f"Type yes to {what}", default="no", show_default=False, err=True)
    if answer.strip() != "yes":
        raise refusal(f"not confirmed: {untouched}", reason="NotConfirmed")
