"""A part of a PostgreSQL database: chosen schemas, tables that are left out, and what extensions and others own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from avalanche_backup.errors import RestoreFailed, RestoreRefused, SourceInvalid
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql import PostgresqlDatabase
from avalanche_contract.source import PostgresqlSource
from tests.integration import servers
from tests.integration.conftest import source_of
from tests.integration.runs import Runner
from tests.integration.servers import PASSWORD, Postgres

_NUMBERS = itertools.count(1)
APP = """CREATE SCHEMA app; CREATE TABLE app.s (id serial PRIMARY KEY, note text); INSERT INTO app.s (note) VALUES ('one'), ('two');
CREATE TABLE public.other (n int); INSERT INTO public.other VALUES (7); CREATE TABLE public.another (n int); SELECT lo_create(99);"""
BIG = """CREATE TABLE t (n int); INSERT INTO t VALUES (1);
CREATE TABLE big (id serial PRIMARY KEY, n int); INSERT INTO big (n) SELECT generate_series(1, 1000);
CREATE STATISTICS big_stats ON id, n FROM big; CREATE INDEX ON big (n);"""
WAYS = pytest.mark.parametrize("way", [("Plain", 1), ("Custom", 1), ("Directory", 1), ("Directory", 2)])
"""How a part is stored, and by how many jobs it comes back."""
New = Callable[..., PostgresqlSource]


@pytest.fixture
def new(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> New:
    """Give a maker of databases: their SQL, their owner, and more for the source."""
    monkeypatch.setenv("DATABASE_PASSWORD", servers.PASSWORD)

    def make(sql: str = "SELECT 1", owner: str = "avalanche", **more: Any) -> PostgresqlSource:
        name = f"part {next(_NUMBERS)}"
        postgres.psql("postgres", f'CREATE DATABASE "{name}" OWNER "{owner}"')
        postgres.psql(name, sql)
        return source_of(postgres, name).model_copy(update=more)

    return make


@pytest.fixture
def owner(postgres: Postgres) -> str:
    """Give a role that is no superuser."""
    name = f"owner {next(_NUMBERS)}"
    postgres.psql("postgres", f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
    return name


# --- schemas -------------------------------------------------------------------------------------------
def test_a_schema_comes_back_in_place_and_the_others_stay(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(APP, schemas=("app",))
    made = runner.backup(source)
    postgres.psql(
        source.database,
        "UPDATE app.s SET note = 'wrong'; CREATE TABLE app.rubbish (); UPDATE public.other SET n = 8",
    )
    plan = runner.plan(made, source)
    assert plan.targets[0].action.startswith("everything in the schemas app is dropped")
    runner.execute(made, source, plan.digest)
    assert postgres.psql(source.database, "SELECT string_agg(note, ',' ORDER BY id) FROM app.s") == "one,two"
    assert postgres.psql(source.database, "SELECT to_regclass('app.rubbish') IS NULL, n FROM other") == "t|8"
    assert runner.metadata(made).artifacts[0].statistics["tables"] == 1
    assert runner.metadata(made).artifacts[0].statistics["large_objects"] == 0


@pytest.mark.parametrize("form", ["Plain", "Custom"])
@pytest.mark.parametrize("schema", ["app", "public"])
def test_a_schema_comes_back_into_an_empty_database(
    runner: Runner, postgres: Postgres, new: New, schema: str, form: str
) -> None:
    source = new(
        APP.replace("app", schema).replace("CREATE SCHEMA public;", ""), schemas=(schema,), format=form
    )
    made, target = runner.backup(source), new()
    plan = runner.plan(made, target)
    assert plan.targets[0].state == "Empty" and not plan.needs_approval
    runner.execute(made, target, None)
    notes = f"SELECT string_agg(note, ',' ORDER BY id), nextval('{schema}.s_id_seq') FROM {schema}.s"
    assert postgres.psql(target.database, notes) == "one,two|3"


def test_the_schema_public_comes_back_in_place(runner: Runner, postgres: Postgres, new: New) -> None:
    source = new(APP, schemas=("public",))
    made = runner.backup(source)
    postgres.psql(source.database, "DELETE FROM other; UPDATE app.s SET note = 'later'")
    runner.restore(made, source)
    assert postgres.psql(source.database, "SELECT n FROM other") == "7"
    assert postgres.psql(source.database, "SELECT DISTINCT note FROM app.s") == "later"


@pytest.mark.parametrize("name", ["App", "app_*", 'od"d.name', "a$avalanche$b", "Süd"])
def test_a_schema_is_meant_by_its_exact_name(runner: Runner, postgres: Postgres, new: New, name: str) -> None:
    quoted = name.replace('"', '""')
    source = new(
        f'CREATE SCHEMA "{quoted}"; CREATE TABLE "{quoted}".t (n int); INSERT INTO "{quoted}".t VALUES (5);'
        "CREATE SCHEMA app_a; CREATE TABLE app_a.t (n int)",
        schemas=(name,),
    )
    made = runner.backup(source)
    postgres.psql(source.database, f'UPDATE "{quoted}".t SET n = 6; INSERT INTO app_a.t VALUES (9)')
    runner.restore(made, source)
    assert postgres.psql(source.database, f'SELECT (SELECT n FROM "{quoted}".t), n FROM app_a.t') == "5|9"


@pytest.mark.parametrize(("schemas", "reason"), [
    (("app", "App"), "SchemaMissing"), (("app_*",), "SchemaMissing"), (("nothing",), "SourceEmpty"),
])  # fmt: skip
def test_a_schema_that_is_not_there_or_empty_is_named(
    runner: Runner, new: New, schemas: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(SourceInvalid, match=schemas[-1].replace("*", r"\*")) as raised:
        runner.backup(new(f"{APP} CREATE SCHEMA nothing", schemas=schemas))
    assert raised.value.reason == reason


@pytest.mark.parametrize("dependent", [
    "CREATE VIEW rep.v AS SELECT * FROM app.s",
    "CREATE TABLE rep.v (id int REFERENCES app.s)",
    "CREATE TYPE app.mood AS ENUM ('good'); CREATE TABLE rep.v (m app.mood)",
    "CREATE FUNCTION app.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TABLE rep.v (n int DEFAULT app.f())",
    "CREATE FUNCTION rep.v(app.s) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TABLE rep.v () INHERITS (app.s)",
    "CREATE PUBLICATION v FOR TABLE app.s",
    "CREATE PUBLICATION v FOR TABLES IN SCHEMA app",
])  # fmt: skip
def test_what_depends_on_a_schema_from_outside_is_named_and_never_lost(
    runner: Runner, postgres: Postgres, new: New, dependent: str
) -> None:
    source = new(f"{APP} CREATE SCHEMA rep", schemas=("app",))
    made = runner.backup(source)
    digest = runner.plan(made, source).digest
    postgres.psql(source.database, f"{dependent}; UPDATE app.s SET note = 'now'")
    with pytest.raises(RestoreRefused, match=r"lost: .*\bv\b.* depends on .*app") as refused:
        runner.execute(made, source, digest)
    assert refused.value.reason == "OthersDepend"
    with pytest.raises(RestoreFailed, match=r"lost: .*\bv\b.* depends on .*app.*as it was"):
        _restore_at_once(runner, source, {"schemas": ["app"]})
    assert postgres.psql(source.database, "SELECT DISTINCT note FROM app.s") == "now"


def test_what_a_schema_itself_needs_of_others_does_not_stand_in_the_way(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(
        "CREATE TABLE public.taxon (id int PRIMARY KEY); INSERT INTO taxon VALUES (1); CREATE SCHEMA app;"
        "CREATE TABLE app.s (id int REFERENCES taxon); INSERT INTO app.s VALUES (1)",
        schemas=("app",),
    )
    made = runner.backup(source)
    postgres.psql(source.database, "DELETE FROM app.s")
    runner.restore(made, source)
    assert postgres.psql(source.database, "SELECT count(*) FROM app.s JOIN taxon USING (id)") == "1"
    assert any("constraint" in each and "public.taxon" in each for each in runner.metadata(made).warnings)


# --- tables that are left out --------------------------------------------------------------------------
@WAYS
def test_a_table_that_is_left_out_stays_as_it_is_in_place(
    runner: Runner, postgres: Postgres, new: New, way: tuple[str, int]
) -> None:
    source = new(BIG, exclude_tables=("big",), format=way[0])
    made = runner.backup(source)
    postgres.psql(source.database, "INSERT INTO big (n) VALUES (-1); DELETE FROM t; CREATE TABLE rubbish ()")
    kept = "SELECT count(*), sum(n), max(id), nextval('big_id_seq') FROM big"
    kept += "; SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'big'::regclass ORDER BY 1"
    kept += "; SELECT stxname FROM pg_statistic_ext; SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef"
    before = postgres.psql(source.database, kept)
    target = source.model_copy(update={"jobs": way[1]})
    plan = runner.plan(made, target)
    assert "left as they are: public.big, public.big_id_seq" in plan.targets[0].action
    runner.execute(made, target, plan.digest)
    assert postgres.psql(source.database, "SELECT n, to_regclass('rubbish') IS NULL FROM t") == "1|t"
    assert postgres.psql(source.database, kept) == before.replace("|1002", "|1003", 1)


def test_a_backup_without_some_tables_comes_back_into_an_empty_database(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    made, target = runner.backup(new(BIG, exclude_tables=("big",))), new()
    assert "1 tables are back" in runner.restore(made, target).message
    assert postgres.psql(target.database, "SELECT n, to_regclass('big') IS NULL FROM t") == "1|t"


def test_what_was_left_out_is_recorded_and_a_pattern_without_a_table_is_told(
    runner: Runner, new: New
) -> None:
    sql = (
        'CREATE TABLE t (n int); CREATE SCHEMA log; CREATE TABLE log.log_1 (n int); CREATE TABLE log."Log 2" (n int);'
        "CREATE TABLE parted (n int) PARTITION BY LIST (n); CREATE TABLE part_1 PARTITION OF parted FOR VALUES IN (1)"
    )
    metadata = runner.metadata(runner.backup(new(sql, exclude_tables=("log.*", "PARTED", "biig"))))
    assert metadata.artifacts[0].recreate["excluded_tables"] == [
        'log."Log 2"', "log.log_1", "public.part_1", "public.parted",
    ]  # fmt: skip
    assert metadata.artifacts[0].statistics["tables"] == 1
    assert metadata.warnings == ["excludeTables: biig matches no table"]


@pytest.mark.parametrize("tie", [
    "ALTER TABLE big ADD FOREIGN KEY (n) REFERENCES t (n)",
    "CREATE TYPE mood AS ENUM ('good'); ALTER TABLE big ADD COLUMN m mood",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
    "CREATE TRIGGER touched BEFORE UPDATE ON big FOR EACH ROW EXECUTE FUNCTION f()",
    "CREATE PUBLICATION p FOR TABLE big",
])  # fmt: skip
def test_a_table_that_is_left_out_and_would_be_changed_is_named_before_anything_is_touched(
    runner: Runner, postgres: Postgres, new: New, tie: str
) -> None:
    source = new(f"{BIG} ALTER TABLE t ADD UNIQUE (n); UPDATE big SET n = 1; {tie}", exclude_tables=("big",))
    made = runner.backup(source)
    with pytest.raises(RestoreRefused, match="big") as refused:
        runner.plan(made, source)
    assert refused.value.reason == "OthersDepend"
    with pytest.raises(RestoreFailed, match="big"):
        _restore_at_once(runner, source, runner.metadata(made).artifacts[0].recreate)
    assert postgres.psql(source.database, "SELECT count(*) FROM big") == "1000"


def test_a_view_on_a_table_that_is_left_out_is_warned_of_and_comes_back_onto_it(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(f"{BIG} CREATE VIEW seen AS SELECT n FROM big WHERE n < 3", exclude_tables=("big",))
    made = runner.backup(source)
    assert any(
        "view public.seen depends on table public.big" in each for each in runner.metadata(made).warnings
    )
    runner.restore(made, source)
    assert postgres.psql(source.database, "SELECT sum(n) FROM seen") == "3"


@pytest.mark.parametrize(
    "pattern",
    ["big", "BIG", '"Big"', "app.*", "b?g", "(big|t)", "*.t_[0-9]", '"a.p"."t*"', "t$", "public.b*"],
)
def test_patterns_mean_what_they_mean_to_pg_dump(
    runner: Runner, postgres: Postgres, new: New, pattern: str
) -> None:
    names = ['"Big"', "big", "bug", "t", "t_1", '"t$"', "app.t", "app.t_2", '"a.p"."t*"', '"a.p".tt']
    sql = 'CREATE SCHEMA app; CREATE SCHEMA "a.p";' + ";".join(
        f"CREATE TABLE {each} (n int)" for each in names
    )
    source = new(sql, exclude_tables=(pattern,))
    made = runner.backup(source)
    excluded = set(runner.metadata(made).artifacts[0].recreate["excluded_tables"])
    assert excluded == set(_tables(postgres, source)) - set(
        _tables(postgres, source, f"--exclude-table={pattern}")
    )


@pytest.mark.parametrize("pattern", ["a.b.c", 'app."t', "app.", "t(", ""])
def test_a_pattern_that_is_none_is_named(runner: Runner, new: New, pattern: str) -> None:
    with pytest.raises(SourceInvalid) as raised:
        runner.backup(new(APP, exclude_tables=(pattern,)))
    assert raised.value.reason == "PatternInvalid"


# --- extensions ----------------------------------------------------------------------------------------
@WAYS
def test_an_owner_restores_in_place_beside_extensions_of_a_superuser(
    runner: Runner, postgres: Postgres, new: New, owner: str, way: tuple[str, int]
) -> None:
    source = new(
        "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pgcrypto; CREATE SCHEMA e; CREATE EXTENSION dblink SCHEMA e;"
        f'ALTER SCHEMA e OWNER TO "{owner}"; SET ROLE "{owner}"; CREATE TABLE t (n int, u uuid DEFAULT gen_random_uuid());'
        "CREATE TABLE e.own (n int); INSERT INTO t VALUES (1); INSERT INTO e.own VALUES (2)",
        owner=owner, username=owner, format=way[0],
    )  # fmt: skip
    made = runner.backup(source)
    postgres.psql(source.database, "DELETE FROM t; DELETE FROM e.own; CREATE TABLE e.rubbish ()")
    postgres.psql(source.database, f'ALTER TABLE e.rubbish OWNER TO "{owner}"')
    extensions = "SELECT extname, extowner, oid FROM pg_extension ORDER BY 1"
    before = postgres.psql(source.database, extensions)
    runner.restore(made, source.model_copy(update={"jobs": way[1]}))
    assert (
        postgres.psql(source.database, "SELECT t.n, own.n, to_regclass('e.rubbish') IS NULL FROM t, e.own")
        == "1|2|t"
    )
    assert postgres.psql(source.database, extensions) == before


def test_an_extension_that_others_use_outlives_a_restore_of_its_schema(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(
        "CREATE EXTENSION citext; CREATE SCHEMA app; CREATE TABLE app.t (c citext, d citext[]); INSERT INTO app.t VALUES ('a');"
        "CREATE TABLE p (n int); INSERT INTO p VALUES (1)",
        schemas=("public",),
    )
    made = runner.backup(source)
    postgres.psql(source.database, "DELETE FROM p")
    runner.restore(made, source)
    assert postgres.psql(source.database, "SELECT n, c = 'A' FROM p, app.t") == "1|t"


def test_rows_that_an_extension_lets_be_dumped_come_back_once(
    runner: Runner, postgres: Postgres, new: New
) -> None:
    source = new(
        "CREATE TABLE settings (n int PRIMARY KEY); INSERT INTO settings VALUES (1), (500); CREATE EXTENSION pgcrypto;"
        "ALTER EXTENSION pgcrypto ADD TABLE settings; CREATE TABLE t (n int);"
        "UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = ARRAY['WHERE n > 99']"
        "WHERE extname = 'pgcrypto'"
    )
    made = runner.backup(source)
    postgres.psql(source.database, "INSERT INTO settings VALUES (501)")
    runner.restore(made, source)
    assert postgres.psql(source.database, "SELECT string_agg(n::text, ',') FROM settings") == "1,500"


def _restore_at_once(runner: Runner, source: PostgresqlSource, recreate: dict[str, Any]) -> None:
    """Restore without a plan before, as where something came in between."""
    runner.scratch.mkdir(exist_ok=True)
    PostgresqlDatabase(source, runner.scratch).restore(
        Incoming(
            iter([b"SELECT 1;\n"]), {"format": "Plain", "recreate": recreate}, runner.scratch, lambda _: None
        )
    )


def _tables(postgres: Postgres, source: PostgresqlSource, *options: str) -> list[str]:
    """Give the tables that pg_dump itself chooses."""
    import os
    import re
    import subprocess

    dumped = subprocess.run(
        [postgres.binaries / "pg_dump", "--schema-only", f"--host={source.host}", f"--port={source.port}", "--username=avalanche",
         *options, source.database],
        env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return re.findall(r"^CREATE TABLE (.*) \($", dumped, re.MULTILINE)
