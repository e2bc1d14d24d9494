"""Dumps as an attacker writes them: no command runs, neither by psql nor on the server, and the database is as it was (§5.44, §5.45)."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from avalanche_backup.cli.output import plan_text
from avalanche_backup.errors import RestoreFailed, SourceInvalid
from avalanche_backup.sources.base import Incoming
from avalanche_backup.sources.postgresql import PostgresqlDatabase
from avalanche_backup.sources.postgresql.swap import PostgresqlSwap
from avalanche_contract.names import switch_id
from avalanche_contract.source import PostgresqlSource
from tests.integration.conftest import source_of
from tests.integration.runs import Runner
from tests.integration.servers import PASSWORD, Postgres
from tests.integration.test_swaps import names

_NUMBERS = itertools.count(1)
ODD = 'it\'s "odd" -- ;\n\\! touch odd\n🧬 $x$ :HOST %I'
"""A name with quotes, spaces, a comment, line ends, a command of psql, an emoji and a variable."""
WORDS = ("first", "second")


@dataclass(frozen=True)
class Victim:
    """A database that a restore goes into, and a folder in which nothing may appear."""

    source: PostgresqlSource
    canary: Path
    server: Postgres

    def rows(self) -> str:
        """Give what the database holds."""
        return self.server.psql(self.source.database, "SELECT string_agg(word, ' ' ORDER BY word) FROM words")


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", PASSWORD)


def make_victim(postgres: Postgres, canary: Path) -> Victim:
    name = f"victim {next(_NUMBERS)}"
    postgres.psql("postgres", f'CREATE DATABASE "{name}"')
    postgres.psql(name, f"CREATE TABLE words AS SELECT unnest(ARRAY['{WORDS[0]}', '{WORDS[1]}']) AS word")
    return Victim(source_of(postgres, name), canary, postgres)


@pytest.fixture
def victim(postgres: Postgres, tmp_path: Path) -> Victim:
    return make_victim(postgres, tmp_path / "canary")


@pytest.fixture(scope="module")
def untouched(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    """Give one for many tests: none of them may change it."""
    return make_victim(postgres, tmp_path_factory.mktemp("untouched") / "canary")


def restore(victim: Victim, dump: bytes, form: str, scratch: Path) -> None:
    """Restore bytes that no backup of ours wrote; their checksums were right."""
    scratch.mkdir(exist_ok=True)
    PostgresqlDatabase(victim.source, scratch).restore(
        Incoming(iter([dump]), {"format": form}, scratch, lambda _: None)
    )


# --- commands of psql --------------------------------------------------------------------------------------
COMMANDS = {
    "a shell": r"\! touch {canary}",
    "a shell in backquotes": r"\set x `touch {canary}`",
    "a copy by a program": r"\copy words from program 'touch {canary}; echo x'",
    "a copy to a program": r"\copy words to program 'cat > {canary}'",
    "a copy to a file": r"\copy words to '{canary}'",
    "output to a program": "\\o |cat > {canary}\nSELECT 1;",
    "a result to a program": r"SELECT 1 \g |cat > {canary}",
    "the query to a program": r"SELECT 1 \w |cat > {canary}",
    "statements that a query made": r"SELECT 'DROP TABLE words' \gexec",
    "variables that a query made": r"SELECT 1 AS ON_ERROR_STOP \gset",
    "another file": r"\i /etc/passwd",
    "another database": r"\connect postgres",
    "another environment": r"\setenv PAGER 'touch {canary}'",
    "a large object from a file": r"\lo_import /etc/passwd",
    "an editor": r"\e {canary}",
    "errors that do not stop": r"\set ON_ERROR_STOP 0",
    "a condition": "\\if true\n\\! touch {canary}\n\\endif",
    "an end of the restriction that is guessed": "\\unrestrict 0123456789abcdef\n\\! touch {canary}",
    "an end of the restriction by a variable": "\\unrestrict :key\n\\! touch {canary}",
    "a restriction of its own": "\\restrict mine\n\\unrestrict mine\n\\! touch {canary}",
    "the end of the input": "\\q\n\\! touch {canary}",
}
PLACES = {
    "at the head": "{command}\nCREATE TABLE hostile (n int);\n" + "-- filler\n" * 2000,
    "as pg_dump's own head": "--\n-- PostgreSQL database dump\n--\n\n\\restrict mine\n\n{command}\n" + "-- filler\n" * 2000,
    "after the rows of a table": "CREATE TABLE hostile (n text);\nCOPY hostile FROM stdin;\nx\n\\.\n{command}\n" + "-- filler\n" * 2000,
    "at the end": "CREATE TABLE hostile (n int);\n" + "-- filler\n" * 2000 + "\\unrestrict mine\n{command}\n",
}  # fmt: skip


CASES = [(command, "after the rows of a table") for command in COMMANDS] + [
    (command, place)
    for command in ("a shell", "a restriction of its own", "the end of the input")
    for place in PLACES
    if place != "after the rows of a table"
]


@pytest.mark.parametrize(("command", "place"), CASES)
def test_no_command_of_psql_in_a_dump_is_run(
    untouched: Victim, tmp_path: Path, command: str, place: str
) -> None:
    victim = untouched
    dump = PLACES[place].format(command=COMMANDS[command].format(canary=victim.canary))
    with pytest.raises(RestoreFailed, match="as it was") as failed:
        restore(victim, dump.encode(), "Plain", tmp_path / "scratch")
    assert failed.value.reason == "RestoreRolledBack"
    assert not victim.canary.exists() and victim.rows() == " ".join(WORDS)


# --- archives of pg_restore --------------------------------------------------------------------------------
ROOM = 600


@pytest.fixture(scope="module")
def archive(untouched: Victim) -> Callable[[str, str], bytes]:
    """Give a maker of a Custom archive in which one text stands where another one stood: the lengths before it stay right."""
    fillers = {"definition": "d" * ROOM, "rows": "r" * ROOM, "comment": "c" * ROOM}
    name = f"model {next(_NUMBERS)}"
    server, owner = untouched.server, f"{'o' * 56}{next(_NUMBERS):07}"
    server.psql("postgres", f'CREATE DATABASE "{name}"; CREATE ROLE {owner}')
    server.psql(
        name,
        f"CREATE TABLE hostile (n text); INSERT INTO hostile VALUES ('{fillers['rows']}'); COMMENT ON TABLE hostile IS '{fillers['comment']}';"
        f"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 -- {fillers['definition']}\n $$; CREATE TABLE {'t' * 63} ();"
        f"ALTER TABLE {'t' * 63} OWNER TO {owner}",
    )  # fmt: skip
    made = subprocess.run(
        [server.binaries / "pg_dump", "-Fc", "--compress=0", "-h", "127.0.0.1", "-p", str(server.port), "-U", "avalanche", name],
        env={"PGPASSWORD": PASSWORD}, capture_output=True, check=True,
    ).stdout  # fmt: skip

    def make(where: str, payload: str) -> bytes:
        if where in ("tag", "owner"):
            filler = b"t" * 63 if where == "tag" else b"o" * 56
        else:
            filler = fillers[where].encode()
        assert filler in made and len(payload) <= len(filler), payload
        return made.replace(filler, payload.encode().ljust(len(filler)))

    return make


BREAKING_OUT = {
    "a definition that ends its text": ("definition", "\n $$;\n\\! touch {canary}\nSELECT $$"),
    "a definition that opens the restriction": ("definition", "\n $$;\n\\unrestrict x\n\\! touch {canary}\nSELECT $$"),
    "rows that end before their end": ("rows", "x\n\\.\n\\! touch {canary}\nCOPY public.hostile FROM stdin;\n"),
    "rows that end, and a copy by psql": ("rows", "x\n\\.\n\\copy public.hostile to program 'cat > {canary}'\nCOPY public.hostile FROM stdin;\n"),
    "a comment that ends its text": ("comment", "';\n\\! touch {canary}\nSELECT '"),
}  # fmt: skip


@pytest.mark.parametrize("case", BREAKING_OUT)
def test_no_command_of_psql_in_an_archive_is_run(
    untouched: Victim, tmp_path: Path, archive: Callable[[str, str], bytes], case: str
) -> None:
    victim, (where, payload) = untouched, BREAKING_OUT[case]
    with pytest.raises(RestoreFailed, match="as it was"):
        restore(victim, archive(where, payload.format(canary=victim.canary)), "Custom", tmp_path / "scratch")
    assert not victim.canary.exists() and victim.rows() == " ".join(WORDS)


@pytest.mark.parametrize("where", ["tag", "owner"])
def test_a_line_end_in_the_contents_of_an_archive_opens_no_line_of_its_own(
    victim: Victim, tmp_path: Path, archive: Callable[[str, str], bytes], where: str
) -> None:
    """pg_restore writes the names of entries into comments (CVE-2025-8715); whether the rest can be run or not, no command is."""
    link = Path("/tmp") / f"canary-{os.getpid()}"
    hostile = archive(where, f"\n\\! touch {link}\n--")
    try:
        restore(victim, hostile, "Custom", tmp_path / "scratch")
    except RestoreFailed:
        assert victim.rows() == " ".join(WORDS)
    assert not link.exists()


def test_an_archive_whose_bytes_are_anything_runs_nothing_and_leaves_the_database(
    victim: Victim, tmp_path: Path, archive: Callable[[str, str], bytes]
) -> None:
    whole = archive("definition", "x")
    head = whole.index(b"CREATE FUNCTION")
    for at in range(5, head, max(1, head // 40)):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        with suppress(RestoreFailed):
            restore(victim, bytes(damaged), "Custom", tmp_path / "scratch")
            # A byte that means little, a time or a position: the archive was restored, and the words went.
            victim.server.psql(
                victim.source.database,
                "CREATE TABLE words AS SELECT unnest(ARRAY['first', 'second']) AS word",
            )
        assert victim.rows() == " ".join(WORDS)


# --- programs on the server --------------------------------------------------------------------------------
PROGRAMS = {
    "a program": "COPY (SELECT 1) TO PROGRAM 'cat > {canary}';",
    "a program in a function": "CREATE TABLE x (n text); DO $$ BEGIN EXECUTE 'COPY x FROM PROGRAM ''touch {canary}'''; END $$;",
    "a file": "COPY (SELECT 1) TO '{canary}';",
    "a large object into a file": "SELECT lo_create(7); SELECT lo_export(7, '{canary}');",
    "a function of the C library": "CREATE FUNCTION system(cstring) RETURNS int AS '/lib/x86_64-linux-gnu/libc.so.6', 'system' LANGUAGE c STRICT;",
    "a language that is not trusted": "CREATE EXTENSION plperlu; CREATE EXTENSION plpython3u;",
    "a setting of the server": "ALTER SYSTEM SET archive_command = 'touch {canary}';",
}


def as_owner(victim: Victim, *more: str) -> Victim:
    """Give the same, as its owner, who is no superuser."""
    name = f"owner {next(_NUMBERS)}"
    victim.server.psql("postgres", f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{PASSWORD}'")
    for each in more:
        victim.server.psql("postgres", f'GRANT {each} TO "{name}"')
    victim.server.psql("postgres", f'ALTER DATABASE "{victim.source.database}" OWNER TO "{name}"')
    victim.server.psql(victim.source.database, f'ALTER TABLE words OWNER TO "{name}"')
    return Victim(victim.source.model_copy(update={"username": name}), victim.canary, victim.server)


@pytest.fixture
def writable(victim: Victim) -> Iterator[Victim]:
    """Give a canary where the server could write."""
    folder = victim.server.data.parent
    canary = folder / f"canary-{next(_NUMBERS)}"
    yield Victim(victim.source, canary, victim.server)
    canary.unlink(missing_ok=True)


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_dump_that_the_owner_restores_runs_no_program_on_the_server_and_reaches_no_file(
    writable: Victim, tmp_path: Path, case: str
) -> None:
    owner = as_owner(writable)
    with pytest.raises(
        RestoreFailed, match=r"(?i)permission denied|must be superuser|not available|cannot run inside"
    ):
        restore(owner, (PROGRAMS[case].format(canary=owner.canary) + "\n").encode(), "Plain", tmp_path / "s")
    assert not owner.canary.exists() and owner.rows() == " ".join(WORDS)


def test_a_superusers_dump_runs_a_program_and_so_the_plan_warns_of_it(
    runner: Runner, writable: Victim, tmp_path: Path
) -> None:
    """What the warning is about: it is PostgreSQL's own right of a superuser, and nothing here can take it away."""
    made = runner.backup(writable.source)
    plan = runner.plan(made, writable.source)
    told = plan.targets[0].warnings[0]
    assert "avalanche is a superuser" in told and "Restore as the owner" in told
    assert f"Warning: {told}" in plan_text(plan)
    restore(writable, PROGRAMS["a program"].format(canary=writable.canary).encode(), "Plain", tmp_path / "s")
    assert writable.canary.exists()


@pytest.mark.parametrize("right", ["pg_execute_server_program", "pg_write_server_files"])
def test_a_role_that_may_run_programs_or_reach_files_without_being_a_superuser_is_warned_of_too(
    runner: Runner, victim: Victim, right: str
) -> None:
    owner = as_owner(victim, right)
    told = runner.plan(runner.backup(owner.source), owner.source).targets[0].warnings[0]
    assert f"a member of {right}" in told


def test_the_owner_of_a_database_is_warned_of_nothing_but_of_old_clients(
    runner: Runner, victim: Victim
) -> None:
    owner = as_owner(victim)
    warnings = runner.plan(runner.backup(owner.source), owner.source).targets[0].warnings
    assert not [each for each in warnings if "superuser" in each or "member" in each]
    assert all("lack fixes" in each for each in warnings)


# --- names -------------------------------------------------------------------------------------------------
def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


LOOK = """SELECT json_agg(x ORDER BY x) FROM (SELECT nspname || '|' || relname || '|' || relkind::text || '|' || pg_get_userbyid(relowner) || '|' ||
  coalesce(obj_description(c.oid), '') AS x FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE c.oid >= 16384 AND nspname !~ '^pg_'
  UNION ALL SELECT proname || prosrc FROM pg_proc WHERE oid >= 16384 UNION ALL SELECT evtname FROM pg_event_trigger
  UNION ALL SELECT pubname FROM pg_publication UNION ALL SELECT conname FROM pg_constraint WHERE conrelid >= 16384
  UNION ALL SELECT enumlabel FROM pg_enum UNION ALL SELECT polname FROM pg_policy UNION ALL SELECT attname FROM pg_attribute WHERE attrelid >= 16384) AS s"""


@pytest.fixture
def named(victim: Victim) -> Iterator[PostgresqlSource]:
    """Give a database in which everything has such a name, the database, its owner and comments included."""
    number = next(_NUMBERS)
    name, role = f"{ODD} {number}", f"role {number} {ODD}"[:63]
    n, r = _quoted(ODD), _quoted(role)
    psql = victim.server.psql
    psql("postgres", f"CREATE ROLE {r} LOGIN PASSWORD '{PASSWORD}'")
    psql("postgres", f"CREATE DATABASE {_quoted(name)} OWNER {r}")
    text = ODD.replace("'", "''")
    source = source_of(victim.server, name)
    psql(
        name,
        f"CREATE SCHEMA {n} AUTHORIZATION {r}; SET search_path TO {n}; CREATE TYPE {_quoted(ODD + 't')} AS ENUM (E'{text.replace(chr(92), chr(92) * 2)}');"
        f"CREATE TABLE {n} ({n} int PRIMARY KEY, other text CONSTRAINT {_quoted(ODD + 'c')} CHECK (other <> ''), bigger bigserial);"
        f"ALTER TABLE {n} OWNER TO {r}; INSERT INTO {n} VALUES (1, E'x\\n\\\\.\\n\\\\! touch rows\\n'); COMMENT ON TABLE {n} IS '{text}';"
        f"CREATE VIEW {_quoted(ODD + 'v')} AS SELECT * FROM {n}; CREATE INDEX {_quoted(ODD + 'i')} ON {n} (other);"
        f"CREATE FUNCTION {n}() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN /*\n\\unrestrict x\n\\! touch function\n*/ RETURN 1; END $f$;"
        f"ALTER TABLE {n} ENABLE ROW LEVEL SECURITY; CREATE POLICY {n} ON {n} USING (true); CREATE PUBLICATION {n} FOR TABLE {n};"
        f"GRANT SELECT ON {n} TO {r}; COMMENT ON PUBLICATION {n} IS E'the end\\n\\\\unrestrict abc\\n';",
    )  # fmt: skip
    yield source
    psql("postgres", f"DROP DATABASE {_quoted(name)} WITH (FORCE)")
    psql("postgres", f"DROP ROLE {r}")


@pytest.mark.parametrize("strategy", ["InPlace", "Swap"])
@pytest.mark.parametrize("form", ["Plain", "Custom", "Directory"])
def test_names_of_everything_with_quotes_line_ends_commands_and_emoji_come_back(
    runner: Runner, victim: Victim, named: PostgresqlSource, form: str, strategy: str
) -> None:
    source = named.model_copy(update={"format": form, "include_globals": True})
    before = victim.server.psql(source.database, LOOK)
    text = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication"
    said = victim.server.psql(source.database, text)
    made = runner.backup(source)
    victim.server.psql(source.database, f"DROP SCHEMA {_quoted(ODD)} CASCADE")
    runner.restore(made, source, strategy=strategy)
    assert victim.server.psql(source.database, LOOK) == before
    assert victim.server.psql(source.database, text) == said != ""
    assert not [each for each in ("odd", "rows", "function") if Path(each).exists()]


def test_a_schema_of_such_a_name_is_chosen_by_it(
    runner: Runner, victim: Victim, named: PostgresqlSource
) -> None:
    source = named.model_copy(update={"schemas": (ODD,)})
    made = runner.backup(source)
    victim.server.psql(source.database, f"DROP TABLE {_quoted(ODD)}.{_quoted(ODD)} CASCADE")
    runner.restore(made, source)
    assert victim.server.psql(source.database, f"SELECT count(*) FROM {_quoted(ODD)}.{_quoted(ODD)}") == "1"


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ABORT"])
def test_a_dump_that_ends_our_transaction_harms_no_database_that_it_is_swapped_into(
    untouched: Victim, tmp_path: Path, ends: str
) -> None:
    """In place this is the one thing that SQL can do to all or nothing; beside, the database that it is done to is dropped."""
    victim, others = untouched, names(untouched.server)
    dump = f"CREATE TABLE half (n int);\n{ends};\nCREATE TABLE other_half (n int);\nSELECT nonsense;\n"
    incoming = Incoming(iter([dump.encode()]), {"format": "Plain"}, tmp_path, lambda _: None)
    with pytest.raises(RestoreFailed, match="which is as it was"):
        PostgresqlSwap(victim.source, tmp_path, switch_id(ends)).restore(incoming, keep=False)
    assert victim.rows() == " ".join(WORDS) and names(victim.server) == others


OWN_ENDS = {
    "a commit, and an error": "CREATE TABLE half (n int);\nCOMMIT;\nSELECT nonsense;\n",
    "a rollback, and an error": "ROLLBACK;\nCREATE TABLE half (n int);\nSELECT nonsense;\n",
    "a rollback in one line with more": "ROLLBACK\\; CREATE TABLE half (n int)\\; COMMIT;\nSELECT nonsense;\n",
    "a rollback at the end": "CREATE TABLE half (n int);\nROLLBACK;\n",
    "a commit and the start of another": "CREATE TABLE half (n int);\nCOMMIT AND CHAIN;\nSELECT nonsense;\n",
}


@pytest.mark.parametrize("case", OWN_ENDS)
def test_a_dump_that_ends_our_transaction_in_place_is_told_and_the_database_is_marked(
    victim: Victim, tmp_path: Path, case: str
) -> None:
    """Whether psql stops at an error or comes to the end without one: nothing is called rolled back, and nothing restored."""
    with pytest.raises(RestoreFailed, match=r"ends the transaction .*NOT whole.*marks it") as failed:
        restore(victim, OWN_ENDS[case].encode(), "Plain", tmp_path / "scratch")
    assert failed.value.reason == "RestoreIncomplete" and "rolled back" not in failed.value.message
    with pytest.raises(SourceInvalid) as refused:
        PostgresqlDatabase(victim.source, tmp_path).inspect()
    assert refused.value.reason == "RestoreIncomplete"
    restore(victim, b"CREATE TABLE whole (n int);\n", "Plain", tmp_path / "again")
    assert PostgresqlDatabase(victim.source, tmp_path).inspect().empty == ""


@pytest.mark.parametrize("dump", [
    "CREATE TABLE eats (n text);\nCOPY eats FROM stdin;\nx\n",
    "CREATE TABLE eats (n text);\nSELECT 'no end",
    "CREATE TABLE eats (n text);\nCREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1\n",
])  # fmt: skip
def test_a_dump_whose_end_swallows_our_commit_is_no_success(
    untouched: Victim, tmp_path: Path, dump: str
) -> None:
    """Rows without an end take what follows for rows, and psql ends without an error."""
    with pytest.raises(RestoreFailed, match="as it was") as failed:
        restore(untouched, dump.encode(), "Plain", tmp_path / "scratch")
    assert failed.value.reason == "RestoreRolledBack" and untouched.rows() == " ".join(WORDS)


def test_a_dump_that_prints_much_and_commits_in_between_and_ends_well_is_restored(
    victim: Victim, tmp_path: Path
) -> None:
    """A person's own dump may be several transactions: where all of it ran, all of it is there."""
    dump = "SELECT repeat('COMMIT', 1000000);\nCREATE TABLE t (n int);\nCOMMIT;\nCREATE TABLE u (n int);\n"
    restore(victim, dump.encode(), "Plain", tmp_path / "scratch")
    assert victim.server.psql(victim.source.database, "SELECT to_regclass('t'), to_regclass('u')") == "t|u"
