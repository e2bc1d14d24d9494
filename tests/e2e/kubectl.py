"""The cluster as the end-to-end tests see it: kubectl, as a person would use it, and waiting by condition."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
POLL_SECONDS = 0.5


class CommandFailed(AssertionError):
    """kubectl refused; the text is what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one namespace of one cluster."""

    program: Path
    kubeconfig: Path
    namespace: str

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl and give its output.

        :raises CommandFailed: with what it wrote on standard error.
        """
        command = [
            str(self.program),
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={self.namespace}",
            *arguments,
        ]
        ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise CommandFailed(ended.stderr.strip())
        return ended.stdout

    def within(self, namespace: str) -> Kubectl:
        """Give the same cluster, another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def apply(self, *objects: Object) -> str:
        """Apply plain objects."""
        return self.run("apply", "--server-side", "--filename=-", stdin=yaml.safe_dump_all(objects))

    def apply_file(self, path: Path, **values: str) -> str:
        """Apply a file of ours, with ``${NAME}`` replaced."""
        text = path.read_text()
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
        return self.run("apply", "--server-side", "--filename=-", stdin=text)

    def get(self, kind: str, name: str) -> Object:
        """Read one object."""
        found: Object = json.loads(self.run("get", kind, name, "--output=json"))
        return found

    def find(self, kind: str, name: str) -> Object | None:
        """Read one object, or ``None`` where there is none."""
        text = self.run("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """Read all objects of a kind."""
        arguments = ["get", kind, "--output=json", *([f"--selector={selector}"] if selector else [])]
        items: list[Object] = json.loads(self.run(*arguments))["items"]
        return items

    def delete(self, kind: str, name: str) -> None:
        """Delete one object, and wait until it is gone."""
        self.run("delete", kind, name, "--ignore-not-found", "--wait=true", "--timeout=120s")

    def patch(self, kind: str, name: str, change: Mapping[str, Any]) -> None:
        """Merge a change into an object."""
        self.run("patch", kind, name, "--type=merge", f"--patch={json.dumps(change)}")

    def logs(self, selector: str) -> str:
        """Read the logs of all pods of a selector."""
        return self.run("logs", f"--selector={selector}", "--all-containers", "--tail=-1", "--ignore-errors")

    def wait(
        self, kind: str, name: str, until: Callable[[Object], bool], *, seconds: float = 120, what: str = ""
    ) -> Object:
        """Read an object until it is as wanted.

        :raises AssertionError: it was not in time; the text holds its last status.
        """
        last: Object | None = None
        for _ in ticks(seconds):
            last = self.find(kind, name)
            if last is not None and until(last):
                return last
        status = json.dumps((last or {}).get("status", "no such object"), indent=1)
        raise AssertionError(
            f"{kind}/{name} was not {what or 'as wanted'} within {seconds:.0f} s; its status: {status}"
        )


def ticks(seconds: float) -> Iterator[None]:
    """Yield until the time is over: at once, then at the pace of polling, and once at the end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(POLL_SECONDS)
    yield


def condition(found: Object, kind: str) -> Object:
    """Give one condition of an object; empty where it has none."""
    conditions: list[Object] = found.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def has_condition(kind: str, status: str, reason: str | None = None) -> Callable[[Object], bool]:
    """Say whether an object carries a condition, observed at its present generation."""

    def holds(found: Object) -> bool:
        each = condition(found, kind)
        current = each.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        return each.get("status") == status and current and reason in (None, each.get("reason"))

    return holds


def in_phase(*phases: str) -> Callable[[Object], bool]:
    """Say whether an object is in one of some phases."""
    return lambda found: found.get("status", {}).get("phase") in phases
