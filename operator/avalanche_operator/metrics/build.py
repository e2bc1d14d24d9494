"""What is told of policies: pure. A figure is what an object's spec or status states; none is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from pydantic import ValidationError

from avalanche_operator.api.drill import DrillRun
from avalanche_operator.api.policy import BackupPolicyStatus
from avalanche_operator.kube.conditions import Status

Object = dict[str, Any]
LABELS = ("namespace", "policy")
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True)
class _Policy:
    """One policy; of its spec no more is read than is told."""

    created: datetime
    spec: Mapping[str, Any]
    status: BackupPolicyStatus

    @property
    def looked_at(self) -> bool:
        """Say whether the operator wrote the status: before, a 0 in it is no answer."""
        return self.status.observed_generation > 0

    def objective(self, name: str) -> int | None:
        """Give one of its objectives, in seconds."""
        seconds: int | None = (self.spec.get("objectives") or {}).get(name)
        return seconds


@dataclass(frozen=True)
class Figure:
    """One gauge that every policy has, or lacks as long as there is nothing to tell (``None``)."""

    name: str
    help: str
    of: Callable[[_Policy], float | None]


def _moment(of: Callable[[BackupPolicyStatus], datetime | None]) -> Callable[[_Policy], float | None]:
    """Give a moment of the status in seconds since the epoch."""

    def seconds(policy: _Policy) -> float | None:
        moment = of(policy.status)
        return moment.timestamp() if moment else None

    return seconds


def _count(of: Callable[[BackupPolicyStatus], int]) -> Callable[[_Policy], float | None]:
    """Give a count of the status, once there is one."""
    return lambda policy: of(policy.status) if policy.looked_at else None


def _drill(of: Callable[[DrillRun], float | None]) -> Callable[[_Policy], float | None]:
    """Give what is told of the last drill."""
    return lambda policy: of(policy.status.last_drill) if policy.status.last_drill else None


FIGURES = (
    Figure(
        "created_timestamp_seconds",
        "When the policy was created: since when a backup is due where there was none yet.",
        lambda policy: policy.created.timestamp(),
    ),
    Figure(
        "suspended",
        "1 where the policy starts no scheduled runs (spec.suspend).",
        lambda policy: float(bool(policy.spec.get("suspend"))),
    ),
    Figure(
        "last_schedule_timestamp_seconds",
        "When the CronJob last started a run.",
        _moment(lambda status: status.last_schedule_time),
    ),
    Figure(
        "next_schedule_timestamp_seconds",
        "When the CronJob will start the next run.",
        _moment(lambda status: status.next_schedule_time),
    ),
    Figure(
        "last_success_timestamp_seconds",
        "When the last good backup was complete: read back from storage, and decoded to its end.",
        _moment(lambda status: status.last_successful_time),
    ),
    Figure(
        "last_failure_timestamp_seconds",
        "When the last failed run since the last good one ended.",
        _moment(lambda status: status.last_failed_time),
    ),
    Figure(
        "consecutive_failures",
        "Failed runs since the last good one.",
        _count(lambda status: status.consecutive_failures),
    ),
    Figure(
        "missed_runs",
        "Slots of the schedule since the last run for which no run started; 100 is that many or more.",
        _count(lambda status: status.missed_runs),
    ),
    Figure(
        "missed_slots",
        "Slots for which no run started, in all, since the schedule was last changed.",
        _count(lambda status: status.missed_runs + (status.slots.missed if status.slots else 0)),
    ),
    Figure(
        "backups",
        "Backups that are good, not found damaged, and still in storage.",
        _count(lambda status: status.backup_count),
    ),
    Figure(
        "backups_size_bytes",
        "What these backups hold in storage, together.",
        _count(lambda status: status.size_bytes),
    ),
    Figure(
        "last_verified_timestamp_seconds",
        "When a verification last found everything whole that it read.",
        _moment(lambda status: status.last_verified_time),
    ),
    Figure(
        "last_drill_timestamp_seconds",
        "When the last drill ended.",
        _moment(lambda status: status.last_drill.time if status.last_drill else None),
    ),
    Figure(
        "last_drill_success",
        "1 where the last drill restored a backup and every question was answered as expected; 0 where it failed or was lost.",
        _drill(lambda drill: float(drill.result == "Succeeded")),
    ),
    Figure(
        "last_drill_duration_seconds",
        "How long the last drill took.",
        _drill(lambda drill: drill.duration_seconds),
    ),
    Figure(
        "last_drill_restore_seconds",
        "Of that, what a real restore does as well: checking what is stored, and restoring it.",
        _drill(lambda drill: drill.restore_seconds),
    ),
    Figure(
        "last_good_drill_timestamp_seconds",
        "When a drill last succeeded.",
        _moment(lambda status: status.drills.last_successful_time if status.drills else None),
    ),
    Figure(
        "recovery_point_timestamp_seconds",
        "The moment of the data of the newest backup that could be restored now.",
        _moment(lambda status: status.objectives.recovery_point_time if status.objectives else None),
    ),
    Figure(
        "recovery_point_objective_seconds",
        "How old that data may be (RPO).",
        lambda policy: policy.objective("recoveryPointSeconds"),
    ),
    Figure(
        "recovery_time_seconds",
        "How long a recovery takes, measured by the last restore or drill, or else estimated by a plan.",
        lambda policy: policy.status.objectives.recovery_seconds if policy.status.objectives else None,
    ),
    Figure(
        "recovery_time_objective_seconds",
        "How long a recovery may take (RTO).",
        lambda policy: policy.objective("recoveryTimeSeconds"),
    ),
)


@dataclass(frozen=True)
class Told:
    """What is told of one policy: little enough to be held for thousands of them."""

    labels: tuple[str, str]
    """Namespace and name."""
    info: tuple[str, str]
    """Schedule and time zone."""
    figures: tuple[float | None, ...]
    """In the order of :data:`FIGURES`."""
    conditions: tuple[tuple[str, Status], ...]
    """Type and status."""


def told_of(found: Object) -> Told:
    """Give what is told of a policy as the API server has it. A status that cannot be read tells nothing."""
    meta, spec = found["metadata"], found["spec"]
    try:
        status = BackupPolicyStatus.model_validate(found.get("status") or {})
    except ValidationError:
        status = BackupPolicyStatus()
    policy = _Policy(datetime.fromisoformat(meta["creationTimestamp"]), spec, status)
    return Told(
        labels=(meta["namespace"], meta["name"]),
        info=(str(spec.get("schedule", "")), str(spec.get("timeZone", "Etc/UTC"))),
        figures=tuple(each.of(policy) for each in FIGURES),
        conditions=tuple((each.type, each.status) for each in status.conditions),
    )


@dataclass(frozen=True)
class PolicyCollector:
    """Metrics of some policies, one family in memory at a time."""

    policies: Sequence[Told]

    def collect(self) -> Iterator[Metric]:
        """Give one family after another."""
        info = _family("info", "1 for every policy: its schedule, as it is written.", "schedule", "time_zone")
        for each in self.policies:
            info.add_metric([*each.labels, *each.info], 1)
        yield info
        condition = _family(
            "condition", "1 for the status that a condition has, 0 for the two others.", "condition", "status"
        )
        for each in self.policies:
            for kind, held in each.conditions:
                for status in STATUSES:
                    condition.add_metric([*each.labels, kind, status], float(status == held))
        yield condition
        for index, figure in enumerate(FIGURES):
            family = _family(figure.name, figure.help)
            for each in self.policies:
                value = each.figures[index]
                if value is not None:
                    family.add_metric(each.labels, value)
            yield family


def _family(name: str, text: str, *more: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"avalanche_policy_{name}", text, labels=[*LABELS, *more])


def exposition(policies: Iterable[Told]) -> bytes:
    """Write what is told of policies in Prometheus' text format, UTF-8."""
    return generate_latest(PolicyCollector(tuple(policies)))
