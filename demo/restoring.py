"""RestoreRequests as a person handles them: look at the plan, approve it, wait."""

from __future__ import annotations

from typing import Any

from demo.comparison import columns
from demo.steps import DemoFailed, Steps
from demo.watching import until_phase
from tests.e2e.kubectl import Kubectl, Object

KIND = "restorerequests"
MOST_PLANS = 5


def approve_and_wait(kubectl: Kubectl, name: str, steps: Steps) -> Object:
    """Show the plan of a request, approve it, and wait until the data is back.

    A target that changed since the plan was made gives another plan, which is shown and approved in its turn.

    :raises DemoFailed: the restore failed.
    """
    approved = ""
    for _ in range(MOST_PLANS):
        found = _until_asked_or_done(kubectl, name, approved, steps)
        if found["status"]["phase"] != "AwaitingApproval":
            return found
        plan = found["status"]["plan"]
        steps.detail(shown(plan))
        approved = plan["digest"]
        steps.detail(
            f'$ kubectl patch {KIND} {name} --type=merge --patch=\'{{"spec": {{"approvedPlan": "{approved}"}}}}\''
        )
        kubectl.patch(KIND, name, {"spec": {"approvedPlan": approved}})
    raise DemoFailed(f"{KIND}/{name} asked {MOST_PLANS} times: its target does not stand still")


def shown(plan: dict[str, Any]) -> str:
    """Lay out a plan for a person."""
    rows = [("ARTIFACT", "TARGET", "STATE", "FOUND", "WHAT WILL BE DONE")]
    rows += [
        tuple(each.get(key, "") for key in ("artifact", "target", "state", "found", "action"))
        for each in plan["targets"]
    ]
    return f"plan: {plan.get('backupID', '')} from {plan.get('storage', '')}\n{columns(rows)}"


def _until_asked_or_done(kubectl: Kubectl, name: str, approved: str, steps: Steps) -> Object:
    found = until_phase(kubectl, KIND, name, ("AwaitingApproval", "Succeeded"), steps=steps)
    if not approved or found["status"]["phase"] == "Succeeded":
        return found

    def moved_on(current: Object) -> bool:
        status = current["status"]
        return bool(status["phase"] != "AwaitingApproval" or status["plan"]["digest"] != approved)

    kubectl.wait(KIND, name, moved_on, seconds=120, what="taken up after its approval")
    return until_phase(kubectl, KIND, name, ("AwaitingApproval", "Succeeded"), steps=steps)
