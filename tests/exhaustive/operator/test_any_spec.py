"""Specs as nobody writes them: what the API server admits is understood by the models, and never ends in an exception of a look.

Of the CEL rules only those that choose one of several fields are kept: an object may be older than a rule, and a look believes
none of the others.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]
from jsonschema import ValidationError as Invalid
from jsonschema.validators import extend  # type: ignore[import-untyped]
from pydantic import ValidationError

from avalanche_operator.api.generate import crd
from avalanche_operator.api.kinds import KINDS, Kind
from tests.fakes.world import NAMESPACE, World
from tests.unit.operator.objects import DATABASE, S3_SPEC, policy_spec

Schema = dict[str, Any]
THERE = ("s3", "nightly", "by-hand", "back", "volume")
"""Names of objects that are there, so that references lead somewhere."""
EDGES = (
    "",
    " ",
    "\n",
    "../..",
    "$(HOME)",
    "$$",
    "'; DROP TABLE x; --",
    "🧬" * 40,
    "\u202e",
    "\x00",
    "a" * 2000,
    "-",
    "--help",
    "null",
    "0",
    "1e9",
)
MOMENTS = ("2026-03-01T02:00:00Z", "2026-02-28T23:59:59.123456+14:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z",
           "2024-02-29T00:00:00Z", "1969-12-31T23:59:59Z")  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(EDGES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "x", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
SPECS: dict[str, Schema] = {
    kind.kind: crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for kind in KINDS
}
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


FORMATS = FormatChecker(formats=())
"""What the API server checks of a string by its format."""


@FORMATS.checks("date-time")  # type: ignore[untyped-decorator]
def _is_moment(value: object) -> bool:
    moment = r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"
    return not isinstance(value, str) or re.fullmatch(moment, value) is not None


def _int_or_string(_: Any, asked: bool, value: object, __: Any) -> Iterator[Invalid]:
    if asked and (isinstance(value, bool) or not isinstance(value, int | str)):
        yield Invalid(f"{value!r} is neither a number nor text")


ApiServer = extend(Draft202012Validator, {"x-kubernetes-int-or-string": _int_or_string})


def admits(schema: Schema, document: Any) -> bool:
    """Say whether the API server's structural schema admits a document; its rules are not asked."""
    valid: bool = ApiServer(schema, format_checker=FORMATS).is_valid(document)
    return valid


def documents(schema: Schema) -> st.SearchStrategy[Any]:
    """Give documents that a structural schema admits, with a liking for its edges."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(-1, 2**31) | st.sampled_from(
            ["1", "0", "100m", "1Gi", "1e3", "+5", "999999999999999999999E"]
        )
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return st.dictionaries(st.sampled_from(["name", "x"]), JSON, max_size=2)
    make: Callable[[Schema], st.SearchStrategy[Any]] = _MAKERS[schema.get("type", "object")]
    return make(schema)


def _strings(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from(MOMENTS)
    least, most = schema.get("minLength", 0), schema.get("maxLength", 4096)
    if "pattern" not in schema:
        made = st.sampled_from([*EDGES, *THERE, "a" * most]) | st.text(
            min_size=least, max_size=min(most, least + 20)
        )
    else:
        made = st.from_regex(schema["pattern"], alphabet=st.characters(max_codepoint=127)) | st.sampled_from(
            THERE
        )
    return made.filter(lambda text: admits(schema, text) and not text.endswith("\n"))


def _numbers(schema: Schema) -> st.SearchStrategy[int]:
    least, most = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
    return st.sampled_from([least, most]) | st.integers(least, most)


def _lists(schema: Schema) -> st.SearchStrategy[Any]:
    least = schema.get("minItems", 0)
    return st.lists(
        documents(schema["items"]), min_size=least, max_size=max(least, min(schema.get("maxItems", 3), 3))
    )


_ONE_OF = re.compile(r"^\[(.*)\]\.filter\(x, x\)\.size\(\) == 1$")


def _objects(schema: Schema) -> st.SearchStrategy[Any]:
    if isinstance(inner := schema.get("additionalProperties"), dict):
        return st.dictionaries(
            st.sampled_from(["app", "example.org/x", "y" * 60]), documents(inner), max_size=2
        )
    fields = {name: documents(each) for name, each in schema.get("properties", {}).items()}
    wanted = set(schema.get("required", ()))
    exclusive = [
        re.findall(r"has\(self\.(\w+)\)", found[1])
        for each in schema.get("x-kubernetes-validations", ())
        if (found := _ONE_OF.match(each["rule"]))
    ]

    def with_one(chosen: tuple[str, ...]) -> st.SearchStrategy[Any]:
        out = {name for group in exclusive for name in group} - set(chosen)
        there = {name: each for name, each in fields.items() if name not in out}
        needed = wanted | set(chosen)
        return st.fixed_dictionaries(
            {name: each for name, each in there.items() if name in needed},
            optional={name: each for name, each in there.items() if name not in needed},
        )

    if not exclusive:
        return with_one(())
    return st.tuples(*map(st.sampled_from, exclusive)).flatmap(with_one)


_MAKERS: dict[str, Callable[[Schema], st.SearchStrategy[Any]]] = {
    "string": _strings,
    "integer": _numbers,
    "number": _numbers,
    "boolean": lambda _: st.booleans(),
    "array": _lists,
    "object": _objects,
}
ANY = {kind: documents(schema) for kind, schema in SPECS.items()}


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every value of a document."""
    yield path
    inner = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, each in inner:
        yield from places(each, (*path, key))


@st.composite
def changed(draw: st.DrawFn, kind: Kind) -> Any:
    """Give a document that is admitted but for one value, which may be anything."""
    document = copy.deepcopy(draw(ANY[kind.kind]))
    path = draw(st.sampled_from([*places(document)][1:] or [()]))
    if not path:
        return draw(JSON)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = draw(JSON)
    return document


OFTEN = settings(
    max_examples=40,
    derandomize=True,  # the same documents everywhere: what a longer search finds becomes a test of its own
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@by_kind
@OFTEN
@given(st.data())
def test_what_the_schema_admits_the_model_understands(kind: Kind, data: st.DataObject) -> None:
    document = data.draw(ANY[kind.kind])
    assert admits(SPECS[kind.kind], document)
    spec = kind.spec.model_validate(document)
    written = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kind.spec.model_validate(written)


@by_kind
@OFTEN
@given(st.data())
def test_what_the_model_refuses_the_schema_refuses_too(kind: Kind, data: st.DataObject) -> None:
    document = data.draw(changed(kind))
    try:
        kind.spec.model_validate(document)
    except ValidationError:
        assert not admits(SPECS[kind.kind], document)


def world() -> World:
    """Give a cluster in which a storage, a policy and its first Backup are."""
    made = World()
    made.person("BackupStorage", "s3", S3_SPEC)
    made.person("BackupPolicy", "nightly", policy_spec(DATABASE))
    made.run(4)
    made.person("Backup", "by-hand", {"policyRef": {"name": "nightly"}, "origin": "Manual"})
    made.run(4)
    return made


SHOWN = {
    "BackupStorage": "conditions",
    "BackupPolicy": "conditions",
    "Backup": "phase",
    "RestoreRequest": "phase",
}


@by_kind
@settings(parent=OFTEN, max_examples=15)
@given(st.data())
def test_what_the_schema_admits_comes_to_a_verdict_and_stops_no_other(
    kind: Kind, data: st.DataObject
) -> None:
    """No look ends in an exception, what was admitted says how it is, and the policy beside it goes on."""
    cluster = world()
    spec = data.draw(ANY[kind.kind])
    cluster.person(kind.kind, "strange", spec)
    cluster.run(6)
    status = cluster.status(kind.kind, "strange")
    written_by_the_storage = spec.get("origin") == "Discovered"
    assert status.get(SHOWN[kind.kind]) or status.get("conditions") or written_by_the_storage
    assert cluster.status("Backup", "by-hand")["phase"] == "Succeeded"
    assert cluster.condition("BackupPolicy", "nightly")["status"] == "True"
    assert cluster.condition("BackupStorage", "s3")["status"] == "True"
    assert ("Backup", NAMESPACE, "by-hand") in cluster.gateway.objects
