"""Waiting for objects by condition, with a line for every change that a person would want to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demo.steps import DemoFailed, Steps
from tests.e2e.kubectl import Kubectl, Object, condition, has_condition, in_phase, ticks

FAILED = ("Failed", "Suspect")


def until_ready(kubectl: Kubectl, kind: str, names: Sequence[str], steps: Steps) -> None:
    """Wait until objects carry ``Ready=True``."""
    for name in names:
        kubectl.wait(kind, name, has_condition("Ready", "True"), seconds=180, what="Ready")
        found = condition(kubectl.get(kind, name), "Ready")
        steps.detail(f"{kind}/{name} is Ready: {found.get('message') or found.get('reason', '')}")


def until_phase(
    kubectl: Kubectl, kind: str, name: str, phases: Sequence[str], *, steps: Steps, seconds: float = 900
) -> Object:
    """Wait until an object is in one of some phases.

    :raises DemoFailed: it failed instead.
    """
    until = telling(in_phase(*phases, *FAILED), f"{kind}/{name}", steps)
    found = kubectl.wait(kind, name, until, seconds=seconds, what=" or ".join(phases))
    phase = found["status"]["phase"]
    if phase in FAILED and phase not in phases:
        raise DemoFailed(f"{kind}/{name} is {phase}: {_why(found)}")
    return found


def until_scheduled(kubectl: Kubectl, policy: str, *, after: str, steps: Steps) -> Object:
    """Wait for a Backup that a CronJob made after a moment, and that succeeded.

    ``after`` is a time as Kubernetes writes it.
    """
    seen: set[tuple[str, str]] = set()
    for _ in ticks(240):
        runs = [each for each in kubectl.list("backups.avalanche.io") if _scheduled(each, policy, after)]
        for run in runs:
            name, phase = run["metadata"]["name"], run.get("status", {}).get("phase", "Pending")
            if (name, phase) not in seen:
                steps.detail(f"{name}: {phase}")
            seen.add((name, phase))
            if phase == "Succeeded":
                return run
    raise DemoFailed(f"no scheduled Backup of {policy} succeeded within four minutes")


def telling(until: Callable[[Object], bool], name: str, steps: Steps) -> Callable[[Object], bool]:
    """Give the same predicate, which says every phase that it meets."""
    seen: list[str] = []

    def tell(found: Object) -> bool:
        phase = found.get("status", {}).get("phase")
        if phase and phase not in seen[-1:]:
            seen.append(phase)
            steps.detail(f"{name}: {phase}")
        return until(found)

    return tell


def _scheduled(found: Object, policy: str, after: str) -> bool:
    spec = found["spec"]
    new = found["metadata"]["creationTimestamp"] >= after
    return bool(spec["policyRef"]["name"] == policy and spec.get("origin") == "Scheduled" and new)


def _why(found: Object) -> str:
    status = found["status"]
    said = [status.get("failureReason", ""), status.get("message", "")]
    said += [each.get("message", "") for each in status.get("conditions", [])]
    return "; ".join(dict.fromkeys(each for each in said if each)) or "it does not say why"
