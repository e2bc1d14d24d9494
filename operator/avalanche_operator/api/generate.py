"""From the models to ``crds/*.yaml``: structural schemas, as the API server wants them.

``python -m avalanche_operator.api.generate <folder>…`` writes them; a test fails where the committed ones differ.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from avalanche_contract.names import GROUP, VERSION
from avalanche_operator.api.common import ApiModel
from avalanche_operator.api.kinds import KINDS, Kind

Schema = dict[str, Any]
_KEPT = {"type", "description", "format", "pattern", "enum", "default", "minimum", "maximum", "minLength", "maxLength",
         "minItems", "maxItems", "minProperties", "maxProperties", "required"}  # fmt: skip


def crd(kind: Kind) -> Schema:
    """Give the CustomResourceDefinition of one kind."""
    schema: Schema = {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(kind.spec),
            "status": _without_defaults(structural(kind.status)),
        },
    }
    if kind.rules:
        schema["x-kubernetes-validations"] = list(kind.rules)
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": list(kind.columns),
    }
    if kind.selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    names = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.kind.lower(),
        "shortNames": [kind.short],
        "categories": ["avalanche"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


def structural(model: type[ApiModel]) -> Schema:
    """Give a model's schema without references, titles and nulls."""
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _plain(document, document.get("$defs", {}))


def _plain(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    schema = _resolved(schema, definitions)
    plain = {
        name: value for name, value in schema.items() if name in _KEPT or name.startswith("x-kubernetes-")
    }
    if "default" in plain and (default := _without_nulls(plain.pop("default"))) not in (None, [], {}):
        plain["default"] = default
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    if "properties" in schema:
        plain["properties"] = {name: _plain(each, definitions) for name, each in schema["properties"].items()}
    if "items" in schema:
        plain["items"] = _plain(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        plain["additionalProperties"] = _plain(schema["additionalProperties"], definitions)
    return plain


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Follow a reference, and leave out the ``null`` of an optional field; what stands beside it wins."""
    beside = {name: value for name, value in schema.items() if name not in ("$ref", "anyOf", "allOf")}
    if "$ref" in schema:
        return {**_resolved(definitions[schema["$ref"].rpartition("/")[2]], definitions), **beside}
    for each in schema.get("anyOf") or schema.get("allOf") or ():
        if each.get("type") != "null":
            return {**_resolved(each, definitions), **beside}
    return schema


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: each for name, each in value.items() if each not in (None, [], {})}


def _without_defaults(schema: Schema) -> Schema:
    """Leave a status as the operator wrote it: the API server puts nothing in."""
    return {
        name: {field: _without_defaults(each) for field, each in value.items()}
        if name == "properties"
        else _without_defaults(value)
        if name == "items"
        else value
        for name, value in schema.items()
        if name != "default"
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write everything out: anchors are hard to read."""
        del data
        return True


def render(kind: Kind) -> str:
    """Write one CRD as YAML."""
    head = "# Generated from operator/avalanche_operator/api by `make crds`.\n"
    return head + yaml.dump(crd(kind), Dumper=_Dumper, sort_keys=False, width=140)


def main(folder: Path) -> None:
    """Write all of them."""
    folder.mkdir(exist_ok=True)
    for kind in KINDS:
        (folder / f"{kind.plural}.yaml").write_text(render(kind))


if __name__ == "__main__":
    for folder_name in sys.argv[1:]:
        main(Path(folder_name))
