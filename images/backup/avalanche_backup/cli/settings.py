"""What the options before the command say; given to every command."""

from __future__ import annotations

import os
from pathlib import Path

from avalanche_backup.cli.configuration import Configuration, read_configuration
from avalanche_backup.cli.environment import load_dotenv


class Settings:
    """The configuration's path, and whom the output is for."""

    def __init__(self, config: Path | None, output: str) -> None:
        self.config, self.json = config, output == "json"

    @property
    def configuration(self) -> Configuration:
        """Read the configuration, when a command needs it."""
        load_dotenv(Path(".env"))
        return read_configuration(self.config, os.environ)
