"""The sample application: it is started, filled with data, and asked for its fingerprints."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

from demo.examples import BUCKET_NAMESPACE, apply_example
from demo.steps import DemoFailed, Steps
from tests.cluster.layout import PROJECT
from tests.e2e.kubectl import CommandFailed, Kubectl, ticks

SCRIPTS = PROJECT / "demo" / "toolbox"
DEPLOYMENTS = ("postgresql", "toolbox")
"""What has to run; ``stations`` cannot where an interrupted demo left its database overwritten."""


def start(kubectl: Kubectl, values: dict[str, str], steps: Steps) -> None:
    """Apply the application, and wait until all of it runs."""
    apply_example(kubectl, "00-namespace.yaml", {}, steps)
    apply_example(kubectl.within(BUCKET_NAMESPACE), "10-seaweedfs.yaml", values, steps)
    apply_example(kubectl, "20-application.yaml", values, steps)
    steps.detail("$ kubectl create configmap toolbox --from-file=demo/toolbox")
    _configmap(kubectl)
    apply_example(kubectl, "25-toolbox.yaml", {**values, "SCRIPTS": _scripts_key()}, steps)
    _rolled_out(kubectl.within(BUCKET_NAMESPACE), "seaweedfs")
    for name in DEPLOYMENTS:
        _rolled_out(kubectl, name)
        steps.detail(f"{name} runs")
    _answers(kubectl)


def fill(kubectl: Kubectl, scale: float, steps: Steps) -> None:
    """Bring the data into the state that the seed gives."""
    for what in ("database", "files"):
        steps.detail(f"{what}: {in_toolbox(kubectl, 'samples', what, str(scale))}")
    stop_stations(kubectl)
    steps.detail(f"observations: {in_toolbox(kubectl, 'disaster', 'mend-observations')}")
    start_stations(kubectl)


def fingerprint(kubectl: Kubectl, what: str, *arguments: str) -> dict[str, str]:
    """Give the hashes of ``database``, ``files`` or ``observations``, as they are now."""
    found: dict[str, str] = json.loads(in_toolbox(kubectl, "fingerprints", what, *arguments))
    return found


def in_toolbox(kubectl: Kubectl, script: str, *arguments: str) -> str:
    """Run one of the scripts of demo/toolbox in the pod, and give what it printed."""
    command = ["python3", "-m", f"toolbox.{script}", *arguments]
    return kubectl.run("exec", "deployment/toolbox", "--", *command).strip()


def stop_stations(kubectl: Kubectl) -> None:
    """Stop what writes to the SQLite database, and wait until it is gone."""
    kubectl.run("scale", "deployment/stations", "--replicas=0")
    kubectl.run("wait", "pods", "--selector=app=stations", "--for=delete", "--timeout=60s")


def start_stations(kubectl: Kubectl) -> None:
    """Let the stations write again."""
    kubectl.run("scale", "deployment/stations", "--replicas=1")
    _rolled_out(kubectl, "stations")


def _rolled_out(kubectl: Kubectl, name: str) -> None:
    try:
        kubectl.run("rollout", "status", f"deployment/{name}", "--timeout=180s")
    except CommandFailed as failure:
        pods = kubectl.run("get", "pods", f"--selector=app={name}")
        raise DemoFailed(f"{name} does not run: {failure}\n{pods}") from failure


def _answers(kubectl: Kubectl) -> None:
    """Wait until the database is reached by its Service: that takes a moment longer than its pod."""
    for _ in ticks(60):
        with suppress(CommandFailed):
            kubectl.run("exec", "deployment/toolbox", "--", "pg_isready", "--quiet")
            return
    raise DemoFailed("the database does not answer by its Service within a minute")


def _configmap(kubectl: Kubectl) -> None:
    data = {path.name: path.read_text() for path in sorted(SCRIPTS.glob("*.py"))}
    kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "toolbox"}, "data": data})


def _scripts_key() -> str:
    digest = hashlib.sha256()
    for path in sorted(SCRIPTS.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
