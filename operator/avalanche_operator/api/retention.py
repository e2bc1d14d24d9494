"""Which backups of a policy stay, and what its last cleanup came to."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import ApiModel, Moment, Name, rule, rules
from avalanche_operator.api.schedule import Schedule


class PolicyRetention(ApiModel):
    """How many periods that have a verified backup keep one: the first of each. Periods are those of `timeZone`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.keepLast + self.keepDaily + self.keepWeekly + self.keepMonthly + self.keepYearly > 0",
                "a retention keeps something: give at least one of keepLast, keepDaily, keepWeekly, keepMonthly and"
                " keepYearly, or leave retention out to keep everything",
            )
        )
    )

    keep_last: Annotated[int, Field(ge=0, le=10000)] = 0
    """The newest backups, however many a day has."""
    keep_daily: Annotated[int, Field(ge=0, le=3660)] = 0
    """Days that have a backup."""
    keep_weekly: Annotated[int, Field(ge=0, le=1040)] = 0
    """Weeks that have a backup; a week begins on Sunday."""
    keep_monthly: Annotated[int, Field(ge=0, le=600)] = 0
    """Months that have a backup."""
    keep_yearly: Annotated[int, Field(ge=0, le=100)] = 0
    """Years that have a backup."""
    max_delete_percent: Annotated[int, Field(ge=1, le=100)] = 50
    """A cleanup that would remove a larger share of the backups removes none, and says so."""
    schedule: Schedule = Field(
        default="0 5 * * 0", description="When to clean up: five fields, as the policy's own schedule."
    )


class CleanupStatus(ApiModel):
    """What one cleanup came to."""

    job: Name
    """Its Job."""
    time: Moment
    """When it ended."""
    succeeded: bool = False
    """Whether it did all that retention says."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """What it came to, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it came to, in a sentence for people."""
    kept: Annotated[int, Field(ge=0)] = 0
    """How many backups stayed."""
    removed: Annotated[int, Field(ge=0)] = 0
    """How many backups it removed."""
