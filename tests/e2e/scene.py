"""One test's namespace, and what a person would do in it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from avalanche_contract.names import child_name
from demo import bucket
from tests.e2e import objects
from tests.e2e.kubectl import CommandFailed, Kubectl, Object, in_phase, ticks

SERVICES = "services"
PASSWORD = "canary-pa55word-of-the-database"
SECRET_KEY = "canary-secret-key-of-the-bucket"
BUCKET = "avalanche-backups"
ENDPOINT = f"http://seaweedfs.{SERVICES}:8333"
HOST = f"postgres.{SERVICES}"
HOLD = "SELECT pg_sleep(600)"
ENDED = ("Succeeded", "Failed", "Suspect", "Skipped")


@dataclass(frozen=True)
class Scene:
    """A namespace with a toolbox pod that has the claims mounted, and a database of the same name."""

    kubectl: Kubectl
    services: Kubectl
    tools_image: str
    password: str = PASSWORD
    """Of the database's owner."""

    @property
    def name(self) -> str:
        """Give the namespace's name, which is the database's too."""
        return self.kubectl.namespace

    def toolbox(self) -> Object:
        """Give the pod that stands for an application."""
        command = ["sleep", "infinity"]
        return objects.restricted_pod(
            "toolbox", self.tools_image, command, claims={"/data": "data", "/volume": "volume"}
        )

    def shell(self, script: str) -> str:
        """Run a script in the toolbox."""
        self.kubectl.run("wait", "pod/toolbox", "--for=condition=Ready", "--timeout=120s")
        return self.kubectl.run("exec", "toolbox", "--", "sh", "-ec", script).strip()

    def python(self, code: str) -> str:
        """Run Python in the toolbox."""
        encoded = base64.b64encode(code.encode()).decode()
        return self.shell(f"echo {encoded} | base64 -d | python3 -")

    def psql(self, sql: str, database: str | None = None) -> str:
        """Run SQL as the database's owner."""
        words = [
            "psql",
            "-X",
            "-A",
            "-t",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            "127.0.0.1",
            "-U",
            "avalanche",
        ]
        return self.services.run(
            "exec", "-i", "deployment/postgres", "--", "env", f"PGPASSWORD={self.password}", *words,
            "-d", database or self.name, "-f", "-", stdin=sql,
        ).strip()  # fmt: skip

    def create_database(self) -> None:
        """Make the database, with some rows and a large object."""
        self.drop_database()
        self.psql(f'CREATE DATABASE "{self.name}"', "postgres")
        self.psql(
            "CREATE TABLE samples AS SELECT n AS id, md5(n::text) AS hash FROM generate_series(1, 2000) AS n;"
            "SELECT lo_from_bytea(7, 'large');"
        )

    def drop_database(self) -> None:
        """Drop the database."""
        self.psql(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)', "postgres")

    @contextmanager
    def locked_tables(self) -> Iterator[None]:
        """Keep the database's table locked meanwhile: who dumps or restores it waits."""
        holder = threading.Thread(target=self._hold)
        holder.start()
        try:
            self._wait_for(f"query = {_quoted(HOLD)} AND state = 'active'")
            yield
        finally:
            self._sessions("pg_terminate_backend(pid)", f"query LIKE {_quoted('%' + HOLD)}")
            holder.join()

    def wait_for_session_that_waits(self) -> None:
        """Wait until some session of the database wants a lock."""
        self._wait_for("wait_event_type = 'Lock'")

    def _hold(self) -> None:
        with suppress(CommandFailed):  # it is ended by the one that started it
            self.psql(f"BEGIN; LOCK TABLE samples; {HOLD}")

    def _wait_for(self, condition: str) -> None:
        for _ in ticks(60):
            if self._sessions("pid", condition):
                return
        raise AssertionError(f"no session where {condition}")

    def _sessions(self, give: str, condition: str) -> str:
        chosen = f"datname = {_quoted(self.name)} AND {condition}"
        return self.psql(f"SELECT {give} FROM pg_stat_activity WHERE {chosen}", "postgres")

    def rows(self) -> str:
        """Give a fingerprint of the database."""
        return self.psql("SELECT count(*), md5(string_agg(id || hash, ',' ORDER BY id)) FROM samples")

    def empty_bucket(self) -> None:
        """Take away what an earlier run of the tests left: the bucket outlives the namespace, whose name comes again."""
        with (
            bucket.client_with(self.services, "tester", SECRET_KEY) as s3,
            suppress(s3.exceptions.NoSuchBucket),
        ):
            for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.name}/").get("Contents", ()):
                s3.delete_object(Bucket=BUCKET, Key=each["Key"])

    def apply_storages(self) -> None:
        """Make a storage on S3 and one on a claim."""
        self.kubectl.apply(self.s3(), objects.claim_storage("volume", "volume"))

    def s3(self, **changes: str) -> Object:
        """Give the storage on S3."""
        given = {"bucket": BUCKET, "endpoint": ENDPOINT, "secret_name": "object-storage", **changes}
        return objects.s3_storage("s3", **given)

    def database_policy(self, name: str = "database", storage: str = "s3", **more: Any) -> Object:
        """Give a policy for the database."""
        source = objects.postgresql_source("db", secret_name="database", host=HOST, database=self.name)
        return objects.policy(name, source, storage=storage, **more)

    def files_policy(self, name: str = "files", storage: str = "volume", **more: Any) -> Object:
        """Give a policy for the claim."""
        return objects.policy(name, objects.files_source("data", "data"), storage=storage, **more)

    def run_by_schedule(self, policy: str, name: str) -> Object:
        """Start the CronJob of a policy at once, as `kubectl create job --from` does; give the Backup at its end."""
        self.kubectl.run(
            "create", "job", name, f"--from=cronjob/{child_name(policy, 'BackupPolicy', 'backup')}"
        )
        for _ in ticks(120):
            backups = self.kubectl.list("backups.avalanche.io")
            found = [each for each in backups if each["spec"].get("job", {}).get("name") == name]
            if found and in_phase(*ENDED)(found[0]):
                return found[0]
        raise AssertionError(f"the run {name} of policy {policy} did not end")

    def clean_up(self, policy: str, name: str) -> Object:
        """Start the cleanup of a policy at once, and give the policy once it tells of it."""
        self.kubectl.run(
            "create", "job", name, f"--from=cronjob/{child_name(policy, 'BackupPolicy', 'cleanup')}"
        )
        return self.kubectl.wait(
            "backuppolicy", policy, lambda found: found["status"].get("lastCleanup", {}).get("job") == name, what="cleaned up"
        )  # fmt: skip

    def back_up(self, name: str, policy: str) -> Object:
        """Make a manual Backup, and wait for its end."""
        self.kubectl.apply(objects.backup(name, policy))
        return self.kubectl.wait(
            "backups.avalanche.io", name, in_phase(*ENDED), seconds=180, what="at its end"
        )

    def approve(self, name: str, seconds: float = 120) -> Object:
        """Wait for a plan, approve it, and wait ``seconds`` at most for the end."""
        planned = self.kubectl.wait(
            "restorerequest", name, in_phase("AwaitingApproval", *ENDED), what="planned"
        )
        digest = planned["status"].get("plan", {}).get("digest", "")
        self.kubectl.patch("restorerequest", name, {"spec": {"approvedPlan": digest}})
        return self.kubectl.wait(
            "restorerequest",
            name,
            in_phase("Succeeded", "Failed"),
            seconds=seconds,
            what="at its end",
        )

    def restore(self, name: str, backup: str, **more: Any) -> Object:
        """Restore a Backup, with approval."""
        self.kubectl.apply(objects.restore(name, backup, **more))
        return self.approve(name)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
