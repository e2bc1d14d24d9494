"""What the operator may do, and where secrets never are."""

from __future__ import annotations

from tests.e2e import objects
from tests.e2e.kubectl import has_condition
from tests.e2e.scene import PASSWORD, SECRET_KEY, Scene

ACCOUNT = "system:serviceaccount:avalanche-system:avalanche-backup-operator"
OURS = "app.kubernetes.io/managed-by=avalanche-operator"


def _may(scene: Scene, *words: str) -> str:
    """Ask the API server; kubectl's exit code says no as well, so the answer is read."""
    script = scene.kubectl.run("auth", "can-i", "--list", f"--as={ACCOUNT}")
    return "\n".join(line for line in script.splitlines() if any(word in line for word in words))


def test_the_operator_has_no_access_to_secrets_and_cannot_run_commands(scene: Scene) -> None:
    rules = _may(scene, "secrets", "pods", "*.*")
    assert "secrets" not in rules and "pods/exec" not in rules and "*.*" not in rules
    assert "pods/log" in rules


def test_every_pod_runs_restricted_and_without_a_token(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy())
    assert stage.back_up("first", "database")["status"]["phase"] == "Succeeded"
    pods = stage.kubectl.list("pod", OURS)
    assert pods
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_secrets_appear_in_no_object_event_log_or_metadata(stage: Scene) -> None:
    stage.kubectl.apply(stage.database_policy("leaky", storage="volume"), stage.database_policy())
    stage.kubectl.wait("backuppolicy", "leaky", has_condition("Ready", "True"))
    stage.back_up("first", "leaky")
    stage.back_up("second", "database")
    stage.kubectl.apply(objects.restore("back", "first"))
    stage.approve("back")
    kinds = "backupstorages,backuppolicies,backups.avalanche.io,restorerequests,cronjobs,jobs,pods,events"
    seen = stage.kubectl.run("get", kinds, "--output=yaml") + stage.kubectl.logs(OURS)
    seen += stage.kubectl.within("avalanche-system").logs("app.kubernetes.io/name=avalanche-backup")
    seen += stage.shell("cat /volume/*/*/*.json /volume/*/*/*/*.json /volume/*.json")
    assert "sha256:" in seen
    assert PASSWORD not in seen and SECRET_KEY not in seen
