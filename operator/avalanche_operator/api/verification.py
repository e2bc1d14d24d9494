"""How backups in storage are read back again, and what the last verification of a policy came to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from avalanche_operator.api.common import ApiModel, Moment, Name, rule, rules
from avalanche_operator.api.drill import PolicyDrill
from avalanche_operator.api.schedule import Schedule

Size = Annotated[
    str,
    Field(
        max_length=16,
        json_schema_extra=rules(
            rule(
                "self.matches('^[1-9][0-9]{0,8}(Ki|Mi|Gi|Ti)$')",
                "a size is a whole number with Ki, Mi, Gi or Ti, such as 100Gi",
            )
        ),
    ),
]
_UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


class PolicyVerification(ApiModel):
    """When and how much is read back. A verification takes the backups first that were not verified for longest."""

    schedule: Schedule = Field(
        default="0 6 * * *", description="When to verify: five fields, as the policy's own schedule."
    )
    suspend: bool = False
    """Start no verifications by the schedule."""
    max_backups: Annotated[int, Field(ge=1, le=10000)] = 7
    """How many backups one verification reads."""
    max_size: Size = "100Gi"
    """How much of stored bytes one verification reads in each storage; one backup is read at least, however large."""

    drill: PolicyDrill | None = None
    """Restore the newest good backup into something that is thrown away, and look at it; left out, none is."""

    @property
    def max_bytes(self) -> int:
        """Give the size in bytes."""
        return int(self.max_size[:-2]) * _UNITS[self.max_size[-2:]]


class VerificationRun(ApiModel):
    """What one verification came to."""

    job: Name
    """Its Job."""
    time: Moment
    """When it ended."""
    succeeded: bool = False
    """Whether every backup that it read has a good copy."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """What it came to, in one CamelCase word for programs."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it came to, in a sentence for people."""
    verified: Annotated[int, Field(ge=0)] = 0
    """How many backups it found whole."""
    failed: Annotated[int, Field(ge=0)] = 0
    """How many it found damaged, with no good copy anywhere."""
