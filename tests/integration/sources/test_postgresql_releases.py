"""Every release against every newer one, in every format: dumped by the clients that fit, restored, compared."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from avalanche_backup.errors import RestoreFailed, RestoreRefused
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql import PostgresqlDatabase, outcome
from avalanche_backup.sources.postgresql.clients import ENV_CLIENTS
from avalanche_backup.sources.postgresql.scope import MARKER
from avalanche_contract.result import Result
from avalanche_contract.source import PostgresqlSource
from avalanche_contract.storage import DirectoryStorage
from tests.fakes.tcpproxy import TcpProxy, tcp_proxy
from tests.integration import releases, servers
from tests.integration.conftest import EDNA, FINGERPRINT, source_of
from tests.integration.runs import Runner
from tests.integration.servers import Postgres
from tests.integration.sources.test_postgresql_faults import INDEX_THAT_CANNOT_BE_MADE_AGAIN

FORMATS = ("Plain", "Custom", "Directory")
PAIRS = [(15, 15), (15, 17), (15, 18), (17, 17), (17, 18), (18, 18)]


class Fleet:
    """A server of each release with one eDNA database, and one backup of it in each format, made when first asked for."""

    def __init__(self, running: dict[int, Postgres], root: Path) -> None:
        (root / "volume").mkdir()
        self.servers = running
        self.runner = Runner(DirectoryStorage(name="volume", root=str(root / "volume")), root / "scratch")
        self._made: dict[tuple[int, str], Result] = {}
        self._fingerprints: dict[int, str] = {}

    def source(self, major: int, form: str = "Plain", database: str = "edna releases") -> PostgresqlSource:
        """Give the source on one server."""
        jobs = 2 if form == "Directory" else 1
        return source_of(self.servers[major], database).model_copy(update={"format": form, "jobs": jobs})

    def backup(self, major: int, form: str) -> Result:
        """Give the backup of one release in one format."""
        if (major, form) not in self._made:
            self._made[major, form] = self.runner.backup(self.source(major, form))
        return self._made[major, form]

    def fingerprint(self, major: int) -> str:
        """Give what the source is."""
        if major not in self._fingerprints:
            self._fingerprints[major] = self.servers[major].psql("edna releases", FINGERPRINT)
        return self._fingerprints[major]

    def target(self, major: int, name: str, jobs: int = 1) -> PostgresqlSource:
        """Give an empty database on one server."""
        self.servers[major].psql("postgres", f'CREATE DATABASE "{name}"')
        return self.source(major, database=name).model_copy(update={"jobs": jobs})


@pytest.fixture(scope="module")
def fleet(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as stack:
        running = {15: postgres}
        for major in releases.SUITES:
            folder = stack.enter_context(servers.server_folder())
            programs = stack.enter_context(releases.installed(major))
            running[major] = stack.enter_context(servers.postgres(folder, programs))
        for server in running.values():
            server.psql("postgres", 'CREATE DATABASE "edna releases"')
            server.psql("edna releases", EDNA)
        yield Fleet(running, tmp_path_factory.mktemp("releases"))


@pytest.fixture(autouse=True)
def clients(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)
    use_clients(fleet, monkeypatch, 15, 17, 18)


def use_clients(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, *majors: int) -> None:
    monkeypatch.setenv(ENV_CLIENTS, os.pathsep.join(str(fleet.servers[each].binaries) for each in majors))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("origin", "destination"), PAIRS)
def test_a_release_comes_back_in_itself_and_in_a_newer_one(
    fleet: Fleet, origin: int, destination: int, form: str
) -> None:
    made = fleet.backup(origin, form)
    target = fleet.target(destination, f"{form} of {origin}")
    fleet.runner.execute(made, target, None)
    assert fleet.servers[destination].psql(target.database, FINGERPRINT) == fleet.fingerprint(origin)


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_dump_is_made_by_the_clients_of_the_servers_own_release(fleet: Fleet, major: int) -> None:
    made = fleet.backup(major, "Custom")
    tools = fleet.runner.metadata(made).tools
    assert tools["pg_dump"].partition(".")[0] == tools["postgresql"].partition(".")[0] == str(major)


@pytest.mark.parametrize("form", FORMATS)
def test_newer_clients_alone_bring_an_older_server_back(
    fleet: Fleet, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the backup image: pg_dump 17 writes a setting that PostgreSQL 15 does not know."""
    use_clients(fleet, monkeypatch, 17)
    made = fleet.runner.backup(fleet.source(15, form))
    target = fleet.target(15, f"{form} by newer clients")
    fleet.runner.execute(made, target, None)
    assert fleet.servers[15].psql(target.database, FINGERPRINT) == fleet.fingerprint(15)


@pytest.mark.parametrize("major", [15, 17, 18])
def test_several_jobs_restore_a_directory(fleet: Fleet, major: int) -> None:
    target = fleet.target(major, "by jobs", jobs=3)
    fleet.runner.execute(fleet.backup(major, "Directory"), target, None)
    assert fleet.servers[major].psql(target.database, FINGERPRINT) == fleet.fingerprint(major)


def test_a_dump_of_newer_clients_is_refused_by_older_ones(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fleet.backup(17, "Custom")
    use_clients(fleet, monkeypatch, 15)
    with pytest.raises(RestoreRefused) as refused:
        fleet.runner.plan(made, fleet.target(15, "by older clients"))
    assert refused.value.reason == "ClientTooOld" and "pg_dump 17" in refused.value.message


def test_several_jobs_of_newer_clients_are_refused_on_an_older_server(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = fleet.backup(15, "Directory")
    use_clients(fleet, monkeypatch, 17)
    with pytest.raises(RestoreRefused) as refused:
        fleet.runner.plan(made, fleet.target(15, "by newer jobs", jobs=2))
    assert refused.value.reason == "JobsNotPossible"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("major", [15, 17, 18])
def test_what_fails_behind_the_large_objects_leaves_nothing(fleet: Fleet, major: int, form: str) -> None:
    """Each release writes the transaction around large objects in its own words."""
    name = f"broken {major} {form}"
    server, source = fleet.servers[major], fleet.target(major, name).model_copy(update={"format": form})
    server.psql(name, EDNA)
    server.psql(name, INDEX_THAT_CANNOT_BE_MADE_AGAIN)
    made = fleet.runner.backup(source)
    with pytest.raises(RestoreFailed, match=r"edna.here.*as it was"):
        fleet.runner.restore(made, fleet.target(major, f"behind {major} {form}"))
    left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace; SELECT count(*) FROM pg_largeobject_metadata"
    assert server.psql(f"behind {major} {form}", left).split() == ["0", "0"]


# --- what became of a transaction --------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_dump_that_ends_the_transaction_of_its_restore_is_told_and_the_database_is_marked(
    fleet: Fleet, tmp_path: Path, major: int, form: str
) -> None:
    """The words of its COMMIT stand where a function had as many others: pg_dump never writes them."""
    target = fleet.target(major, f"ends {major} {form}")
    filler = "e" * 60
    server, hostile = fleet.servers[major], "\n $$;\nCOMMIT;\nSELECT nonsense;\nSELECT $$"
    server.psql(target.database, f"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 -- {filler}\n $$")  # fmt: skip
    whole = pg_dump(server, target.database, form, tmp_path, (filler.encode(), hostile.ljust(60).encode()))
    with pytest.raises(RestoreFailed, match=r"nonsense.*ends the transaction.*NOT whole") as failed:
        restore(target, whole, form, tmp_path)
    assert failed.value.reason == "RestoreIncomplete"
    assert server.psql(target.database, f"SELECT to_regnamespace('{MARKER}')") == MARKER


@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_connection_that_is_lost_while_the_server_commits_is_a_restore_that_was_committed(
    fleet: Fleet, tmp_path: Path, major: int
) -> None:
    dump = b"SELECT repeat('x', 1000000);\nCREATE TABLE t (n int);\n"
    with tcp_proxy(fleet.servers[major].port) as proxy:
        restore(through(proxy, fleet.target(major, f"measured {major}")), dump, "Plain", tmp_path)
        target = through(proxy, fleet.target(major, f"lost {major}"))
        # The last that the server says is that it committed, in 18 bytes.
        proxy.cut_after = proxy.most - 8
        restore(target, dump, "Plain", tmp_path)
        assert proxy.cut_after is None, "the connection was cut"
    assert fleet.servers[major].psql(target.database, "SELECT to_regclass('t')") == "t"


def test_a_connection_that_is_lost_before_the_commit_is_a_restore_that_was_rolled_back(
    fleet: Fleet, tmp_path: Path
) -> None:
    dump = b"SELECT repeat('x', 1000000);\nCREATE TABLE t (n int);\n"
    with tcp_proxy(fleet.servers[15].port) as proxy:
        target = through(proxy, fleet.target(15, "lost before"))
        proxy.cut_after = 500_000
        with pytest.raises(RestoreFailed, match="as it was") as failed:
            restore(target, dump, "Plain", tmp_path)
    assert failed.value.reason == "RestoreRolledBack"
    assert fleet.servers[15].psql(target.database, "SELECT to_regclass('t')") == ""


def test_a_server_that_stays_away_after_the_commit_was_sent_is_said_to_be_unknown(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome, "PATIENCE_SECONDS", 1)
    dump = b"SELECT repeat('x', 1000000);\nCREATE TABLE t (n int);\n"
    with tcp_proxy(fleet.servers[15].port) as proxy:
        restore(through(proxy, fleet.target(15, "measured away")), dump, "Plain", tmp_path)
        target = through(proxy, fleet.target(15, "away"))
        proxy.cut_after, proxy.cut_for_good = proxy.most - 8, True
        with pytest.raises(RestoreFailed, match="did not say whether it had committed") as failed:
            restore(target, dump, "Plain", tmp_path)
    assert failed.value.reason == "OutcomeUnknown"


def through(proxy: TcpProxy, source: PostgresqlSource) -> PostgresqlSource:
    return source.model_copy(update={"port": proxy.port, "ssl_mode": "disable"})


def restore(target: PostgresqlSource, dump: bytes, form: str, scratch: Path) -> None:
    """Restore bytes that no backup of ours wrote; their checksums were right."""
    incoming = Incoming(iter([dump]), {"format": form, "source_bytes": len(dump)}, scratch, lambda _: None)
    PostgresqlDatabase(target.model_copy(update={"format": form}), scratch).restore(incoming)


def pg_dump(server: Postgres, database: str, form: str, folder: Path, instead: tuple[bytes, bytes]) -> bytes:
    """Give a dump of a database in which one text stands instead of another."""
    made = folder / "made"
    subprocess.run(
        [server.binaries / "pg_dump", f"--format={form.lower()}", "--compress=0", f"--file={made}", "-h", "127.0.0.1",
         "-p", str(server.port), "-U", "avalanche", database],
        env={"PGPASSWORD": servers.PASSWORD}, check=True,
    )  # fmt: skip
    for path in made.iterdir() if made.is_dir() else [made]:
        path.write_bytes(path.read_bytes().replace(*instead))
    if not made.is_dir():
        return made.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(made.iterdir()):
            archive.add(path, path.name)
    return packed.getvalue()
