"""What became of a restore's transaction: by what psql said while it ran, and then by what the server answers.

A dump is SQL and may end our transaction by itself, which pg_dump never writes; a connection may be lost while the server
commits. So nothing is concluded from an error alone. Our first statement gives the number of the transaction, our last one
before the COMMIT says that everything ran, psql prints the tag of each statement, and the server knows what became of a number.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import IO, Literal

from avalanche_backup.errors import Failure
from avalanche_backup.sources.postgresql.clients import Clients
from avalanche_backup.sources.postgresql.connection import query

Outcome = Literal["Whole", "Part", "Nothing", "Unknown"]
PATIENCE_SECONDS = 60.0
"""How long a server is asked that is away, or has not noticed yet that its client is gone."""
POLL_SECONDS = 0.2
_ENDS = (b"COMMIT", b"ROLLBACK", b"PREPARE TRANSACTION")
_LONGEST = 256
"""Of a longer line the pieces are looked at: a dump may print anything, and nothing of it is kept."""


class Told:
    """What psql has printed of a transaction so far."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.transaction: int | None = None
        self.whole = self.committed = self.ended = self.undone = False
        """All of the dump ran; our COMMIT was confirmed; the dump ended the transaction itself, or rolled it back."""

    @property
    def beginning(self) -> str:
        """Give the statement that opens the transaction's account."""
        return f"SELECT '{self._token} ' || txid_current();"

    @property
    def end(self) -> str:
        """Give the statement that is the last before the COMMIT."""
        return f"SELECT '{self._token} whole';"

    def listen(self, printed: IO[bytes]) -> None:
        """Read to the end what psql prints."""
        while line := printed.readline(_LONGEST):
            self._take(line.strip())

    def _take(self, line: bytes) -> None:
        own = f"{self._token} ".encode()
        if line == own + b"whole":
            self.whole = True
        elif line.startswith(own):
            self.transaction = int(line.removeprefix(own))
        elif line in _ENDS:
            self.committed = self.committed or (self.whole and line == b"COMMIT")
            self.ended = self.ended or not self.whole
            self.undone = self.undone or line != b"COMMIT"


def outcome(told: Told, clients: Clients, environment: dict[str, str]) -> Outcome:
    """Say what stays of a restore whose psql has ended; the server is asked where psql did not get to the end.

    ``Part`` is what only a dump that ends our transaction can do; ``Unknown`` wants that the server no longer answers.
    """
    if told.committed and not told.undone:
        return "Whole"
    if told.ended or told.undone:
        return "Part"
    if told.transaction is None:
        return "Nothing"
    answer = _asked(told.transaction, clients, environment)
    if answer == "committed":
        return "Whole" if told.whole else "Part"
    # The COMMIT goes to the server only after all of the dump ran.
    return "Unknown" if told.whole and answer != "aborted" else "Nothing"


def _asked(transaction: int, clients: Clients, environment: dict[str, str]) -> str | None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(Failure):
            answer: str | None = query(clients, environment, f"SELECT to_json(txid_status({transaction}))")
            if answer != "in progress":
                return answer
        if time.monotonic() > deadline:
            return None
        time.sleep(POLL_SECONDS)
