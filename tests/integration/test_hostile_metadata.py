"""Whatever lies where metadata should: nothing crashes, no good backup loses its slot, nothing is deleted for it."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from avalanche_backup import catalog, layout, removal
from avalanche_backup.cli.main import cli
from avalanche_backup.metadata import ArtifactMetadata, BackupMetadata, RunMetadata, combined_checksum
from avalanche_backup.storage.directory import DirectoryStore
from avalanche_backup.verbs.catalog import PAGE_MAX_BYTES
from avalanche_backup.verbs.context import Context
from avalanche_backup.verbs.dispatch import run
from avalanche_contract.log import write_line
from avalanche_contract.request import CatalogRequest, CleanupRequest, Retention
from avalanche_contract.storage import DirectoryStorage, Place
from tests.integration.runs import NONCE, Reported

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
DAYS = [NOW.replace(hour=2) - timedelta(days=number) for number in range(4)]
KEPT = [f"database_{day:%Y%m%d_%H%M%S}" for day in DAYS[:2]]
GONE = [f"database_{day:%Y%m%d_%H%M%S}" for day in DAYS[2:]]
RULES = Retention(keep_daily=2)


def _good(moment: datetime) -> dict[str, Any]:
    backup_id = f"database_{moment:%Y%m%d_%H%M%S}"
    artifact = ArtifactMetadata(
        source="db", kind="sqlite", file=f"{backup_id}.sqlite", compression="None", size_bytes=4,
        sha256="a" * 64, source_bytes=4, source_sha256="a" * 64,
    )  # fmt: skip
    times = dict.fromkeys(("timestamp", "start_time", "completion_time", "snapshot_time"), moment)
    metadata = BackupMetadata(
        backup_id=backup_id, backup_type="database", size_bytes=4, source_bytes=4,
        checksum=combined_checksum([artifact]), compressed=False, run=RunMetadata(identity=f"scheduled/{moment}"),
        artifacts=[artifact], **times,
    )  # fmt: skip
    return metadata.model_dump(mode="json")


@contextmanager
def _storage(planted: dict[str, bytes]) -> Iterator[tuple[DirectoryStorage, DirectoryStore]]:
    """Give a folder with four good backups, and with what was planted."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "database"
        folder.mkdir()
        for document in (_good(day) for day in DAYS):
            (folder / f"{document['backup_id']}.sqlite").write_bytes(b"data")
            (folder / f"{document['backup_id']}_metadata.json").write_text(json.dumps(document))
        for name, data in planted.items():
            (folder / name).write_bytes(data)
        storage = DirectoryStorage(name="volume", root=root)
        yield storage, DirectoryStore(storage)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
EDGE_VALUES: list[Any] = [
    "",
    "\ud800",
    "../../x",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "a" * 70_000,
    10**400,
    -1,
]
EDGES = st.sampled_from(EDGE_VALUES)
FIELDS = sorted(_good(NOW))
IDS = st.one_of(
    st.sampled_from(["database_20990101_000000", "database_00010101_000000", "database_20260331_010000"]),
    st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 10)).map(
        lambda each: f"database_{each:%Y%m%d_%H%M%S}"
    ),
).filter(lambda each: each not in KEPT + GONE)


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, bytes]:
    """Give a hostile metadata file: noise, cut off, huge, deeply nested, a copy, or one field replaced."""
    backup_id, document = draw(IDS), _good(draw(st.sampled_from(DAYS)))
    copied = {**copy.deepcopy(document), "backup_id": backup_id}
    kind = draw(st.sampled_from(["noise", "json", "cut", "nested", "copy", "changed", "artifact", "own"]))
    whole = json.dumps(copied).encode()
    if kind == "noise":
        data = draw(st.binary(max_size=200))
    elif kind == "json":
        data = json.dumps(draw(JSON)).encode()
    elif kind == "cut":
        data = whole[: draw(st.integers(0, len(whole)))]
    elif kind == "nested":
        data = b'{"format_version": "1.0", "statistics": ' + b"[" * draw(st.integers(1, 200_000))
    elif kind == "own":
        renamed = [{**each, "file": f"{backup_id}.sqlite"} for each in copied["artifacts"]]
        data = json.dumps({**copied, "artifacts": renamed}).encode()
    elif kind == "artifact":
        copied["artifacts"][0][draw(st.sampled_from(sorted(copied["artifacts"][0])))] = draw(JSON | EDGES)
        data = json.dumps(copied).encode()
    else:
        changed = {draw(st.sampled_from(FIELDS)): draw(JSON | EDGES)} if kind == "changed" else {}
        data = json.dumps({**copied, **changed}).encode()
    return f"{backup_id}_metadata.json", data


HOSTILE = st.lists(planted(), max_size=6).map(dict)
BESIDE = st.tuples(
    st.sampled_from(KEPT + GONE),
    st.sampled_from(["_verification.json", "_hold.json", "_restoring_0123456789ab.json", "_tombstone.json"]),
).map("".join)
NOISE = st.binary(max_size=60) | JSON.map(lambda each: json.dumps(each).encode())


def _clean(storage: DirectoryStorage, *, dry_run: bool) -> Reported:
    reported = Reported()
    request = CleanupRequest(
        nonce=NONCE, place=Place(storage=storage), retention=RULES, max_delete_percent=100, dry_run=dry_run
    )
    run(request, Context(reported, Path(storage.root), now=lambda: NOW))
    return reported


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
def test_nothing_that_lies_there_crashes_a_list(planted: dict[str, bytes]) -> None:
    _list_all(planted)


def test_no_field_with_a_value_at_the_edge_crashes_a_list() -> None:
    planted, moment = {}, datetime(2026, 1, 1, tzinfo=UTC)
    for field in FIELDS:
        for value in EDGE_VALUES:
            moment += timedelta(seconds=1)
            document = {**_good(moment), field: value}
            planted[f"database_{moment:%Y%m%d_%H%M%S}_metadata.json"] = json.dumps(document).encode()
    _list_all(planted)


def _list_all(planted: dict[str, bytes]) -> None:
    with _storage(planted) as (storage, store):
        found = catalog.backups(store, "")
        assert len(found) == 4 + len(planted)
        listed = run(
            CatalogRequest(nonce=NONCE, storage=storage, prefixes=("",)), Context(Reported(), Path())
        )
        assert (listed.entry_count or 0) >= 4
        config = Path(storage.root) / "backup.yaml"
        config.write_text(json.dumps({"backup": {"root_dir": storage.root}}))
        for output in ("json", "table"):
            ended = CliRunner().invoke(cli, ["--config", str(config), "-o", output, "list"])
            assert ended.exit_code == 0 and all(each in ended.stdout for each in KEPT), ended.exception


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
def test_no_metadata_file_frees_the_slot_of_a_good_backup_or_is_deleted(planted: dict[str, bytes]) -> None:
    with _storage(planted) as (storage, store):
        _clean(storage, dry_run=False)
        shelf = removal.survey(store, "")
        whole = {each.metadata.backup_id for each in shelf.backups if shelf.is_complete(each)}
        assert set(KEPT) <= whole
        assert {f"database/{name}" for name in planted} <= shelf.sizes.keys()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(BESIDE, NOISE, max_size=4), HOSTILE)
def test_what_lies_beside_a_backup_may_be_anything(
    beside: dict[str, bytes], planted: dict[str, bytes]
) -> None:
    """A verdict that cannot be read is none, a hold that cannot be read holds, a tombstone removes nothing."""
    with _storage({**beside, **planted}) as (storage, store):
        catalog.backups(store, "")
        reported = _clean(storage, dry_run=True)
        told = {each.backup_id: each.verdict for each in reported.decisions}
        assert {told[each] for each in KEPT} == {"Keep"}
        _clean(storage, dry_run=False)
        left = {each.metadata.backup_id for each in removal.survey(store, "").backups}
        assert {each for each, verdict in told.items() if verdict == "Keep" and each in KEPT} <= left


def test_a_metadata_file_that_is_far_too_large_is_said_and_passed_over() -> None:
    huge = b'{"format_version": "1.0", "warnings": ["' + b"x" * (catalog.DOCUMENT_MAX_BYTES + 1) + b'"]}'
    with _storage({"database_20260331_010000_metadata.json": huge}) as (_, store):
        found = catalog.read_one(store, layout.metadata_key("", "database_20260331_010000"))
        assert isinstance(found, catalog.Damaged) and "too large" in found.message


def _policy_folder(root: str, policy: str, *documents: dict[str, Any]) -> None:
    """Lay metadata of backups into the folder of a policy, with what they name."""
    folder = Path(root) / "edna" / policy / "database"
    folder.mkdir(parents=True, exist_ok=True)
    for document in documents:
        for each in document["artifacts"]:
            (folder / each["file"]).write_bytes(b"data")
        (folder / f"{document['backup_id']}_metadata.json").write_text(json.dumps(document))


def _of(policy: str, moment: datetime, **more: Any) -> dict[str, Any]:
    document = {**_good(moment), **more}
    document["run"] |= {"namespace": "edna", "policy": policy}
    return document


def _read(root: str, *, limit: int = 500, **asked: Any) -> tuple[list[tuple[str, str]], list[str]]:
    """Read a storage to its end: (folder, ID) of every backup, and every key that says nothing."""
    report, after = Reported(), ""
    while True:
        with tempfile.TemporaryDirectory() as scratch:
            request = CatalogRequest(
                nonce=NONCE,
                storage=DirectoryStorage(name="volume", root=root),
                after=after,
                limit=limit,
                **asked,
            )
            result = run(request, Context(report=report, scratch=Path(scratch), now=lambda: NOW))
        if result.next_cursor is None:
            return [(each.prefix, each.backup_id) for each in report.entries], [
                each.key for each in report.damaged
            ]
        assert result.next_cursor > after
        after = result.next_cursor


def test_a_backup_of_another_policy_that_was_swapped_in_is_told_and_is_none_of_this_one(
    tmp_path: Path,
) -> None:
    _policy_folder(str(tmp_path), "mine", _of("mine", DAYS[0]), _of("other", DAYS[1]))
    found, strange = _read(str(tmp_path), within="edna/")
    assert found == [("edna/mine/", KEPT[0])]
    assert strange == [f"edna/mine/database/{KEPT[1]}_metadata.json"]


@pytest.mark.parametrize("limit", [1, 2, 3, 500])
def test_pages_of_any_size_show_all_that_is_there_once_and_in_the_order_of_the_keys(
    tmp_path: Path, limit: int
) -> None:
    policies = ("a", "a-b", "a.b", "b")  # in this order their folders do not sort as their names do
    for policy in policies:
        _policy_folder(str(tmp_path), policy, *(_of(policy, day) for day in DAYS))
    (tmp_path / "edna/a/database" / f"{KEPT[0]}_metadata.json").write_text("noise")
    found, strange = _read(str(tmp_path), within="edna/", limit=limit)
    keys = [f"{prefix}database/{backup_id}_metadata.json" for prefix, backup_id in found]
    assert keys == sorted(set(keys)) and len(keys) == 15 and len(strange) == 1


def test_metadata_that_would_burst_a_page_is_told_and_the_others_are_listed(tmp_path: Path) -> None:
    _policy_folder(
        str(tmp_path), "mine", _of("mine", DAYS[0]), _of("mine", DAYS[1], error_message="x" * 5_000_000)
    )
    found, strange = _read(str(tmp_path), prefixes=("edna/mine/",))
    assert len(found) == len(strange) == 1


def test_a_page_is_measured_in_the_bytes_of_the_log_whatever_its_names_are_written_in(tmp_path: Path) -> None:
    days = [NOW.replace(hour=2) - timedelta(days=number) for number in range(90)]
    _policy_folder(str(tmp_path), "mine", *(_of("mine", day, error_message="文" * 9000) for day in days))
    report = Reported()
    root = DirectoryStorage(name="volume", root=str(tmp_path))
    request = CatalogRequest(nonce=NONCE, storage=root, prefixes=("edna/mine/",))
    result = run(request, Context(report=report, scratch=tmp_path, now=lambda: NOW))
    written = [len(write_line(NONCE, "entry", each).encode()) for each in report.entries]
    assert result.next_cursor is not None and sum(written) <= PAGE_MAX_BYTES + max(written)


def test_only_the_folders_of_one_namespace_are_read(tmp_path: Path) -> None:
    _policy_folder(str(tmp_path), "mine", _of("mine", DAYS[0]))
    assert _read(str(tmp_path), within="edna/")[0] and not _read(str(tmp_path), within="edn/")[0]
