"""What of their pods people may choose: a closed subset, so that no field is a privilege."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from avalanche_operator.api.common import ApiModel, Name, Quantity
from avalanche_operator.api.scratch import Scratch

Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


class Resources(ApiModel):
    """What a pod gets, as of a container."""

    requests: Quantities | None = None
    """What the node must have left: `{cpu: 100m, memory: 96Mi}`."""
    limits: Quantities | None = None
    """What the pod may use: `{memory: 256Mi}`."""


class Toleration(ApiModel):
    """A taint that is put up with, as of a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """The taint's key; left out with `Exists`: every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """`Equal` is the default."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; left out: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0, le=604800)] | None = None
    """For how long a taint of `NoExecute` is put up with."""


LabelValue = Annotated[str, Field(max_length=63, pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")]
Labels = Annotated[dict[str, LabelValue], Field(max_length=32, description="Added to the pods.")]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=1024)]],
    Field(max_length=32, description="Added to the pods, for what runs beside them."),
]
Group = Annotated[int, Field(ge=1, le=4294967294)]


class PodTemplate(ApiModel):
    """What may be said about the pods of a policy: a closed part of a pod's specification."""

    resources: Resources | None = None
    """Requests and limits, as of a container."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that the node must have."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    """Taints of nodes that are put up with."""
    priority_class_name: Name | None = None
    """The PriorityClass of the pods."""
    run_as_user: Annotated[int, Field(ge=1, le=4294967294)] | None = Field(
        default=None, description="The default is the user of the pods that use the claim, else 65532."
    )
    run_as_group: Annotated[int, Field(ge=1, le=4294967294)] | None = None
    """The default is the group of the pods that use the claim, else the user's number."""
    supplemental_groups: Annotated[tuple[Group, ...], Field(max_length=16)] = ()
    """Groups besides, for files that a group may read."""
    labels: Labels | None = None
    annotations: Annotations | None = None
    scratch: Scratch | None = None
    """The folder for temporary files; left out, an emptyDir without a limit."""

    @property
    def without_scratch(self) -> PodTemplate:
        """For a pod that looks and moves no data: no volume is made for it."""
        return self.model_copy(update={"scratch": None})
