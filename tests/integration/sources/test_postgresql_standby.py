"""A hot standby as the source: it is read, it is not written, and it may take a query away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from avalanche_backup.errors import RestoreRefused, SourceUnavailable
from avalanche_contract.storage import DirectoryStorage
from tests.integration import servers
from tests.integration.conftest import EDNA, FINGERPRINT, source_of
from tests.integration.runs import Reported, Runner
from tests.integration.servers import Postgres


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    """Give a primary with one eDNA database, and its standby, which gives way to the primary at once."""
    with servers.server_folder() as folder, servers.postgres(folder) as primary:
        primary.psql("postgres", "CREATE DATABASE edna")
        primary.psql("edna", EDNA)
        with servers.server_folder() as beside, servers.standby(primary, beside) as standby:
            yield primary, standby


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)
    (tmp_path / "volume").mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path / "scratch")


def caught_up(primary: Postgres, standby: Postgres) -> None:
    written = primary.psql("postgres", "SELECT pg_current_wal_flush_lsn()")
    deadline = time.monotonic() + 20
    while standby.psql("postgres", f"SELECT pg_last_wal_replay_lsn() >= '{written}'") != "t":
        assert time.monotonic() < deadline, "the standby does not catch up"
        time.sleep(0.05)


@pytest.mark.parametrize("form", ["Plain", "Custom", "Directory"])
def test_a_standby_is_backed_up_and_comes_back_on_its_primary(
    runner: Runner, pair: tuple[Postgres, Postgres], form: str
) -> None:
    primary, standby = pair
    caught_up(primary, standby)
    jobs = 2 if form == "Directory" else 1
    source = source_of(standby, "edna").model_copy(
        update={"format": form, "jobs": jobs, "include_globals": True}
    )
    made = runner.backup(source)
    primary.psql("postgres", f"CREATE DATABASE from_{form}")
    runner.execute(made, source_of(primary, f"from_{form}".lower()), None)
    assert primary.psql(f"from_{form}".lower(), FINGERPRINT) == primary.psql("edna", FINGERPRINT)


def test_a_standby_is_no_target(runner: Runner, pair: tuple[Postgres, Postgres]) -> None:
    primary, standby = pair
    caught_up(primary, standby)
    made = runner.backup(source_of(primary, "edna"))
    with pytest.raises(RestoreRefused, match="standby") as refused:
        runner.plan(made, source_of(standby, "edna"))
    assert refused.value.reason == "TargetReadOnly"


@dataclass
class Meanwhile(Reported):
    """Changes the primary once the dump of the standby is under way, and waits until the standby knows."""

    pair: tuple[Postgres, Postgres] | None = None

    def progress(self, phase: str, source: str, done_bytes: int, total_bytes: int | None) -> None:
        """Drop what is being dumped, once."""
        super().progress(phase, source, done_bytes, total_bytes)
        if self.pair is not None and done_bytes:
            primary, standby = self.pair
            self.pair = None
            primary.psql("conflict", "DROP TABLE large")
            caught_up(primary, standby)


def test_a_dump_that_the_standby_takes_away_fails_and_is_worth_another_try(
    runner: Runner, pair: tuple[Postgres, Postgres]
) -> None:
    primary, standby = pair
    primary.psql("postgres", "CREATE DATABASE conflict")
    primary.psql(
        "conflict",
        "CREATE TABLE large AS SELECT repeat(md5(n::text), 40) FROM generate_series(1, 20000) AS n",
    )
    caught_up(primary, standby)
    changed = replace(runner, reported=Meanwhile(pair=pair))
    with pytest.raises(SourceUnavailable, match="max_standby_streaming_delay") as failed:
        changed.backup(source_of(standby, "conflict"))
    assert failed.value.reason == "RecoveryConflict"
    assert [key for key in runner.stored() if "/database/" in key] == []
