"""Where the pods of a policy keep what must pass through a file."""

from __future__ import annotations

from pydantic import ConfigDict

from avalanche_operator.api.common import ApiModel, Name, Quantity, exactly_one, rule, rules


class EphemeralScratch(ApiModel):
    """A volume that is made for each run, and deleted with its pod."""

    size: Quantity
    """How large it is."""
    storage_class_name: Name | None = None
    """The StorageClass; left out, the cluster's default."""


class Scratch(ApiModel):
    """Where a run keeps what must pass through a file: a dump of format `Directory`, a copy of SQLite."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(exactly_one("sizeLimit", "ephemeral"), "scratch has exactly one of sizeLimit and ephemeral")
        )
    )

    size_limit: Quantity | None = None
    """Of an emptyDir on the node: a pod that needs more is evicted."""
    ephemeral: EphemeralScratch | None = None
    """A volume of its own. Only for policies whose sources are all PostgreSQL: it sets the pod's fsGroup where no claim is mounted."""
