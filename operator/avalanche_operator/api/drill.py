"""How a policy's backups are proven: restored into something that is thrown away, looked at there, and timed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from avalanche_operator.api.common import ApiModel, Moment, Name, SourceName, rule, rules
from avalanche_operator.api.notification import NotificationStatus
from avalanche_operator.api.pod import Resources
from avalanche_operator.api.schedule import Schedule
from avalanche_operator.api.scratch import Scratch

QUERIES_MAX = 32
Expectation = Annotated[
    str,
    Field(
        max_length=1024,
        json_schema_extra=rules(
            rule(
                "!self.matches('^\\\\s*[<>]')"
                " || self.matches('^\\\\s*[<>]=?\\\\s*[-+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([eE][-+]?[0-9]{1,3})?\\\\s*$')",
                "behind <, <=, > and >= stands a number; write = before a text that begins so",
            ),
            rule(
                "!self.matches('^\\\\s*[!<>=][!<>=~]') || self.matches('^\\\\s*(!=|<=|>=)([^!<>=~]|$)')",
                "a comparison is one of =, !=, >, >=, < and <=; write = and a space before a text that begins so",
            ),
        ),
    ),
]


class DrillQuery(ApiModel):
    """A question to a restored database."""

    source: SourceName | None = None
    """Which source of the policy; left out, its only database."""
    sql: Annotated[str, Field(min_length=1, max_length=4096)]
    """SQL that gives one value: one row, one column. It only reads."""
    expect: Expectation
    """What that value must be, as text: `1200`, `= 1200`, `!= 0`, or as a number: `> 0`, `>= 0`, `< 10`, `<= 10`."""


class PolicyDrill(ApiModel):
    """When the newest good backup is restored into a throwaway target, and what is asked there."""

    schedule: Schedule = Field(
        default="0 7 * * *", description="When to drill: five fields, as the policy's own schedule."
    )
    suspend: bool = False
    """Start no drills by the schedule."""
    queries: Annotated[tuple[DrillQuery, ...], Field(max_length=QUERIES_MAX)] = ()
    """What restored databases are asked; a wrong answer fails the drill, and is told."""
    query_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long one question may take."""
    superuser: bool = False
    """Restore as the superuser of the throwaway server: SQL of the dump may then run programs in the drill's pod."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 21600
    """A drill that takes longer is ended and Failed."""
    scratch: Scratch = Scratch(size_limit="10Gi")
    """Where the throwaway database, files and what a restore writes on the way lie."""
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    """What the drill's pod gets, a database server within it."""


class DrillRun(ApiModel):
    """What one drill came to."""

    job: Name
    """Its Job."""
    time: Moment
    """When it ended."""
    result: Literal["Succeeded", "Failed", "Lost"]
    """`Lost`: its pod went away, was killed, or was told to stop, before it came to an end: nothing is proven."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """What it came to, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it came to, in a sentence for people."""
    backup_id: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        alias="backupID",
        description="Which backup was drilled; left out where none was chosen.",
    )
    storage: Name | None = None
    """The BackupStorage that it was read from."""
    duration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long it took."""
    restore_seconds: Annotated[int, Field(ge=0)] | None = None
    """Of that, what a real restore does as well: checking what is stored, and restoring it."""


class DrillsStatus(ApiModel):
    """What the last good drill measured, and what people were told."""

    last_successful_time: Moment | None = None
    """When a drill last succeeded."""
    restore_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long that one took to check and to restore the backup: what a recovery takes."""
    told_time: Moment | None = None
    """When the failure ended that people were told of last, until a drill succeeds."""
    told_reason: Annotated[str, Field(max_length=128)] | None = None
    """What that failure was."""
    notification: NotificationStatus | None = None
    """What became of telling them."""
