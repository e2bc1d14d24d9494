"""Names and documents in storage: what was written years ago is still read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avalanche_backup import layout, locks
from avalanche_backup.errors import RestoreRefused, TargetLocked
from avalanche_backup.locks import KeptLocks, refuse_if_locked, take_lock
from avalanche_backup.metadata import (
    ArtifactMetadata,
    MetadataInvalid,
    combined_checksum,
    read_metadata,
    recipients_of,
    write_metadata,
)
from avalanche_backup.storage.directory import DirectoryStore
from avalanche_contract.names import BACKUP_TYPES, backup_id
from avalanche_contract.storage import DirectoryStorage

FIRST = Path(__file__).parent / "golden" / "metadata-1.0.json"
SECOND = Path(__file__).parent / "golden" / "metadata-1.1.json"
GOLDEN = Path(__file__).parent / "golden" / "metadata-1.2.json"
MOMENT = datetime(2026, 3, 1, 2, tzinfo=UTC)
PREFIXES = st.sampled_from(["", "edna/nightly/", "a/b/c/"])
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC))


def _golden(**changes: Any) -> bytes:
    return json.dumps(json.loads(GOLDEN.read_text()) | changes).encode()


@given(PREFIXES, st.sampled_from(BACKUP_TYPES), MOMENTS)
def test_the_name_of_metadata_reads_back(prefix: str, backup_type: Any, moment: datetime) -> None:
    wanted = backup_id(backup_type, moment)
    key = layout.metadata_key(prefix, wanted)
    assert layout.split_metadata_key(key) == (prefix, wanted)
    for other in (
        layout.hold_key(prefix, wanted),
        layout.verification_key(prefix, wanted),
        f"{prefix}{layout.LOCK_FILE}",
    ):
        assert layout.split_metadata_key(other) is None


@pytest.mark.parametrize("key", [
    "database/files_20260101_000000_metadata.json",
    "database/database_20261301_000000_metadata.json",
    "database/database_20260101_000000_metadata.json.part",
    "other/database_20260101_000000_metadata.json",
])  # fmt: skip
def test_what_only_looks_like_metadata_is_passed_over(key: str) -> None:
    assert layout.split_metadata_key(key) is None


def test_metadata_of_this_version_is_read_and_written_back_the_same() -> None:
    metadata = read_metadata(GOLDEN.read_bytes())
    assert json.loads(write_metadata(metadata)) == json.loads(GOLDEN.read_text())


def test_metadata_of_the_first_version_is_read_as_unencrypted_and_nothing_of_it_is_lost() -> None:
    metadata = read_metadata(FIRST.read_bytes())
    written, first = json.loads(write_metadata(metadata)), json.loads(FIRST.read_text())
    assert recipients_of(metadata.artifacts) == () and not metadata.encrypted
    assert {name: written[name] for name in first if name != "artifacts"} == {
        name: first[name] for name in first if name != "artifacts"
    }
    older: dict[str, Any] = {"recipients": [], "selection": None}
    assert [each | older for each in first["artifacts"]] == written["artifacts"]


def test_metadata_of_before_anomalies_is_read_as_good_and_as_not_saying_what_was_chosen() -> None:
    metadata = read_metadata(SECOND.read_bytes())
    assert metadata.status == "succeeded" and metadata.anomalies == []
    assert {each.selection for each in metadata.artifacts} == {None}


def test_a_field_of_a_later_minor_version_is_passed_over() -> None:
    assert read_metadata(_golden(format_version="1.7", invented_later=True)).backup_id


@pytest.mark.parametrize("version", ["2.0", "", "10.0"])
def test_a_later_major_version_is_refused(version: str) -> None:
    with pytest.raises(MetadataInvalid, match=r"this release reads 1\.2"):
        read_metadata(_golden(format_version=version))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff\xfe", _golden(backup_type="mystery"), _golden(artifacts=7)]
)
def test_damaged_metadata_is_refused(data: bytes) -> None:
    with pytest.raises(MetadataInvalid):
        read_metadata(data)


def test_the_checksum_is_what_a_person_finds_with_sha256sum() -> None:
    artifacts = [
        ArtifactMetadata(
            source=name,
            kind="files",
            file=f"{name}.tar",
            compression="None",
            size_bytes=1,
            sha256=digest * 64,
            source_bytes=1,
            source_sha256=digest * 64,
        )
        for name, digest in (("b", "1"), ("a", "2"))
    ]
    listed = f"{'1' * 64}  b.tar\n{'2' * 64}  a.tar\n"  # sha256sum b.tar a.tar | sort | sha256sum
    assert combined_checksum(artifacts) == f"sha256:{hashlib.sha256(listed.encode()).hexdigest()}"
    assert combined_checksum(artifacts[:1]) == f"sha256:{'1' * 64}"


def test_a_lock_stops_backups_until_it_expires(tmp_path: Path) -> None:
    store = DirectoryStore(DirectoryStorage(name="disk", root=str(tmp_path)))
    assert take_lock(store, "p/", "first", MOMENT) is None
    with pytest.raises(TargetLocked, match="restored by first"):
        refuse_if_locked(store, "p/", MOMENT)
    refuse_if_locked(store, "p/", MOMENT.replace(minute=5))


def test_a_lock_that_somebody_renews_is_not_taken(tmp_path: Path) -> None:
    store = DirectoryStore(DirectoryStorage(name="disk", root=str(tmp_path)))
    take_lock(store, "p/", "first", MOMENT)
    standing = take_lock(store, "p/", "second", MOMENT)
    assert standing is not None and standing.holder == "first"
    assert take_lock(store, "p/", "second", MOMENT.replace(minute=5)) is None


class Renewed(DirectoryStore):
    """A place with the lock of a restore that is alive: whoever looks finds it renewed."""

    def __init__(self, root: Path) -> None:
        super().__init__(DirectoryStorage(name="disk", root=str(root)))
        self._looks = 0

    @contextmanager
    def read(self, key: str) -> Iterator[Iterator[bytes]]:
        del key
        self._looks += 1
        document = {"holder": "alive", "expires": f"2099-01-01T00:00:{self._looks:02d}Z"}
        yield iter([json.dumps(document).encode()])


def test_locks_that_were_taken_are_let_go_of_where_a_later_one_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0)
    store = DirectoryStore(DirectoryStorage(name="disk", root=str(tmp_path)))
    with pytest.raises(RestoreRefused, match="alive works on this target"):
        KeptLocks([(store, "a/"), (Renewed(tmp_path), "b/")], "me", lambda: MOMENT).__enter__()
    assert take_lock(store, "a/", "another", MOMENT) is None
