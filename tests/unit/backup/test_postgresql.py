"""What PostgreSQL's clients are chosen for, and when a restore is refused: decisions without a server."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup.errors import RestoreRefused, SourceInvalid, VerificationFailed
from avalanche_backup.sources.postgresql.beside import creation
from avalanche_backup.sources.postgresql.clients import Clients, dumping_clients, restoring_clients
from avalanche_backup.sources.postgresql.connection import explain
from avalanche_backup.sources.postgresql.directory import pack, unpack
from avalanche_backup.sources.postgresql.fitting import fitted
from avalanche_backup.sources.postgresql.outcome import Told, outcome
from avalanche_backup.sources.postgresql.parallel import kept_entries
from avalanche_backup.sources.postgresql.target import check_jobs, check_target
from avalanche_backup.sources.postgresql.transactions import in_one_transaction

ABLE = {"role": "restorer", "superuser": False, "read_only": False, "roles": ["restorer", "app"],
        "becomes": ["restorer"], "extensions": ["plpgsql"]}  # fmt: skip


def _clients(*releases: str) -> list[Clients]:
    numbers = (each.partition(".") for each in releases)
    return [Clients(int(major), int(minor), Path(major)) for major, _, minor in numbers]


@pytest.mark.parametrize(("installed", "server", "chosen"), [
    (("15.20", "17.12", "18.7"), 15, "15.20"),
    (("15.20", "17.12", "18.7"), 16, "17.12"),
    (("17.12",), 15, "17.12"),
    (("17.11", "17.12"), 17, "17.12"),
])  # fmt: skip
def test_a_server_is_dumped_by_its_own_release_or_the_next_newer_one(
    installed: tuple[str, ...], server: int, chosen: str
) -> None:
    assert dumping_clients(_clients(*installed), server).version == chosen


def test_a_server_newer_than_every_client_is_refused() -> None:
    with pytest.raises(SourceInvalid, match=r"PostgreSQL 18 and the newest pg_dump here is 17\.12"):
        dumping_clients(_clients("17.12"), 18)


@pytest.mark.parametrize(("installed", "written_by", "chosen"), [
    (("15.20", "17.12"), 15, "17.12"),
    (("17.12", "18.6"), 17, "17.12"),
    (("17.12", "18.6"), 18, "18.6"),
    (("15.13", "17.6"), 0, "17.6"),
])  # fmt: skip
def test_a_dump_is_restored_by_patched_clients_first(
    installed: tuple[str, ...], written_by: int, chosen: str
) -> None:
    assert restoring_clients(_clients(*installed), written_by).version == chosen


@pytest.mark.parametrize(("installed", "written_by", "sentence"), [
    (("15.20",), 17, "written by pg_dump 17"),
    (("15.13",), 15, "CVE-2025-8714"),
    (("12.22",), 12, "CVE-2025-8714"),
])  # fmt: skip
def test_clients_that_cannot_read_a_dump_or_would_obey_it_are_refused(
    installed: tuple[str, ...], written_by: int, sentence: str
) -> None:
    with pytest.raises(RestoreRefused, match=sentence) as refused:
        restoring_clients(_clients(*installed), written_by)
    assert refused.value.reason == "ClientTooOld"


@pytest.mark.parametrize(("recreate", "able", "reason"), [
    ({"owners": ["app", "gone"]}, {}, "RolesMissing"),
    ({"roles": ["reader"]}, {}, "RolesMissing"),
    ({"owners": ["app"]}, {}, "RolesNotGranted"),
    ({"extensions": ["plpgsql", "postgis"]}, {}, "ExtensionsMissing"),
    ({}, {"read_only": True}, "TargetReadOnly"),
])  # fmt: skip
def test_a_target_that_lacks_what_a_dump_needs_is_refused(
    recreate: dict[str, Any], able: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RestoreRefused) as refused:
        check_target({"recreate": recreate}, ABLE | able)
    assert refused.value.reason == reason


@pytest.mark.parametrize(("recreate", "able"), [
    ({}, {}),
    ({"owners": ["restorer"], "roles": ["app"], "extensions": ["plpgsql"]}, {}),
    ({"owners": ["app"]}, {"superuser": True}),
    ({"owners": ["app"]}, {"becomes": ["restorer", "app"]}),
    ({"extensions": ["postgis"], "schemas": ["edna"]}, {}),
])  # fmt: skip
def test_a_target_that_has_what_a_dump_needs_is_taken(recreate: dict[str, Any], able: dict[str, Any]) -> None:
    check_target({"recreate": recreate}, ABLE | able)


def test_several_jobs_restore_a_directory_alone() -> None:
    check_jobs({"format": "Directory"}, 4, _clients("17.12")[0], 17)
    check_jobs({"format": "Plain"}, 1, _clients("17.12")[0], 15)
    for form, server in (("Plain", 17), ("Custom", 17), ("Directory", 15)):
        with pytest.raises(RestoreRefused, match="leave jobs out"):
            check_jobs({"format": form}, 4, _clients("17.12")[0], server)


HEAD = b"--\n\\restrict abc\nSET statement_timeout = 0;\nSET transaction_timeout = 0;\n"


@given(st.binary(max_size=9000), st.integers(1, 5000))
def test_only_the_head_of_a_dump_is_fitted_to_an_older_server(body: bytes, size: int) -> None:
    body = b"--" + body.replace(b"\\", b"") + b"\nSET transaction_timeout = 0;\n" * 300
    dump = HEAD + body
    chunks = [dump[start : start + size] for start in range(0, len(dump), size)]
    assert b"".join(fitted(iter(chunks), 17, superuser=True)) == dump.replace(b"\\restrict abc\n", b"")
    assert (
        b"".join(fitted(iter(chunks), 15, superuser=True))
        == HEAD.replace(b"\\restrict abc\n", b"")[:-29] + body
    )


LARGE_OBJECTS = (
    b"--\n-- Data for Name: %b; Type: BLOBS; Schema: -; Owner: -\n--\n\n%bSELECT pg_catalog.lo_open('16', 131072);\n"
    b"SELECT pg_catalog.lowrite(0, '\\\\x00');\nSELECT pg_catalog.lo_close(0);\n\n%b\n"
)
ROWS = b"COPY public.lines (line) FROM stdin;\n%b\\.\n\n"


@given(
    st.lists(st.sampled_from([b"BLOBS", b"16..17", b"rows", b"function"]), max_size=8), st.integers(1, 3000)
)
def test_no_transaction_around_large_objects_is_left_and_rows_that_look_like_one_are(
    parts: list[bytes], size: int
) -> None:
    around = b"BEGIN;\n\n", b"COMMIT;\n\n"
    stored = LARGE_OBJECTS % (b"BLOBS", *around)
    dump, wanted = b"", b""
    for part in parts:
        if part == b"rows":
            dump, wanted = dump + ROWS % stored, wanted + ROWS % stored
        elif part == b"function":
            text = (
                b"CREATE FUNCTION f() AS $$\nBEGIN;\n\nSELECT pg_catalog.lo_open(1, 2);\n\nCOMMIT;\n$$;\n\n"
            )
            dump, wanted = dump + text, wanted + text
        else:
            dump += LARGE_OBJECTS % (part, *around)
            wanted += LARGE_OBJECTS % (part, b"\n\n", b"\n")
    chunks = (dump[start : start + size] for start in range(0, len(dump), size))
    assert b"".join(in_one_transaction(chunks)) == wanted


@pytest.mark.parametrize(("line", "reason"), [
    ("pg_dump: error: query failed: ERROR:  permission denied for table secret", "PermissionDenied"),
    ("pg_dump: error: query failed: ERROR:  canceling statement due to statement timeout", "LockNotObtained"),
    ("pg_dump: error: could not obtain lock on relation \"a\"", "LockNotObtained"),
    ("pg_dump: error: ERROR:  canceling statement due to conflict with recovery", "RecoveryConflict"),
    ("pg_dump: error: query would be affected by row-level security policy for table \"a\"", "RowSecurity"),
    ("psql: error: FATAL:  database \"a\" is not currently accepting connections", "ConnectionsNotAllowed"),
    ("pg_dump: error: FATAL:  terminating connection due to administrator command", "SourceUnavailable"),
])  # fmt: skip
def test_what_a_tool_says_becomes_a_reason(line: str, reason: str) -> None:
    assert explain(line, "pg_dump ended with exit code 1").reason == reason


class _Packed:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self.data += data


def test_a_directory_is_packed_and_unpacked_as_it_was(tmp_path: Path) -> None:
    made, files = (
        tmp_path / "made",
        {"toc.dat": b"PGDMP", "3346.dat": b"1\n", "blob_7.dat": b"", "blobs_9.toc": b"7"},
    )
    made.mkdir()
    for name, content in files.items():
        (made / name).write_bytes(content)
    packed = _Packed()
    pack(made, packed, lambda _: None)
    assert packed.data.startswith(b"toc.dat\0")
    unpack(iter([bytes(packed.data)]), tmp_path / "back", len(packed.data))
    assert {each.name: each.read_bytes() for each in (tmp_path / "back").iterdir()} == files


def _archive(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        fill(archive)
    return stream.getvalue()


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def fill(archive: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        archive.addfile(entry)

    return fill


@pytest.mark.parametrize("fill", [
    _entry("../toc.dat"), _entry("/toc.dat"), _entry("folder/1.dat"), _entry("pgpass"), _entry("toc.dat\n"),
    _entry("1.dat", tarfile.SYMTYPE, "/etc/passwd"), _entry("1.dat", tarfile.LNKTYPE, "toc.dat"),
    _entry("1.dat", tarfile.FIFOTYPE), _entry("1.dat", tarfile.DIRTYPE), _entry("1.dat", tarfile.GNUTYPE_SPARSE),
])  # fmt: skip
def test_an_archive_that_holds_what_pg_dump_does_not_write_is_refused(
    fill: Callable[[tarfile.TarFile], None], tmp_path: Path
) -> None:
    data = _archive(fill)
    with pytest.raises((RestoreRefused, VerificationFailed)):
        unpack(iter([data]), tmp_path / "back", len(data))
    assert list((tmp_path / "back").iterdir()) == [] and [each.name for each in tmp_path.iterdir()] == [
        "back"
    ]


def test_an_archive_without_its_table_of_contents_is_incomplete(tmp_path: Path) -> None:
    data = _archive(_entry("1.dat"))
    with pytest.raises(VerificationFailed, match=r"has no toc\.dat"):
        unpack(iter([data]), tmp_path / "back", len(data))


def test_a_directory_that_does_not_fit_into_scratch_is_refused_before_a_byte_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(RestoreRefused, match="scratch is full") as refused:
        unpack(iter(()), tmp_path / "back", 1 << 60)
    assert refused.value.reason == "ScratchFull"


def test_of_a_directory_just_the_entries_are_left_out_that_are_there_already() -> None:
    listed = b"""; Archive created at 2026-03-01 02:00:00 UTC
6; 2615 16385 SCHEMA - app avalanche
7; 2615 16386 SCHEMA - application avalanche
2; 3079 16387 EXTENSION - citext
3400; 0 0 COMMENT - EXTENSION citext
"""
    kept = kept_entries(listed, ("SCHEMA - app ", "COMMENT - EXTENSION ")).decode()
    assert "SCHEMA - application" in kept and "EXTENSION - citext" in kept and kept.startswith("; Archive")
    assert "SCHEMA - app avalanche" not in kept and "COMMENT - EXTENSION" not in kept


def test_a_table_whose_name_reads_like_such_an_entry_comes_back() -> None:
    listed = b"200; 1259 16400 TABLE public x SCHEMA - app y avalanche\n"
    assert kept_entries(listed, ("SCHEMA - app ", "COMMENT - EXTENSION ")) == listed
    assert kept_entries(listed, ()) == listed


@pytest.mark.parametrize(
    ("provider", "knows", "said"),
    [("c", True, "LOCALE_PROVIDER libc"), ("i", True, "LOCALE_PROVIDER icu ICU_LOCALE E'de'"),
     ("b", True, "LOCALE_PROVIDER builtin BUILTIN_LOCALE E'de'"), ("c", False, None)],
)  # fmt: skip
def test_a_database_beside_says_whose_locale_it_has_where_the_server_knows_that(
    provider: str, knows: bool, said: str | None
) -> None:
    made = creation(
        "new", {"provider": provider, "knows_providers": knows, "locale": "de", "icu_rules": None, "encoding": "UTF8",
                "collate": "C", "ctype": "C", "tablespace": "pg_default", "owner": "team"},
    )  # fmt: skip
    assert (said in made) if said else ("LOCALE_PROVIDER" not in made)


# --- what became of a restore ------------------------------------------------------------------------------
@pytest.mark.parametrize(("printed", "became"), [
    ("BEGIN\n", "Nothing"),
    ("BEGIN\nt 7\nSET\nCOPY 3\nt whole\nCOMMIT\n", "Whole"),
    ("BEGIN\nt 7\nCOMMIT\nCREATE TABLE\nt whole\nCOMMIT\n", "Whole"),
    ("BEGIN\nt 7\nCOMMIT\nCREATE TABLE\n", "Part"),
    ("BEGIN\nt 7\nROLLBACK\nCREATE TABLE\n", "Part"),
    ("BEGIN\nt 7\nROLLBACK\nt whole\nCOMMIT\n", "Part"),
    ("BEGIN\nt 7\nPREPARE TRANSACTION\nt whole\nCOMMIT\n", "Part"),
])  # fmt: skip
def test_what_psql_printed_says_what_became_of_a_restore(printed: str, became: str) -> None:
    told = Told("t")
    told.listen(io.BytesIO(printed.encode()))
    assert outcome(told, Clients(17, 12, Path("/nowhere")), {}) == became


def test_what_a_dump_prints_is_no_word_of_ours_however_long_it_is() -> None:
    told = Told("token")
    told.listen(io.BytesIO(b"tokens\n" + b"x" * 1_000_000 + b"\nCOMMIT it\ntoken 7\n"))
    assert (told.transaction, told.ended, told.whole) == (7, False, False)
