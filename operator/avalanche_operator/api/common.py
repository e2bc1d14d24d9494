"""What the four kinds share: references, conditions, bounded strings, and how a CEL rule is attached to a model."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

from avalanche_contract.base import Time, format_time

Rule = dict[str, str]


def rule(expression: str, message: str, **more: Any) -> dict[str, Any]:
    """Give one CEL rule, with the sentence that ``kubectl apply`` shows where it does not hold."""
    return {"rule": expression, "message": message, **more}


def rules(*each: Mapping[str, Any]) -> dict[str, Any]:
    """Attach rules to a model's or a field's schema."""
    return {"x-kubernetes-validations": list(each)}


def exactly_one(*fields: str) -> str:
    """Give the expression that says that just one of some fields is set."""
    return f"[{', '.join(f'has(self.{field})' for field in fields)}].filter(x, x).size() == 1"


def unchanged(*fields: str) -> str:
    """Give the expression that says that fields are as they were, absent ones included."""
    each = (
        f"(has(self.{f}) ? has(oldSelf.{f}) && self.{f} == oldSelf.{f} : !has(oldSelf.{f}))" for f in fields
    )
    return " && ".join(each)


_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def _within_the_calendar(moment: datetime) -> datetime:
    """Give a moment in UTC. The API server takes ``9999-12-31T23:59:59-14:00``, which means: never."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _LAST if moment.year > 1 else _FIRST


class ApiModel(BaseModel):
    """A part of an object: frozen; what this release does not know is somebody else's."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True,
        use_attribute_docstrings=True,
    )  # fmt: skip


Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
SourceName = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
Text = Annotated[str, Field(max_length=1024)]
_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})
Moment = Annotated[Time, _SCHEMA]
WishedMoment = Annotated[
    datetime, AfterValidator(_within_the_calendar), PlainSerializer(format_time, when_used="json"), _SCHEMA
]
"""What a person writes into a spec: also what no calendar reaches."""
SecretKeyName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^([-_a-zA-Z0-9]|\.[-_a-zA-Z0-9])[-._a-zA-Z0-9]*$"),
]
"""As Kubernetes names keys: it becomes a file's name, so there is no ``/``, and no ``..`` at its beginning."""
Quantity = Annotated[
    int | str,
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "pattern": r"^[+]?([0-9]+|[0-9]+[.][0-9]*|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
            "maxLength": 32,
        }
    ),
]
RelativePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        json_schema_extra=rules(
            rule(
                "!self.matches('^/|(^|/)[.][.](/|$)')",
                "a path is relative to the root of the claim and has no '..'",
            )
        ),
    ),
]


class LocalReference(ApiModel):
    """The name of an object in the same namespace."""

    name: Name
    """The name of the object, in the same namespace."""


class KeyReference(ApiModel):
    """One key of a Secret in the same namespace."""

    name: Name
    """The name of the Secret, in the same namespace."""
    key: SecretKeyName = "ca.crt"
    """The key in the Secret."""


class RecipientsReference(ApiModel):
    """A file of age recipients in a Secret of the same namespace."""

    name: Name
    """The name of the Secret, in the same namespace."""
    key: SecretKeyName = "recipients"
    """The key in the Secret: one public key a line, as `age -R` reads it."""


class IdentityReference(ApiModel):
    """A file of age identities in a Secret of the same namespace."""

    name: Name
    """The name of the Secret, in the same namespace."""
    key: SecretKeyName = "identity"
    """The key in the Secret: one private key a line, as `age -i` reads it; several may be there, old ones for old backups."""


class SigningKeyReference(ApiModel):
    """A private ed25519 key in a Secret of the same namespace."""

    name: Name
    """The name of the Secret, in the same namespace."""
    key: SecretKeyName = "signing.pem"
    """The key in the Secret: what `openssl genpkey -algorithm ed25519` writes."""


class ClaimReference(ApiModel):
    """A PersistentVolumeClaim in the same namespace."""

    name: Name
    """The name of the PersistentVolumeClaim, in the same namespace."""


class Condition(ApiModel):
    """One condition, as the Kubernetes API conventions have it."""

    type: Annotated[str, Field(max_length=316)]
    """Which condition this is."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """Why, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, in a sentence for people."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the object that this was said of."""
    last_transition_time: Moment
    """When the status last changed."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class ProbeStatus(ApiModel):
    """The last probe that was recorded: a Job that looked whether everything is usable."""

    number: Annotated[int, Field(ge=0)] = 0
    """How many probes there were; it is part of the Job's name."""
    fingerprint: Annotated[str, Field(max_length=64)] = ""
    """What was asked: another one means that the answer is out of date."""
    failures: Annotated[int, Field(ge=0, description="Probes since the last good one.")] = 0
    last_time: Moment | None = None
    """When its answer was recorded."""
    reason: Annotated[str, Field(max_length=128)] = ""
    """What it found, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it found, in a sentence for people."""
