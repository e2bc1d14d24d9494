"""Data that collapses: the backup is kept, told of and counts as none, until a person says that it is right."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from avalanche_backup import catalog, layout
from avalanche_backup.errors import SourceInvalid
from avalanche_backup.job import exit_code
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.exitcodes import PERMANENT, ExitCode
from avalanche_contract.request import Anomaly, CleanupRequest, ProbeRequest, Retention, Run
from avalanche_contract.result import Result
from avalanche_contract.source import FilesSource, PostgresqlSource, SqliteSource
from avalanche_contract.storage import DirectoryStorage, Storage
from tests.integration.conftest import FINGERPRINT
from tests.integration.runs import NONCE, PREFIX, WRITER, Runner
from tests.integration.servers import Postgres
from tests.integration.test_command_line import Project, log_of

BEGIN = datetime(2026, 3, 1, 2, tzinfo=UTC)

EVERY_SCHEMA_GOES = """DO $$ DECLARE one text; BEGIN FOR one IN SELECT nspname FROM pg_namespace
 WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP EXECUTE format('DROP SCHEMA %I CASCADE', one); END LOOP; CREATE SCHEMA public; END $$"""


class Days:
    """One backup a day of one source."""

    def __init__(self, runner: Runner, source: Any, kind: Any = "database") -> None:
        self.runner, self.source, self.kind = runner, source, kind
        self._day = 0

    def next(self, **more: Any) -> Result:
        """Give what the run of the next day comes to."""
        self._day += 1
        return self.again(**more)

    def again(self, **more: Any) -> Result:
        """Run once more for the same day, as a retried pod does."""
        slot = BEGIN + timedelta(days=self._day)
        job = f"cron-{int(slot.timestamp()) // 60}"
        context = replace(self.runner.context(), job_name=job, scratch=self.runner.scratch / job)
        return self.runner.backup(
            self.source, kind=self.kind, run_of=Run(cron_job="cron"), context=context, **more
        )

    def reasons(self) -> dict[str, tuple[str, ...]]:
        """Give why retention keeps each backup."""
        request = CleanupRequest(
            nonce=NONCE, place=self.runner.place, others=self.runner.places[1:], writer=WRITER,
            retention=Retention(keep_daily=2), dry_run=True,
        )  # fmt: skip
        self.runner.reported.decisions.clear()
        run(request, replace(self.runner.context(), now=lambda: BEGIN + timedelta(days=30)))
        return {each.backup_id: each.reasons for each in self.runner.reported.decisions}


@pytest.fixture
def volume(tmp_path: Path) -> Runner:
    (tmp_path / "volume").mkdir()
    return Runner(DirectoryStorage(name="volume", root=str(tmp_path / "volume")), tmp_path / "scratch")


@pytest.fixture
def application(tmp_path: Path) -> Path:
    path = tmp_path / "app.sqlite"
    _sql(path, "CREATE TABLE a (n)", "CREATE TABLE b (n)", *["INSERT INTO a VALUES (1)"] * 100)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "in").mkdir(parents=True)
    for number in range(10):
        (root / "in" / f"{number}").write_text("x" * 1000)
    return root


def _sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as opened:
        for each in statements:
            opened.execute(each)
        opened.commit()


def _sqlite(path: Path) -> SqliteSource:
    return SqliteSource(name="database", path=str(path))


def _files(root: Path, **more: Any) -> FilesSource:
    return FilesSource(name="files", root=str(root), **more)


def test_a_collapsed_database_is_kept_shown_and_no_backup_to_retention_until_it_is_accepted(
    storage: Storage, tmp_path: Path, application: Path
) -> None:
    days = Days(Runner(storage, tmp_path / "scratch"), _sqlite(application))
    first, second = days.next(), days.next()
    _sql(application, "DELETE FROM a WHERE rowid > 10")
    odd = days.next()
    assert (odd.verdict, odd.reason, exit_code(odd)) == ("Suspect", "Shrunken", ExitCode.SUSPECT)
    assert "10 rows, 90 % less than the 100 that are usual" in odd.message
    metadata = days.runner.metadata(odd)
    assert metadata.status == "suspect" and metadata.anomalies[0].reason == "Shrunken"
    entry = days.runner.reported.entries[-1]
    assert (entry.status, entry.reason) == ("Suspect", "Shrunken") and "90 % less" in entry.message
    assert days.reasons() == {
        first.backup_id: ("daily-2",), second.backup_id: ("last-verified", "daily-1"), odd.backup_id: ("suspect",),
    }  # fmt: skip

    still = days.next()
    assert still.verdict == "Suspect"  # what is suspect is no measure for what comes after it
    days.runner.hold(odd.backup_id or "", accept_anomaly=True)
    assert days.reasons()[odd.backup_id or ""] == ("last-verified", "daily-1")
    days.runner.reported.entries.clear()
    days.runner.run_catalog()
    assert [each.backup_id for each in days.runner.reported.entries if each.anomaly_accepted] == [
        odd.backup_id
    ]
    assert days.next().verdict == "Succeeded"
    _sql(application, "DELETE FROM a WHERE rowid > 4")
    worse = days.next()
    assert worse.verdict == "Suspect" and "than the 10 that are usual (the median of 2 " in worse.message


def test_a_retried_pod_tells_of_the_same_suspicion_and_makes_nothing_anew(
    volume: Runner, application: Path
) -> None:
    days = Days(volume, _sqlite(application))
    days.next()
    _sql(application, "DELETE FROM a")
    odd, stored = days.next(), volume.stored()
    _sql(application, *["INSERT INTO a VALUES (1)"] * 200)
    again = days.again()
    assert (again.verdict, again.reason, again.backup_id) == ("Suspect", "Shrunken", odd.backup_id)
    assert "by another attempt of this run, and looks wrong: database shrank: 0 rows" in again.message
    assert volume.stored() == stored and ExitCode.SUSPECT in PERMANENT


def test_a_database_that_lost_its_tables_comes_back_as_the_empty_one_that_it_was(
    volume: Runner, application: Path, tmp_path: Path
) -> None:
    days = Days(volume, _sqlite(application))
    days.next()
    _sql(application, "DROP TABLE a", "DROP TABLE b")
    odd = days.next(anomaly=Anomaly(max_shrink_percent=100))
    assert (odd.verdict, odd.reason) == ("Suspect", "TablesGone") and "it had 2" in odd.message
    verified = volume.verify(odd)
    assert (
        verified.verdict == "Succeeded"
        and "it is suspect: database has no table any more" in verified.message
    )
    target = _sqlite(tmp_path / "elsewhere.sqlite")
    plan = volume.plan(odd, target)
    assert plan.anomaly == "database has no table any more, it had 2"
    volume.execute(odd, target, plan.digest)
    with closing(sqlite3.connect(target.path)) as opened:
        assert opened.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)


@pytest.mark.parametrize("content", [b"", None])
def test_a_file_that_was_truncated_to_nothing_is_suspect_and_one_that_is_gone_fails(
    volume: Runner, application: Path, content: bytes | None
) -> None:
    days = Days(volume, _sqlite(application))
    days.next()
    application.unlink()
    if content is None:
        with pytest.raises(SourceInvalid) as raised:
            days.next()
        assert raised.value.reason == "SourceMissing"
    else:
        application.write_bytes(content)
        assert days.next().reason == "TablesGone"


def test_a_vacuum_is_no_shrink(volume: Runner, application: Path) -> None:
    _sql(application, *["INSERT INTO b VALUES (randomblob(20000))"] * 100)
    _sql(application, "DELETE FROM b")
    days = Days(volume, _sqlite(application))
    first = days.next()
    with closing(sqlite3.connect(application)) as opened:
        opened.execute("VACUUM")
    second = days.next()
    assert second.verdict == "Succeeded" and (second.source_bytes or 0) * 10 < (first.source_bytes or 0)


def test_an_emptied_tree_is_suspect_and_one_that_never_held_a_file_fails(
    volume: Runner, tree: Path, tmp_path: Path
) -> None:
    days = Days(volume, _files(tree), "files")
    made = days.next()
    shutil.rmtree(tree / "in")
    odd = days.next()
    assert (odd.verdict, odd.reason) == ("Suspect", "SourceEmptied") and "it had 10 files" in odd.message
    assert days.reasons()[made.backup_id or ""] == ("last-verified", "daily-1")
    (tmp_path / "new").mkdir()
    days.source = FilesSource(name="other", root=str(tmp_path / "new"))
    with pytest.raises(SourceInvalid) as raised:
        days.next()
    assert raised.value.reason == "SourceEmpty"


def test_a_probe_tells_of_an_empty_source(volume: Runner, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(SourceInvalid) as raised:
        run(ProbeRequest(nonce=NONCE, sources=(_files(tmp_path / "new"),)), volume.context())
    assert raised.value.reason == "SourceEmpty"


@pytest.mark.parametrize("lose", [
    lambda tree: [each.unlink() for each in list((tree / "in").iterdir())[:6]],
    lambda tree: [each.write_text("x" * 400) for each in (tree / "in").iterdir()],
], ids=["files", "bytes"])  # fmt: skip
def test_a_tree_that_lost_most_of_its_files_or_bytes_is_suspect(
    volume: Runner, tree: Path, lose: Callable[[Path], object]
) -> None:
    days = Days(volume, _files(tree), "files")
    days.next()
    lose(tree)
    assert days.next().reason == "Shrunken"
    assert days.next(anomaly=Anomaly(max_shrink_percent=60)).verdict == "Succeeded"
    assert days.next(anomaly=Anomaly(max_shrink_percent=100)).verdict == "Succeeded"
    assert (
        days.next(anomaly=Anomaly(max_shrink_percent=5)).verdict == "Succeeded"
    )  # usual by now: two of three


def test_another_choice_of_files_is_no_shrink_and_the_backup_warns_of_it_once(
    volume: Runner, tree: Path
) -> None:
    days = Days(volume, _files(tree), "files")
    days.next()
    days.source = _files(tree, exclude=("[1-9]",))
    changed = days.next()
    assert changed.verdict == "Succeeded"
    assert volume.metadata(changed).warnings[0].startswith("files: exclude changed since the last backup")
    assert volume.metadata(days.next()).warnings == []
    days.source = _files(tree, exclude=("*",))
    with pytest.raises(SourceInvalid) as raised:  # a choice of nothing is a mistake, not a collapse
        days.next()
    assert raised.value.reason == "SourceEmpty"


def test_only_the_source_that_collapsed_is_named_and_the_others_stay_a_measure(
    volume: Runner, tree: Path, application: Path
) -> None:
    both = (_sqlite(application), _files(tree))
    volume.backup(*both, kind="full")
    shutil.rmtree(tree / "in")
    odd = volume.backup(*both, kind="full")
    assert odd.verdict == "Suspect" and [each.source for each in volume.metadata(odd).anomalies] == ["files"]
    _sql(application, "DELETE FROM a")
    worse = volume.backup(*both, kind="full")
    found = [(each.source, each.reason) for each in volume.metadata(worse).anomalies]
    assert found == [("files", "SourceEmptied"), ("database", "Shrunken")] and worse.reason == "SourceEmptied"


def test_what_was_found_damaged_or_comes_from_a_clock_ahead_is_no_measure(
    volume: Runner, application: Path
) -> None:
    days = Days(volume, _sqlite(application))
    small = days.next()
    _sql(application, *["INSERT INTO a VALUES (1)"] * 900)
    damaged, ahead = days.next(), days.next()
    catalog.write_verification(
        volume.store, PREFIX, damaged.backup_id or "", status="VerificationFailed", message="", now=BEGIN
    )
    key = layout.metadata_key(PREFIX, ahead.backup_id or "")
    document = json.loads(catalog.read_document(volume.store, key))
    volume.store.put(
        key, json.dumps(document | {"completion_time": "2099-01-01T00:00:00Z"}).encode(), overwrite=True
    )
    _sql(application, "DELETE FROM a WHERE rowid > 100")
    assert days.next().verdict == "Succeeded"
    assert volume.metadata(small).status == "succeeded"


def test_a_second_destination_knows_what_is_usual_where_the_first_is_new(
    tmp_path: Path, application: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    old, new = (DirectoryStorage(name=name, root=str(tmp_path / name)) for name in ("one", "two"))
    Days(Runner(old, tmp_path / "scratch"), _sqlite(application)).next()
    _sql(application, "DELETE FROM a")
    days = Days(Runner(new, tmp_path / "scratch", others=(old,)), _sqlite(application))
    days.next()
    odd = days.next()
    assert odd.verdict == "Suspect" and {each.status for each in odd.copies} == {"Verified"}


def test_a_server_whose_tables_were_emptied_or_dropped_is_suspect_and_comes_back_when_named(
    volume: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    source = database
    postgres.psql(
        source.database, "CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 10000)"
    )
    days = Days(volume, source)
    days.next()
    postgres.psql(source.database, "TRUNCATE filler")
    odd = days.next()
    assert (odd.verdict, odd.reason) == ("Suspect", "Shrunken") and "bytes of the Plain dump" in odd.message
    days.source = source.model_copy(update={"format": "Custom"})
    assert days.next().verdict == "Succeeded"  # of one format only the bytes of that are compared
    days.source = source
    before = postgres.psql(source.database, FINGERPRINT)
    postgres.psql(source.database, EVERY_SCHEMA_GOES)
    gone = days.next()
    assert (gone.verdict, gone.reason) == ("Suspect", "TablesGone")
    volume.restore(odd, source)
    assert postgres.psql(source.database, FINGERPRINT) == before


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_command_line_ends_with_16_says_what_to_do_and_lists_what_was_accepted(project: Project) -> None:
    configure = project.folder / "config" / "backup.yaml"
    configure.write_text("backup: {files: {paths: [data/in]}, anomaly: {max_shrink_percent: 20}}\n")
    for number in range(9):
        (project.folder / "data/in" / f"{number}").write_text("content")
    good = project.json("files")["backup_id"]
    for number in range(3):
        (project.folder / "data/in" / f"{number}").unlink()
    odd = project.run("-o", "json", "files")
    made = json.loads(odd.stdout)
    assert odd.returncode == 16 and made["anomalies"][0]["reason"] == "Shrunken"
    codes = [each["exit_code"] for each in log_of(project) if each["event"] == "ended"]
    assert codes == [0, 16], "the log says what the process said"
    assert f"accept-anomaly --backup-id {made['backup_id']}" in odd.stderr and "30 % less" in odd.stderr
    assert "suspect" in project.run("list").stdout
    shown = project.run("restore", "files", "--backup-id", made["backup_id"], "--dry-run")
    assert "Suspect   files shrank: 7 files" in shown.stdout
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    newest = ("restore", "files", "--as-of", now, "--dry-run")
    assert good in project.run(*newest).stdout
    assert project.run("accept-anomaly", "--backup-id", made["backup_id"]).returncode == 0
    assert made["backup_id"] in project.run(*newest).stdout
    assert "accepted" in project.run("list").stdout
    assert [each["anomaly_accepted"] for each in project.json("list")] == [True, False]
    assert project.run("files").returncode == 0


def test_a_share_that_is_no_percentage_is_refused_by_name(project: Project) -> None:
    (project.folder / "config" / "backup.yaml").write_text("backup: {anomaly: {max_shrink_percent: 101}}\n")
    ended = project.run("files")
    assert ended.returncode == 2 and "backup.anomaly.max_shrink_percent" in ended.stderr
