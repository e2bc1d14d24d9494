"""pg_dump's patterns for tables, as the regular expressions that pg_dump makes of them. Pure.

Patterns are resolved once, and pg_dump is given the names: so what the metadata records is what was left out.
Source: ``processSQLNamePattern`` and ``expand_table_name_patterns`` of PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from avalanche_backup.errors import SourceInvalid

_SPECIAL = frozenset("|*+?()[]{}.^$\\")


@dataclass(frozen=True)
class Pattern:
    """One pattern; its regular expressions are PostgreSQL's, and anchored. No ``schema``: what the search path finds."""

    text: str
    schema: str | None
    name: str


def parse_pattern(text: str) -> Pattern:
    """Read ``name`` or ``schema.name``: ``*`` and ``?`` are wildcards, upper case folds, double quotes keep all as it is.

    :raises SourceInvalid: it has more parts, or a quote without its end.
    """
    parts = [""]
    for character, quoted in _characters(text):
        if character == "." and not quoted:
            parts.append("")
        else:
            parts[-1] += _expression(character, quoted)
    if len(parts) > 2 or not parts[-1] or text.count('"') % 2:
        raise SourceInvalid(
            f'excludeTables: {text!r} is no pattern for a table: write name or schema.name, with "quotes" around what is '
            "not lower case",
            reason="PatternInvalid",
        )
    schema = f"^({parts[0]})$" if len(parts) == 2 else None
    return Pattern(text, schema, f"^({parts[-1]})$")


def _characters(text: str) -> Iterator[tuple[str, bool]]:
    """Give each character, and whether it stands in quotes."""
    quoted, position = False, 0
    while position < len(text):
        character = text[position]
        doubled = quoted and text.startswith('""', position)
        if character == '"' and not doubled:
            quoted = not quoted
        else:
            yield character, quoted
        position += 2 if doubled else 1


def _expression(character: str, quoted: bool) -> str:
    if quoted:
        return f"\\{character}" if character in _SPECIAL else character
    return {"*": ".*", "?": ".", "$": "\\$"}.get(character, character.lower())
