"""The base of every document that crosses between the planes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer
from pydantic.alias_generators import to_camel


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time outside the calendar") from None


def format_time(moment: datetime) -> str:
    """Write a moment as Kubernetes does: RFC 3339, UTC, whole seconds (``2024-11-22T02:00:00Z``)."""
    plain = moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)
    return f"{plain.isoformat()}Z"  # strftime writes the year 1 without its zeros


def parse_time(text: object) -> datetime | None:
    """Read a moment that somebody else wrote; ``None`` for what is none."""
    try:
        return _in_utc(datetime.fromisoformat(str(text)))
    except ValueError:
        return None


Time = Annotated[datetime, AfterValidator(_in_utc), PlainSerializer(format_time, when_used="json")]
"""A moment in UTC, written in RFC 3339 with whole seconds."""


class Strict(BaseModel):
    """A frozen value that refuses what it does not know: a request must be obeyed whole or not at all."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # a run uses a few of these: each is built when it is first used
    )


class Lenient(BaseModel):
    """A frozen value that ignores what it does not know: an answer may come from a newer writer."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,  # a run uses a few of these: each is built when it is first used
    )


class Credential(Strict):
    """Where one secret value is read: a file or an environment variable, never the value."""

    described: str
    """How to name it to a person: ``key "password" of Secret "database"``."""
    file: str | None = None
    environment: str | None = None
