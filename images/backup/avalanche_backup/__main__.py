"""``python -m avalanche_backup``: the command line, where its script is not on the path."""

from avalanche_backup.cli.main import main

main()
