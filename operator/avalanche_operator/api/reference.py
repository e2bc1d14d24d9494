"""From the models to ``docs/api.md``: every field with its type, default, limits and meaning.

``python -m avalanche_operator.api.reference <file>`` writes it; a test fails where the committed one differs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from avalanche_operator.api.generate import Schema, crd
from avalanche_operator.api.kinds import KINDS, Kind

HEAD = """\
# The API

Four kinds of `avalanche.io/v1alpha1`, all namespaced, all in the category `avalanche` (`kubectl get avalanche`).
`kubectl explain backuppolicy.spec --recursive` says the same as this page. Fields that are not listed do not exist.

A field that is **required** has no default. Names, Secrets and claims are those of the object's own namespace.
"""
_LIMITS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {}",
    "pattern": "`{}`",
}


def render() -> str:
    """Write the whole page."""
    return HEAD + "".join(_kind(each) for each in KINDS)


def _kind(kind: Kind) -> str:
    schema: Schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    columns = ", ".join(f"{each['name']}{' (wide)' if each.get('priority') else ''}" for each in kind.columns)
    parts = [
        f"\n## {kind.kind}\n",
        f"{kind.description} Short name `{kind.short}`. Columns: {columns}.\n",
        "### `spec`\n",
        _table(schema["properties"]["spec"]),
        *_rules(schema),
        "### `status`\n",
        _table(schema["properties"]["status"]),
    ]
    return "\n".join(parts)


def _table(schema: Schema) -> str:
    rows = [f"| `{path}` | {_type(each)} | {_default(each, required)} | {_meaning(each)} |"
            for path, each, required in _fields(schema, "")]  # fmt: skip
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    for name, each in (schema.get("properties") or {}).items():
        here = f"{path}.{name}" if path else name
        yield here, each, name in schema.get("required", ())
        yield from _fields(each, here)
        if isinstance(each.get("items"), dict):
            yield from _fields(each["items"], f"{here}[]")


def _type(schema: Schema) -> str:
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}"
    return "time" if schema.get("format") == "date-time" else str(schema.get("type"))


def _default(schema: Schema, required: bool) -> str:
    if required:
        return "**required**"
    value = schema.get("default")
    if value in (None, "") or isinstance(value, dict):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(schema: Schema) -> str:
    limits = "; ".join(text.format(schema[name]) for name, text in _LIMITS.items() if name in schema)
    described = " ".join(str(schema.get("description", "")).split())
    return f"{described} ({limits})".replace("|", "\\|") if limits else described.replace("|", "\\|")


def _rules(schema: Schema) -> Iterator[str]:
    messages = dict.fromkeys(_messages(schema))
    if messages:
        yield "`kubectl apply` refuses what breaks one of these:\n"
        yield "\n".join(f"- {message}" for message in messages) + "\n"


def _messages(schema: Schema) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get("x-kubernetes-validations", ()))
    for each in (schema.get("properties") or {}).values():
        yield from _messages(each)
    if isinstance(schema.get("items"), dict):
        yield from _messages(schema["items"])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render())
