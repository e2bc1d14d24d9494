"""The committed CRDs are those of the models, and say what an API server and a person need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from avalanche_operator.api import reference
from avalanche_operator.api.generate import crd, render
from avalanche_operator.api.kinds import KINDS, Kind

ROOT = Path(__file__).parents[3]
FOLDERS = ("crds", "charts/avalanche-backup/files/crds")
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def _schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, each in (schema.get("properties") or {}).items():
        yield from _schemas(each, f"{path}.{name}")
    for nested in ("items", "additionalProperties"):
        if isinstance(schema.get(nested), dict):
            yield from _schemas(schema[nested], f"{path}.{nested}")


@by_kind
@pytest.mark.parametrize("folder", FOLDERS)
def test_the_committed_crd_is_the_generated_one(folder: str, kind: Kind) -> None:
    assert (ROOT / folder / f"{kind.plural}.yaml").read_text() == render(kind), "run `make crds`"


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_crd_is_left_over(folder: str) -> None:
    assert {path.stem for path in (ROOT / folder).glob("*.yaml")} == {kind.plural for kind in KINDS}


def test_the_committed_reference_is_the_generated_one() -> None:
    assert (ROOT / "docs/api.md").read_text() == reference.render(), "run `make crds`"


@by_kind
def test_every_field_says_what_it_means(kind: Kind) -> None:
    properties = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    fields = [each for part in ("spec", "status") for each in _schemas(properties[part], part)]
    silent = [
        path
        for path, each in fields
        if not each.get("description") and path[-6:] != ".items" and "additional" not in path
    ]
    assert silent == []


@by_kind
def test_every_string_and_list_has_a_bound(kind: Kind) -> None:
    """Without bounds the API server cannot estimate the cost of a CEL rule, and an object may grow to a megabyte."""
    spec = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    unbounded = [
        path
        for path, each in _schemas(spec, "spec")
        if (each.get("type") == "string" and not {"maxLength", "enum", "format"} & each.keys())
        or (each.get("type") == "array" and "maxItems" not in each)
    ]
    assert unbounded == []


@by_kind
def test_every_rule_says_in_a_sentence_what_is_wrong(kind: Kind) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = [rule for _, each in _schemas(schema, "") for rule in each.get("x-kubernetes-validations", ())]
    assert rules and all(len(rule["message"].split()) > 3 for rule in rules)


@by_kind
def test_every_column_shows_a_field_that_exists(kind: Kind) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    known = {path.replace(".items", "[]") for path, _ in _schemas(schema, "")}
    for column in kind.columns:
        path = column["jsonPath"]
        plain = path.partition("[?")[0] if "[?" in path else path.replace("[0]", "[]")
        assert plain in known or plain.startswith(".metadata."), path


@by_kind
def test_helm_keeps_a_crd_on_uninstall(kind: Kind) -> None:
    document = yaml.safe_load((ROOT / "crds" / f"{kind.plural}.yaml").read_text())
    assert document["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
