"""When something happens: cron's five fields, as a CronJob wants them, or a macro."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from avalanche_operator.api.common import rule, rules

Schedule = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            rule(
                "self.startsWith('@') ? self in ['@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually']"
                " : self.split(' ').filter(field, field != '').size() == 5",
                "a schedule has five fields (minute hour day month weekday), or is one of @hourly, @daily, @weekly, @monthly, @yearly",
            ),
            rule(
                "self.startsWith('@') || self.split(' ').filter(field, field != '').size() != 5"
                " || !self.split(' ').filter(field, field != '')[4].matches('(^|[,-])7')",
                "weekday 7 is not known here: Sunday is 0",
            ),
        ),
    ),
]
