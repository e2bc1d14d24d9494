"""What networks do to a dump, and servers that are not who they say: a named failure, and nothing in storage.

Groups B16 and B17 of the incident catalogue.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup.errors import SourceInvalid, SourceUnavailable
from avalanche_contract.source import PostgresqlSource
from tests.fakes.certificates import certificate
from tests.fakes.tcpproxy import TcpProxy, tcp_proxy
from tests.integration import servers
from tests.integration.conftest import EDNA, source_of
from tests.integration.runs import Runner
from tests.integration.servers import Postgres, Session
from tests.integration.sources.test_postgresql_faults import FORMATS, formed, until

LARGE = "CREATE TABLE large AS SELECT n, repeat(md5(n::text), 20) AS text FROM generate_series(1, 4000) AS n"
KEEPALIVE = "02"
"""The kind of timer that the kernel shows for an idle connection; one that waits for an answer has another."""


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[TcpProxy]:
    with tcp_proxy(postgres.port) as running:
        yield running


# --- connections that end, or fall silent ------------------------------------------------------------------
@FORMATS
def test_a_connection_that_is_cut_in_the_middle_of_the_rows_fails_the_run_and_the_next_one_is_good(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, proxy: TcpProxy, form: str
) -> None:
    postgres.psql(database.database, LARGE)
    source = formed(database, form).model_copy(update={"port": proxy.port, "ssl_mode": "disable"})
    whole = runner.backup(source)
    assert proxy.most > 2_000_000, "the rows went through the proxy"
    stored = set(runner.stored())
    proxy.cut_after = proxy.most // 2
    with pytest.raises(SourceUnavailable) as raised:
        runner.backup(source)
    assert proxy.cut_after is None
    assert "terminated" in raised.value.message or "connection" in raised.value.message.lower()
    assert set(runner.stored()) == stored
    again = runner.backup(source)
    assert again.source_bytes == whole.source_bytes


def test_a_server_that_falls_silent_is_given_up_after_a_minute_or_two(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    """Silence cannot be had without a network of one's own; that the kernel asks after the server can be seen."""
    with Session(postgres, database.database) as session:
        session.run("BEGIN; LOCK TABLE samples")
        running = threading.Thread(target=runner.backup, args=(database,))
        running.start()
        waiting = f"SELECT client_port FROM pg_stat_activity WHERE datname = '{database.database}' AND wait_event_type = 'Lock'"
        until(lambda: postgres.psql("postgres", waiting) != "")
        port = int(postgres.psql("postgres", waiting))
        until(lambda: timer_of(port)[0] == KEEPALIVE)
        _, seconds = timer_of(port)
        session.run("ROLLBACK")
        running.join()
    assert 0 < seconds <= 30


def timer_of(port: int) -> tuple[str, float]:
    """Give the timer of the connection from a port of this machine: its kind, and in how many seconds it is due."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    kind, _, due = next(row[5] for row in rows if row[1].endswith(f":{port:04X}")).partition(":")
    return kind, int(due, 16) / 100


# --- servers that are not who they say -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def secure() -> Iterator[Postgres]:
    """Run a server that speaks TLS with whatever certificate it is given."""
    with servers.server_folder() as folder, servers.postgres(folder) as running:
        running.psql("postgres", "CREATE DATABASE edna")
        running.psql("edna", EDNA)
        yield running


def serve(server: Postgres, made: tuple[Path, Path]) -> None:
    owner = server.data.stat()
    for path, name in zip(made, ("server.crt", "server.key"), strict=True):
        there = Path(shutil.copy(path, server.data / name))
        shutil.chown(there, owner.st_uid, owner.st_gid)
    server.psql("postgres", "ALTER SYSTEM SET ssl = on")
    server.psql("postgres", "SELECT pg_reload_conf()")
    until(lambda: server.psql("postgres", "SHOW ssl") == "on")


@pytest.mark.parametrize(("wrong", "mode"), [
    ({"ended": True}, "verify-ca"),
    ({"ended": True}, "verify-full"),
    ({"address": "127.0.0.2"}, "verify-full"),
], ids=["expired", "expired, of this host", "of another host"])  # fmt: skip
def test_a_certificate_that_is_wrong_is_refused_and_the_connection_never_goes_without_it(
    runner: Runner, secure: Postgres, tmp_path: Path, wrong: dict[str, Any], mode: Any
) -> None:
    made = certificate(tmp_path / "wrong", **wrong)
    serve(secure, made)
    is_refused(runner, secured(secure, made, mode))


def test_a_certificate_of_an_authority_that_is_not_the_named_one_is_refused(
    runner: Runner, secure: Postgres, tmp_path: Path
) -> None:
    serve(secure, certificate(tmp_path / "server"))
    other = certificate(tmp_path / "other")
    is_refused(runner, secured(secure, other, "verify-ca"))


def test_a_server_without_tls_gets_no_connection_where_tls_is_required(
    runner: Runner, database: PostgresqlSource
) -> None:
    is_refused(runner, database.model_copy(update={"ssl_mode": "require"}))


def test_a_certificate_of_the_named_authority_and_host_is_good(
    runner: Runner, secure: Postgres, tmp_path: Path
) -> None:
    made = certificate(tmp_path / "good")
    serve(secure, made)
    assert runner.backup(secured(secure, made, "verify-full")).verdict == "Succeeded"


def secured(server: Postgres, made: tuple[Path, Path], mode: Any) -> PostgresqlSource:
    return source_of(server, "edna").model_copy(update={"ssl_mode": mode, "ca_file": str(made[0])})


def is_refused(runner: Runner, source: PostgresqlSource) -> None:
    with pytest.raises(SourceInvalid) as raised:
        runner.backup(source)
    assert raised.value.reason == "TLSFailed", raised.value.message
    assert [key for key in runner.stored() if "/database/" in key] == []
