"""PostgreSQL where something is not as it should be: locks, rights, roles, a full disk, a standby, a database that goes away.

A run ends as a good backup or as a failure with a reason, and a restore leaves the old database or the new one; where
several jobs were asked for, one that is plainly marked.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from avalanche_backup.errors import Failure, RestoreFailed, RestoreRefused, SourceInvalid, SourceUnavailable
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql import PostgresqlDatabase, dump
from avalanche_backup.sources.postgresql.questions import ABILITIES
from avalanche_backup.sources.postgresql.scope import MARKER
from avalanche_contract.source import PostgresqlSource
from tests.integration.conftest import FINGERPRINT, source_of
from tests.integration.runs import PREFIX, Runner
from tests.integration.servers import PASSWORD, Postgres, Session

FORMATS = pytest.mark.parametrize("form", ["Plain", "Directory"])


def fails(runner: Runner, source: PostgresqlSource, kind: type[Failure], reason: str) -> Failure:
    with pytest.raises(kind) as raised:
        runner.backup(source)
    assert raised.value.reason == reason, raised.value.message
    assert [key for key in runner.stored() if "/database/" in key] == []
    assert list(runner.scratch.glob("*/directory")) == []
    return raised.value


def formed(source: PostgresqlSource, form: str, **more: object) -> PostgresqlSource:
    return source.model_copy(update={"format": form, "jobs": 2 if form == "Directory" else 1, **more})


def role(postgres: Postgres, source: PostgresqlSource, *words: str) -> PostgresqlSource:
    """Make a role of this test's own, and give the source as that role sees it."""
    name = f"role of {source.database}"
    postgres.psql("postgres", f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}' {' '.join(words)}")
    return source.model_copy(update={"username": name})


# --- dumping ---------------------------------------------------------------------------------------------
@FORMATS
def test_a_table_that_stays_locked_fails_the_run_within_its_time(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "LOCK_WAIT", "300ms")
    with Session(postgres, database.database) as session:
        session.run("BEGIN; LOCK TABLE samples")
        fails(runner, formed(database, form), SourceUnavailable, "LockNotObtained")
    assert runner.backup(formed(database, form)).verdict == "Succeeded"


@FORMATS
def test_a_database_dropped_while_it_is_dumped_fails_the_run(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    with Session(postgres, database.database) as session:
        session.run("BEGIN; LOCK TABLE samples")
        dropper = threading.Thread(target=drop_once_dumped, args=(postgres, database.database))
        dropper.start()
        with pytest.raises(Failure) as raised:
            runner.backup(formed(database, form))
        dropper.join()
    assert raised.value.reason in ("SourceUnavailable", "DatabaseMissing"), raised.value.message
    assert [key for key in runner.stored() if "/database/" in key] == []


def drop_once_dumped(postgres: Postgres, name: str) -> None:
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'avalanche-backup' AND wait_event_type = 'Lock'"
    until(lambda: int(postgres.psql("postgres", waiting)) > 0)
    postgres.psql("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')


def until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


@FORMATS
def test_tables_that_come_and_go_during_a_dump_make_a_good_backup_or_none(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    over, name = threading.Event(), database.database

    def churn() -> None:
        with Session(postgres, name) as session:
            while not over.is_set():
                session.run(
                    "DROP TABLE IF EXISTS passing; CREATE TABLE passing AS SELECT generate_series(1, 9)"
                )

    churning = threading.Thread(target=churn)
    churning.start()
    made = None
    try:
        made = runner.backup(formed(database, form))
    except SourceUnavailable:
        assert [key for key in runner.stored() if "/database/" in key] == []
    finally:
        over.set()
        churning.join()
    if made is not None:
        postgres.psql("postgres", f'CREATE DATABASE "after {name}"')
        runner.execute(made, source_of(postgres, f"after {name}"), None)
        postgres.psql(name, "DROP TABLE IF EXISTS passing")
        postgres.psql(f"after {name}", "DROP TABLE IF EXISTS passing")
        assert postgres.psql(f"after {name}", FINGERPRINT) == postgres.psql(name, FINGERPRINT)


@FORMATS
def test_timeouts_that_a_role_is_given_do_not_end_a_dump(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    source = role(postgres, database, "SUPERUSER")
    for name in (
        "statement_timeout = '20ms'",
        "lock_timeout = '20ms'",
        "idle_in_transaction_session_timeout = '1s'",
    ):
        postgres.psql("postgres", f'ALTER ROLE "{source.username}" SET {name}')
    made = runner.backup(formed(source, form))
    runner.restore(made, source)
    assert postgres.psql(database.database, "SELECT count(*) FROM samples") == "5000"


@FORMATS
def test_a_role_that_may_not_read_one_table_fails_and_is_told_what_it_needs(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    source = role(postgres, database)
    postgres.psql(
        database.database,
        f'GRANT USAGE ON SCHEMA taxonomy TO "{source.username}"; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{source.username}"',
    )
    failure = fails(runner, formed(source, form), SourceInvalid, "PermissionDenied")
    assert "pg_read_all_data" in failure.message


def test_row_security_that_hides_rows_fails_the_dump(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    source = role(postgres, database, "IN ROLE pg_read_all_data")
    postgres.psql(database.database, "SELECT lo_unlink(4242)")
    failure = fails(runner, source, SourceInvalid, "RowSecurity")
    assert "BYPASSRLS" in failure.message


@FORMATS
def test_the_least_rights_of_a_dump_are_enough(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    """What docs/postgresql.md grants: pg_read_all_data, BYPASSRLS where rows are hidden, large objects by their owner."""
    source = role(postgres, database, "BYPASSRLS IN ROLE pg_read_all_data")
    postgres.psql(database.database, f'GRANT SELECT ON LARGE OBJECT 4242 TO "{source.username}"')
    made = runner.backup(formed(source, form, include_globals=True))
    postgres.psql("postgres", f'CREATE DATABASE "least {database.database}"')
    target = source_of(postgres, f"least {database.database}")
    runner.execute(made, target, None)
    assert postgres.psql(target.database, FINGERPRINT) == postgres.psql(database.database, FINGERPRINT)


def test_a_database_that_lets_nobody_in_is_named(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    postgres.psql("postgres", f'ALTER DATABASE "{database.database}" WITH ALLOW_CONNECTIONS false')
    fails(runner, database, SourceInvalid, "ConnectionsNotAllowed")


def test_a_database_without_tables_is_backed_up_where_it_holds_large_objects(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    name = f"large {database.database}"
    postgres.psql("postgres", f'CREATE DATABASE "{name}"')
    postgres.psql(name, "SELECT lo_from_bytea(7, 'seven')")
    source = source_of(postgres, name)
    made = runner.backup(formed(source, "Directory"))
    postgres.psql(name, "SELECT lo_unlink(7)")
    runner.execute(made, source, None)
    assert postgres.psql(name, "SELECT convert_from(lo_get(7), 'UTF8')") == "seven"


def test_an_index_that_is_invalid_and_a_view_on_a_view_come_back(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    postgres.psql(
        database.database,
        "CREATE INDEX broken ON samples (site); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass;"
        "CREATE MATERIALIZED VIEW first AS SELECT count(*) AS n FROM samples; CREATE MATERIALIZED VIEW second AS SELECT n FROM first",
    )
    made = runner.backup(database)
    runner.restore(made, database)
    assert postgres.psql(database.database, "SELECT n FROM second") == "5000"
    assert postgres.psql(database.database, "SELECT count(*) FROM pg_index WHERE NOT indisvalid") == "0"


@FORMATS
def test_names_that_look_like_options_or_connection_strings_are_only_names(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    name = f"dbname=x host=evil --help '\\\" {database.database}"
    postgres.psql("postgres", f'CREATE DATABASE "{name.replace(chr(34), chr(34) * 2)}"')
    source = formed(source_of(postgres, name), form)
    run_in(postgres, name, 'CREATE TABLE "--file=x; $(id)" (n int); INSERT INTO "--file=x; $(id)" VALUES (7)')
    made = runner.backup(source)
    run_in(postgres, name, 'DROP TABLE "--file=x; $(id)"')
    runner.execute(made, source, None)
    assert run_in(postgres, name, 'SELECT n FROM "--file=x; $(id)"') == "7"


def run_in(postgres: Postgres, name: str, sql: str) -> str:
    """Run SQL in a database whose name psql must not read as a connection string."""
    with Session(postgres, name) as session:
        return session.run(sql)


# --- scratch ---------------------------------------------------------------------------------------------
@contextmanager
def small(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_scratch_fails_the_dump_and_says_what_to_enlarge(
    runner: Runner, database: PostgresqlSource
) -> None:
    with small(runner.scratch, "200k"):
        failure = fails(runner, formed(database, "Directory"), SourceInvalid, "ScratchFull")
    assert "podTemplate.scratch" in failure.message


def test_a_full_scratch_refuses_the_restore_before_the_target_is_touched(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(formed(database, "Directory"))
    before = postgres.psql(database.database, FINGERPRINT)
    with (
        small(runner.scratch, "200k"),
        pytest.raises(RestoreRefused, match=r"podTemplate\.scratch") as refused,
    ):
        runner.restore(made, database)
    assert refused.value.reason == "ScratchFull"
    assert postgres.psql(database.database, FINGERPRINT) == before


# --- globals ---------------------------------------------------------------------------------------------
def test_globals_lie_beside_the_data_without_any_password(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    source = role(postgres, database, "SUPERUSER").model_copy(update={"include_globals": True})
    made = runner.backup(source)
    assert runner.verify(made).reason == "Verified"
    data, found = runner.metadata(made).artifacts
    assert (found.role, found.file) == ("globals", f"{made.backup_id}_globals.sql.gz")
    assert f"sha256:{data.sha256}" == made.checksum
    text = unpacked(runner, found.file)
    assert f'CREATE ROLE "{source.username}"' in text
    assert (
        "SCRAM" not in text and "PASSWORD" not in text.replace("PASSWORD NULL", "") and PASSWORD not in text
    )


def unpacked(runner: Runner, file: str) -> str:
    with runner.store.read(f"{PREFIX}database/{file}") as chunks:
        return gzip.decompress(b"".join(chunks)).decode()


def test_a_restore_leaves_globals_alone_and_says_how_they_come_back_by_hand(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database.model_copy(update={"include_globals": True}))
    message = runner.restore(made, database).message
    assert "roles and tablespaces were not restored" in message
    assert f"gzip -dc {made.backup_id}_globals.sql.gz | psql --no-psqlrc --dbname=postgres" in message


def test_globals_by_hand_bring_back_the_roles_that_a_restore_waits_for(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    owner = role(postgres, database).username
    postgres.psql(database.database, f'ALTER TABLE samples OWNER TO "{owner}"')
    made = runner.backup(database.model_copy(update={"include_globals": True}))
    expected = postgres.psql(database.database, FINGERPRINT)
    postgres.psql(database.database, f'REASSIGN OWNED BY "{owner}" TO avalanche; DROP ROLE "{owner}"')
    with pytest.raises(RestoreRefused) as refused:
        runner.plan(made, database)
    assert refused.value.reason == "RolesMissing" and str(owner) in refused.value.message
    found = next(each for each in runner.metadata(made).artifacts if each.role == "globals")
    by_hand(postgres, unpacked(runner, found.file))
    runner.restore(made, database)
    assert postgres.psql(database.database, FINGERPRINT) == expected
    asked = "SELECT tableowner FROM pg_tables WHERE tablename = 'samples'"
    assert postgres.psql(database.database, asked) == owner


def by_hand(postgres: Postgres, text: str) -> None:
    """Restore globals as the metadata says: what is there already is an error that does no harm."""
    command: list[str | Path] = [postgres.binaries / "psql", "--no-psqlrc", "-h", "127.0.0.1", "-p", str(postgres.port), "-U", "avalanche", "--dbname=postgres"]  # fmt: skip
    ended = subprocess.run(
        command, input=text, env={"PGPASSWORD": PASSWORD}, capture_output=True, text=True, check=False
    )
    errors = [line for line in ended.stderr.splitlines() if "ERROR" in line]
    assert ended.returncode == 0 and all("already exists" in line for line in errors), ended.stderr


# --- restoring -------------------------------------------------------------------------------------------
@FORMATS
def test_a_role_that_may_not_give_objects_away_is_refused_before_anything_is_touched(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    made = runner.backup(formed(database, form))
    postgres.psql("postgres", f'CREATE DATABASE "not mine {database.database}"')
    target = role(postgres, source_of(postgres, f"not mine {database.database}"))
    with pytest.raises(RestoreRefused, match="restore as a superuser") as refused:
        runner.execute(made, target, None)
    assert refused.value.reason == "RolesNotGranted"


TABLES_AND_LARGE_OBJECTS = """
    SELECT oid, relname, relispopulated FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY oid;
    SELECT oid FROM pg_largeobject_metadata ORDER BY oid
"""
INDEX_THAT_CANNOT_BE_MADE_AGAIN = """
    SET edna.here = 1;
    CREATE FUNCTION beside(n int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT n + current_setting(''edna.here'')::int';
    CREATE TABLE counted AS SELECT 1 AS n; CREATE INDEX ON counted (beside(n))
"""
"""Its function asks for what the session has that makes it, and that of a restore has not."""


@FORMATS
def test_what_fails_behind_the_large_objects_of_a_dump_is_rolled_back_as_well(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    postgres.psql(database.database, INDEX_THAT_CANNOT_BE_MADE_AGAIN)
    made = runner.backup(formed(database, form))
    postgres.psql(
        database.database,
        "DROP TABLE counted; DROP FUNCTION beside; SELECT lo_unlink(4242); SELECT lo_create(17)",
    )
    before = postgres.psql(database.database, TABLES_AND_LARGE_OBJECTS)
    with pytest.raises(RestoreFailed, match=r"edna.here.*as it was") as failed:
        runner.restore(made, database)
    assert failed.value.reason == "RestoreRolledBack"
    assert postgres.psql(database.database, TABLES_AND_LARGE_OBJECTS) == before


def test_a_role_that_is_no_owner_of_the_target_leaves_it_as_it_was(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    postgres.psql(database.database, "CREATE TABLE aside ()")
    made = runner.backup(database.model_copy(update={"exclude_tables": ("aside",)}))
    before = postgres.psql(database.database, FINGERPRINT)
    with pytest.raises(RestoreRefused, match="may not give them away") as refused:
        runner.restore(made, role(postgres, database))
    assert refused.value.reason == "RolesNotGranted"
    assert postgres.psql(database.database, FINGERPRINT) == before


@FORMATS
def test_sessions_that_hold_the_database_open_make_the_restore_wait_and_give_up(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avalanche_backup.sources.postgresql import clearing

    monkeypatch.setattr(clearing, "CLEAR", clearing.CLEAR.replace("'60s'", "'300ms'"))
    made = runner.backup(formed(database, form))
    before = postgres.psql(database.database, FINGERPRINT)
    with Session(postgres, database.database) as session:
        session.run("BEGIN; SELECT count(*) FROM samples")
        assert any("sessions of avalanche" in each for each in runner.plan(made, database).targets[0].used_by)
        with pytest.raises(RestoreFailed, match="close the sessions"):
            runner.restore(made, database)
    assert postgres.psql(database.database, FINGERPRINT) == before


@FORMATS
def test_a_disk_that_is_full_at_the_server_leaves_the_database_as_it_was(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, form: str
) -> None:
    with tablespace(postgres, database.database) as disk:
        postgres.psql(database.database, "ALTER TABLE samples SET TABLESPACE small")
        made = runner.backup(formed(database, form))
        before = postgres.psql(database.database, FINGERPRINT)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free // 65536 * 65536))
        with pytest.raises(RestoreFailed, match=r"disk is full.*as it was"):
            runner.restore(made, database)
        assert postgres.psql(database.database, FINGERPRINT) == before


@contextmanager
def tablespace(postgres: Postgres, name: str) -> Iterator[Path]:
    """Give the disk of a small tablespace; the database that uses it goes with it."""
    with tempfile.TemporaryDirectory() as folder, small(Path(folder) / "space", "4m") as space:
        Path(folder).chmod(0o711)
        owner = postgres.data.stat()
        os.chown(space, owner.st_uid, owner.st_gid)
        space.chmod(0o700)
        postgres.psql("postgres", f"CREATE TABLESPACE small LOCATION '{space}'")
        try:
            yield space
        finally:
            postgres.psql("postgres", f'DROP DATABASE "{name}" WITH (FORCE)')
            postgres.psql("postgres", "CHECKPOINT; DROP TABLESPACE small")


def test_a_missing_extension_is_refused_before_anything_is_touched(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner.backup(database)
    without = ABILITIES.replace(
        "FROM pg_available_extensions", "FROM pg_available_extensions WHERE name <> 'pgcrypto'"
    )
    monkeypatch.setattr("avalanche_backup.sources.postgresql.source.ABILITIES", without)
    with pytest.raises(RestoreRefused, match="pgcrypto") as refused:
        runner.plan(made, database)
    assert refused.value.reason == "ExtensionsMissing"


def test_a_target_that_is_read_only_is_refused(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    made = runner.backup(database)
    postgres.psql("postgres", f'ALTER DATABASE "{database.database}" SET default_transaction_read_only = on')
    with pytest.raises(RestoreRefused) as refused:
        runner.plan(made, database)
    assert refused.value.reason == "TargetReadOnly"


# --- several jobs ----------------------------------------------------------------------------------------
def by_jobs(source: PostgresqlSource) -> PostgresqlSource:
    return source.model_copy(update={"jobs": 3})


def test_the_plan_of_a_restore_by_several_jobs_says_that_it_is_no_transaction(
    runner: Runner, database: PostgresqlSource
) -> None:
    made = runner.backup(formed(database, "Directory"))
    alone, together = runner.plan(made, database), runner.plan(made, by_jobs(database))
    assert "in one transaction" in alone.targets[0].action
    assert "by 3 jobs and NOT in one transaction" in together.targets[0].action
    with pytest.raises(RestoreRefused) as refused:  # the approval of one is none of the other
        runner.execute(made, by_jobs(database), alone.digest)
    assert refused.value.reason == "PlanChanged"


def test_several_jobs_bring_a_database_back_and_leave_no_mark(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    before = postgres.psql(database.database, FINGERPRINT)
    made = runner.backup(formed(database, "Directory"))
    postgres.psql(database.database, "DROP TABLE samples CASCADE; CREATE TABLE rubbish ()")
    runner.restore(made, by_jobs(database))
    assert postgres.psql(database.database, FINGERPRINT) == before
    assert postgres.psql(database.database, f"SELECT to_regnamespace('{MARKER}')") == ""
    assert runner.backup(database).verdict == "Succeeded"


def test_several_jobs_that_fail_leave_a_marked_database_that_is_not_backed_up_until_it_is_whole(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    before = postgres.psql(database.database, FINGERPRINT)
    whole = runner.backup(formed(database, "Directory"))
    postgres.psql(database.database, INDEX_THAT_CANNOT_BE_MADE_AGAIN)
    made = runner.backup(formed(database, "Directory"))
    with pytest.raises(RestoreFailed, match="NOT whole") as failed:
        runner.restore(made, by_jobs(database))
    assert failed.value.reason == "RestoreIncomplete"
    with pytest.raises(SourceInvalid) as refused:
        runner.backup(database)
    assert refused.value.reason == "RestoreIncomplete"
    assert "did not end" in runner.plan(whole, database).targets[0].found
    runner.restore(whole, database)
    assert postgres.psql(database.database, FINGERPRINT) == before
    assert runner.backup(database).verdict == "Succeeded"


def test_several_jobs_that_cannot_begin_leave_the_database_as_it_was(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from avalanche_backup.sources.postgresql import clearing

    monkeypatch.setattr(clearing, "CLEAR", clearing.CLEAR.replace("'60s'", "'300ms'"))
    made = runner.backup(formed(database, "Directory"))
    before = postgres.psql(database.database, FINGERPRINT)
    with Session(postgres, database.database) as session:
        session.run("BEGIN; SELECT count(*) FROM samples")
        with pytest.raises(RestoreFailed, match="as it was"):
            runner.restore(made, by_jobs(database))
    assert postgres.psql(database.database, FINGERPRINT) == before


def test_a_damaged_directory_touches_nothing(
    runner: Runner, postgres: Postgres, database: PostgresqlSource, tmp_path: Path
) -> None:
    made = runner.backup(formed(database, "Directory"))
    path = tmp_path / "volume" / PREFIX / "database" / f"{made.backup_id}.tar.gz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    before = postgres.psql(database.database, FINGERPRINT)
    with pytest.raises(Failure, match="The target is untouched"):
        runner.restore(made, by_jobs(database))
    assert postgres.psql(database.database, FINGERPRINT) == before


# --- several databases -----------------------------------------------------------------------------------
def test_several_databases_are_one_backup_and_come_back_one_by_one(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    postgres.psql("postgres", f'CREATE DATABASE "second {database.database}"')
    second = source_of(postgres, f"second {database.database}").model_copy(
        update={"name": "second", "format": "Custom", "include_globals": True}
    )
    postgres.psql(second.database, "CREATE TABLE t AS SELECT 1 AS n")
    made = runner.backup(database, second)
    metadata = runner.metadata(made)
    assert [(each.source, each.role, each.file) for each in metadata.artifacts] == [
        ("database", "data", f"{made.backup_id}_database.sql.gz"),
        ("second", "data", f"{made.backup_id}_second.dump.gz"),
        ("second", "globals", f"{made.backup_id}_second_globals.sql.gz"),
    ]
    assert runner.verify(made).reason == "Verified"
    for name in (database.database, second.database):
        postgres.psql(name, "CREATE TABLE only_here ()")
    runner.restore(made, second)
    assert postgres.psql(second.database, "SELECT to_regclass('only_here'), (SELECT n FROM t)") == "|1"
    assert postgres.psql(database.database, "SELECT to_regclass('only_here')") == "only_here"


def test_a_database_that_fails_leaves_no_backup_of_the_others(
    runner: Runner, postgres: Postgres, database: PostgresqlSource
) -> None:
    missing = source_of(postgres, "nowhere").model_copy(update={"name": "second"})
    with pytest.raises(SourceInvalid):
        runner.backup(database, missing)
    assert [key for key in runner.stored() if "/database/" in key] == []


def test_an_archive_is_not_read_on_when_pg_restore_has_failed(
    database: PostgresqlSource, tmp_path: Path
) -> None:
    read = 0

    def chunks() -> Iterator[bytes]:
        nonlocal read
        for read in range(20_000):  # noqa: B007 - how far it came
            yield bytes(65536)

    with pytest.raises(RestoreFailed, match="pg_restore stopped"):
        PostgresqlDatabase(database, tmp_path).restore(
            Incoming(chunks(), {"format": "Custom"}, tmp_path, lambda _: None)
        )
    assert read < 10_000
