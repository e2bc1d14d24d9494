"""A drill as a person starts one at once: the newest backup of a policy, restored into a server that is thrown away."""

from __future__ import annotations

from avalanche_contract.names import child_name
from demo import examples
from demo.steps import DemoFailed, Steps
from tests.e2e.kubectl import Kubectl, Object

SECONDS = 900


def drill(kubectl: Kubectl, policy: str, job: str, steps: Steps) -> Object:
    """Drill the newest backup of a policy, and give what that came to.

    :raises DemoFailed: the drill failed, or its pod was lost.
    """
    examples.apply_example(kubectl, "45-drills.yaml", {}, steps)
    source = f"--from=cronjob/{child_name(policy, 'BackupPolicy', 'drill')}"
    steps.detail(f"$ kubectl create job {job} {source}")
    kubectl.run("create", "job", job, source)
    found = kubectl.wait(
        "backuppolicies",
        policy,
        lambda each: each["status"].get("lastDrill", {}).get("job") == job,
        seconds=SECONDS,
        what="drilled",
    )
    last: Object = found["status"]["lastDrill"]
    steps.detail(f"{last['result']}: {last['message']}")
    if last["result"] != "Succeeded":
        raise DemoFailed(f"the drill of policy {policy} is {last['result']}: {last['reason']}")
    return last
