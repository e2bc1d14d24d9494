"""How much data may be lost and how long a recovery may take, and what people were told of that."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import ApiModel, Moment, Text, rule, rules
from avalanche_operator.api.notification import NotificationStatus

YEAR_SECONDS = 31_622_400


class PolicyObjectives(ApiModel):
    """What a recovery must keep to: RPO and RTO in the words of the trade."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.recoveryPointSeconds) || has(self.recoveryTimeSeconds)",
                "objectives name at least one of recoveryPointSeconds and recoveryTimeSeconds",
            )
        )
    )

    recovery_point_seconds: Annotated[int, Field(ge=60, le=YEAR_SECONDS)] | None = None
    """How old the data of the newest good backup may be (RPO). Longer than the schedule's pause and a run together."""
    recovery_time_seconds: Annotated[int, Field(ge=1, le=YEAR_SECONDS)] | None = None
    """How long a restore of everything may take (RTO): that of the last one or of the last good drill, whichever is newer, or what a plan estimates."""

    @property
    def aims_at_nothing(self) -> bool:
        """Say whether neither is named: an object may be older than the rule that refuses that."""
        return self.recovery_point_seconds is None and self.recovery_time_seconds is None


class ObjectivesStatus(ApiModel):
    """What the objectives were judged by, and what people were told."""

    recovery_point_time: Moment | None = None
    """The moment of the data of the newest good backup."""
    recovery_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a recovery takes."""
    measured_by: Text | None = None
    """What that was measured or estimated by."""
    missed_time: Moment | None = None
    """Since when it is known that an objective is missed, where people were told; left out when it is met again."""
    told_time: Moment | None = None
    """When people were last told that one is missed."""
    notification: NotificationStatus | None = None
    """What became of telling them."""
