"""Making a dump fit where it goes: the few lines at its head and end that psql or the server would stop at. Pure.

pg_dump writes schemas and extensions first, each under a comment that names it; nothing that stands after them is
looked at, but for the last line and the transactions around large objects. So no text of a function or row of a table is ever changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from avalanche_backup.sources.postgresql.target import KNOWS_TRANSACTION_TIMEOUT
from avalanche_backup.sources.postgresql.transactions import in_one_transaction

HEAD = 4 * 1024 * 1024
"""Within so many bytes stand the schemas and extensions: tens of thousands of them."""
BEGINNING, END = 4096, 4096
"""Within so many bytes at either end stand the lines that pg_dump wrote for psql, and its settings."""
_RESTRICT = re.compile(rb"^\\restrict [A-Za-z0-9]+\r?\n", re.MULTILINE)
_UNRESTRICT = re.compile(rb"^\\unrestrict [A-Za-z0-9]+\r?\n(?=\s*\Z)", re.MULTILINE)
"""The last line alone: above it may stand the text of a comment or a function with a line like it."""
_TIMEOUT = re.compile(rb"^SET transaction_timeout = 0;\r?\n", re.MULTILINE)
_AFTER_EXTENSIONS = re.compile(
    rb"^-- (?:Data for )?Name: [^\n]*; Type: (?!(?:SCHEMA|EXTENSION|COMMENT|COLLATION|PROCEDURAL LANGUAGE); )", re.MULTILINE
)  # fmt: skip
_FRAME = rb"^(-- Name: [^\n]*; Type: %b; Schema: -; Owner: [^\n]*\n--\n\n)"
_SCHEMA = re.compile(_FRAME % b"SCHEMA" + rb"CREATE SCHEMA (?=[^\n]+;\n)", re.MULTILINE)
_EXTENSION_COMMENT = re.compile(
    _FRAME % b"COMMENT" + rb"COMMENT ON EXTENSION [^\n]+? IS (?:'(?:[^']|'')*'|E'(?:[^']|'')*');\n", re.MULTILINE
)  # fmt: skip


def fitted(sql: Iterator[bytes], server_major: int, *, superuser: bool) -> Iterator[bytes]:
    """Give a dump that the server takes: the rest of it is untouched.

    Left out are the ``\\restrict`` of its head and the ``\\unrestrict`` of its end, the transactions around large objects
    (:mod:`transactions`), a setting that servers before 17 do not know, and, where the user may not write them, comments on
    extensions. A schema that is there already (public, that of an extension, that of a table which is kept) is not made again.
    """
    held = b""
    headed = False
    for chunk in in_one_transaction(sql):
        held += chunk
        if not headed and len(held) >= HEAD:
            held, headed = _fitted_head(held, server_major, superuser), True
        if headed and len(held) > END:
            yield held[:-END]
            held = held[-END:]
    if not headed:
        held = _fitted_head(held, server_major, superuser)
    yield held[:-END] + _UNRESTRICT.sub(b"", held[-END:])


def _fitted_head(data: bytes, server_major: int, superuser: bool) -> bytes:
    first, rest = _without_restrict(data[:BEGINNING]), data[BEGINNING:]
    if server_major < KNOWS_TRANSACTION_TIMEOUT:
        first = _TIMEOUT.sub(b"", first, count=1)
    data = first + rest
    end = _AFTER_EXTENSIONS.search(data)
    until = end.start() if end else len(data)
    head = _SCHEMA.sub(rb"\1CREATE SCHEMA IF NOT EXISTS ", data[:until])
    if not superuser:
        head = _EXTENSION_COMMENT.sub(rb"\1", head)
    return head + data[until:]


def _without_restrict(first: bytes) -> bytes:
    found = _RESTRICT.search(first)
    before = first[: found.start()] if found else b"?"
    comments_only = all(not line or line.startswith(b"--") for line in before.splitlines())
    return first[: found.start()] + first[found.end() :] if found and comments_only else first
