"""Taking out the transactions that pg_dump writes around large objects, so that a restore is one. Pure.

A dump in SQL has ``BEGIN`` and ``COMMIT`` around the contents of large objects, unless it is made for one transaction, which
only pg_restore can ask for. That COMMIT would end ours midway: what fails after it would stay, half restored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_BEGIN = b"\nBEGIN;\n\nSELECT pg_catalog.lo_open("
_KEPT = len(b"\n\nSELECT pg_catalog.lo_open(")
_COMMIT = b"\nCOMMIT;\n"
_HEADED = re.compile(rb"\n-- Data for Name: [^\n]*; Type: BLOBS; Schema: -; Owner: [^\n]*\n--\n\n\Z")
_HEAD = 1024
"""The comment that pg_dump writes above is shorter: two names of objects and a role's."""
_ROWS, _ROWS_END = b" FROM stdin;\n", b"\n\\.\n"
_ACROSS = 16
"""More than the longest of the two above."""


def in_one_transaction(sql: Iterator[bytes]) -> Iterator[bytes]:
    """Give a dump without the transactions around large objects; all else is untouched, rows that look like them as well."""
    held = b""
    rows = _Rows()
    within = False
    for chunk in sql:
        held += chunk
        while True:
            found = held.find(_COMMIT if within else _BEGIN)
            if found < 0:
                break
            before = rows.passed(held[: found + 1])
            if within:
                held, within = held[found + len(_COMMIT) :], False
            elif not rows.open and _HEADED.search(held[max(0, found - _HEAD) : found + 1]):
                held, within = held[found + len(_BEGIN) - _KEPT :], True
            else:
                before += rows.passed(held[found + 1 : found + len(_BEGIN)])
                held = held[found + len(_BEGIN) :]
            yield before
        if len(held) > _HEAD:
            yield rows.passed(held[:-_HEAD])
            held = held[-_HEAD:]
    yield held


class _Rows:
    """Whether what has passed ends within the rows of a table."""

    def __init__(self) -> None:
        self.open = False
        self._last = b""

    def passed(self, data: bytes) -> bytes:
        """Take what passes, and give it back."""
        seen = self._last + data
        begun, ended = seen.rfind(_ROWS), seen.rfind(_ROWS_END)
        if begun >= 0 or ended >= 0:
            self.open = begun > ended
        self._last = seen[-_ACROSS:]
        return data
