"""Make the database cluster on an empty volume, then become the server.

``/secrets/username`` and ``/secrets/password`` are the superuser's; ``DATABASE`` is created with it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DATA = Path("/data/postgresql")
SECRETS = Path("/secrets")


def initialise() -> None:
    """Make the cluster beside its place, and move it there when it is whole."""
    unfinished = DATA.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    user = (SECRETS / "username").read_text().strip()
    subprocess.run(
        [
            "initdb",
            f"--pgdata={unfinished}",
            f"--username={user}",
            f"--pwfile={SECRETS / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
        ],
        check=True,
        stdout=sys.stderr,
    )
    (unfinished / "pg_hba.conf").write_text("local all all trust\nhost all all all scram-sha-256\n")
    database = os.environ.get("DATABASE", user)
    single = ["postgres", "--single", "-D", str(unfinished), "postgres"]
    subprocess.run(single, input=f'CREATE DATABASE "{database}"\n'.encode(), check=True, stdout=sys.stderr)
    unfinished.rename(DATA)


if not (DATA / "PG_VERSION").exists():
    initialise()
SETTINGS = {"listen_addresses": "*", "unix_socket_directories": "/tmp", "max_wal_size": "2GB"}  # noqa: S108
arguments = [f"--{name}={value}" for name, value in SETTINGS.items()]
os.execvp("postgres", ["postgres", "-D", str(DATA), *arguments])  # noqa: S606 - nothing is left of this process
