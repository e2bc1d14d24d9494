"""Whose a folder in storage is: a second cluster is refused, and adopts it only by naming the one that owns it now."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from avalanche_backup import catalog, layout, ownership
from avalanche_backup.errors import StorageInvalid
from avalanche_backup.storage.directory import DirectoryStore
from avalanche_contract.request import Writer
from avalanche_contract.storage import DirectoryStorage

PREFIX = "edna/nightly/"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """Give a storage whose folder the first cluster has claimed."""
    made = DirectoryStore(DirectoryStorage(name="volume", root=str(tmp_path)))
    ownership.check_owner(made, PREFIX, _writer("first"), claim=True)
    return made


def _writer(cluster: str, take_over: str | None = None, **more: str) -> Writer:
    told = {"namespace": "edna", "policy": "nightly", "policy_uid": f"policy-of-{cluster}", **more}
    return Writer(cluster_uid=cluster, take_over=take_over, **told)


def _owner(store: DirectoryStore) -> str:
    return str(json.loads(catalog.read_document(store, f"{PREFIX}{layout.OWNER_FILE}"))["cluster_uid"])


@pytest.mark.parametrize("claim", [True, False])
@pytest.mark.parametrize("named", [None, "third", "second"])
def test_another_cluster_is_refused_unless_it_names_the_owner(
    store: DirectoryStore, claim: bool, named: str | None
) -> None:
    with pytest.raises(StorageInvalid, match=r"of cluster first: .*takeOver") as refused:
        ownership.check_owner(store, PREFIX, _writer("second", named), claim=claim)
    assert refused.value.reason == "OwnedByAnother" and _owner(store) == "first"


def test_who_names_the_owner_adopts_the_folder_and_the_old_owner_is_refused(store: DirectoryStore) -> None:
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=False)
    assert _owner(store) == "first"
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True)
    assert _owner(store) == "second"
    with pytest.raises(StorageInvalid, match="of cluster second"):
        ownership.check_owner(store, PREFIX, _writer("first"), claim=True)


def test_an_adoption_that_was_carried_out_is_not_replayed(store: DirectoryStore) -> None:
    for cluster, named in (("second", "first"), ("third", "second")):
        ownership.check_owner(store, PREFIX, _writer(cluster, named), claim=True)
    with pytest.raises(StorageInvalid, match="of cluster third"):
        ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True)
    ownership.check_owner(store, PREFIX, _writer("third", "second"), claim=True)
    assert _owner(store) == "third"


def test_the_folder_of_another_policy_is_never_adopted(store: DirectoryStore) -> None:
    with pytest.raises(StorageInvalid, match="belongs to policy edna/nightly"):
        ownership.check_owner(store, PREFIX, _writer("second", "first", policy="weekly"), claim=True)


def test_the_command_line_adopts_the_folder_of_a_lost_cluster_by_naming_it_and_is_refused_otherwise(
    store: DirectoryStore,
) -> None:
    for named in (None, "second", "standalone"):
        with pytest.raises(StorageInvalid, match=r"of cluster first: .*--take-over first") as refused:
            ownership.check_owner(store, PREFIX, Writer(take_over=named), claim=True)
        assert refused.value.reason == "OwnedByAnother" and _owner(store) == "first"
    ownership.check_owner(store, PREFIX, Writer(take_over="first"), claim=True)
    ownership.check_owner(store, PREFIX, Writer(), claim=True)
    assert _owner(store) == ""
    with pytest.raises(StorageInvalid, match=r"edna/nightly of cluster standalone: .*takeOver: standalone"):
        ownership.check_owner(store, PREFIX, _writer("first"), claim=True)


def test_a_cluster_adopts_a_folder_of_the_command_line_back_where_the_path_is_its_own(
    store: DirectoryStore,
) -> None:
    ownership.check_owner(store, PREFIX, Writer(take_over="first"), claim=True)
    with pytest.raises(StorageInvalid, match="belongs to policy edna/nightly"):
        ownership.check_owner(store, PREFIX, _writer("third", "standalone", policy="weekly"), claim=True)
    ownership.check_owner(store, PREFIX, _writer("third", "standalone"), claim=True)
    assert _owner(store) == "third"
    ownership.check_owner(store, "made/by-hand/", Writer(), claim=True)
    theirs = {"namespace": "made", "policy": "by-hand"}
    with pytest.raises(StorageInvalid, match=r"a command line without a cluster \(standalone\)"):
        ownership.check_owner(store, "made/by-hand/", _writer("third", **theirs), claim=True)
    ownership.check_owner(store, "made/by-hand/", _writer("third", "standalone", **theirs), claim=True)
