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
        ownership.check_owner(store, PREFIX, _writer("second", named), claim=claim, adopting=True)
    assert refused.value.reason == "OwnedByAnother" and _owner(store) == "first"


def test_who_names_the_owner_adopts_the_folder_and_the_old_owner_is_refused(store: DirectoryStore) -> None:
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=False, adopting=True)
    assert _owner(store) == "first"
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True, adopting=True)
    assert _owner(store) == "second"
    with pytest.raises(StorageInvalid, match="of cluster second"):
        ownership.check_owner(store, PREFIX, _writer("first"), claim=True, adopting=True)


def test_an_adoption_that_was_carried_out_is_not_replayed(store: DirectoryStore) -> None:
    for cluster, named in (("second", "first"), ("third", "second")):
        ownership.check_owner(store, PREFIX, _writer(cluster, named), claim=True, adopting=True)
    with pytest.raises(StorageInvalid, match="of cluster third"):
        ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True, adopting=True)
    ownership.check_owner(store, PREFIX, _writer("third", "second"), claim=True, adopting=True)
    assert _owner(store) == "third"


def test_the_folder_of_another_policy_is_never_adopted(store: DirectoryStore) -> None:
    with pytest.raises(StorageInvalid, match="belongs to policy edna/nightly"):
        ownership.check_owner(
            store, PREFIX, _writer("second", "first", policy="weekly"), claim=True, adopting=True
        )


def test_the_command_line_adopts_the_folder_of_a_lost_cluster_by_naming_it_and_is_refused_otherwise(
    store: DirectoryStore,
) -> None:
    for named in (None, "second", "standalone"):
        with pytest.raises(StorageInvalid, match=r"of cluster first: .*--take-over first") as refused:
            ownership.check_owner(store, PREFIX, Writer(take_over=named), claim=True, adopting=True)
        assert refused.value.reason == "OwnedByAnother" and _owner(store) == "first"
    ownership.check_owner(store, PREFIX, Writer(take_over="first"), claim=True, adopting=True)
    ownership.check_owner(store, PREFIX, Writer(), claim=True, adopting=True)
    assert _owner(store) == ""
    with pytest.raises(StorageInvalid, match=r"edna/nightly of cluster standalone: .*takeOver: standalone"):
        ownership.check_owner(store, PREFIX, _writer("first"), claim=True, adopting=True)


def test_a_cluster_adopts_a_folder_of_the_command_line_back_where_the_path_is_its_own(
    store: DirectoryStore,
) -> None:
    ownership.check_owner(store, PREFIX, Writer(take_over="first"), claim=True, adopting=True)
    with pytest.raises(StorageInvalid, match="belongs to policy edna/nightly"):
        ownership.check_owner(
            store, PREFIX, _writer("third", "standalone", policy="weekly"), claim=True, adopting=True
        )
    ownership.check_owner(store, PREFIX, _writer("third", "standalone"), claim=True, adopting=True)
    assert _owner(store) == "third"
    ownership.check_owner(store, "made/by-hand/", Writer(), claim=True, adopting=True)
    theirs = {"namespace": "made", "policy": "by-hand"}
    with pytest.raises(StorageInvalid, match=r"a command line without a cluster \(standalone\)"):
        ownership.check_owner(store, "made/by-hand/", _writer("third", **theirs), claim=True, adopting=True)
    ownership.check_owner(
        store, "made/by-hand/", _writer("third", "standalone", **theirs), claim=True, adopting=True
    )


def test_two_clusters_that_both_take_over_do_not_take_the_folder_from_each_other_for_ever(
    store: DirectoryStore,
) -> None:
    for cluster, named in (("second", "first"), ("first", "second")):
        ownership.check_owner(store, PREFIX, _writer(cluster, named), claim=True, adopting=True)
    with pytest.raises(
        StorageInvalid, match=r"this cluster adopted it from first before.*adoptions in its owner\.json"
    ) as told:
        ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True, adopting=True)
    assert told.value.reason == "OwnedByAnother" and _owner(store) == "first"
    document = json.loads(catalog.read_document(store, f"{PREFIX}{layout.OWNER_FILE}"))
    assert document["adoptions"] == [{"from": "first", "to": "second"}, {"from": "second", "to": "first"}]


def test_only_what_makes_backups_adopts(store: DirectoryStore) -> None:
    with pytest.raises(StorageInvalid):
        ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=False)
    assert _owner(store) == "first"


def test_who_lost_the_folder_is_told_to_whom(store: DirectoryStore) -> None:
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True, adopting=True)
    with pytest.raises(
        StorageInvalid, match=r"was taken over from here, and belongs to .* of cluster second"
    ):
        ownership.check_owner(store, PREFIX, _writer("first"), claim=False)


@pytest.mark.parametrize("other", [{"policy": "weekly"}, {"namespace": "another"}])
def test_taking_over_is_advised_only_where_it_would_help(
    store: DirectoryStore, other: dict[str, str]
) -> None:
    with pytest.raises(StorageInvalid) as told:
        ownership.check_owner(store, PREFIX, _writer("second", **other), claim=True)
    assert "takeOver" not in told.value.message and "another name for the policy" in told.value.message


def test_a_copy_of_an_adopted_folder_remembers_the_adoption_and_is_nobodys_obstacle(
    store: DirectoryStore, tmp_path: Path
) -> None:
    ownership.check_owner(store, PREFIX, _writer("second", "first"), claim=True, adopting=True)
    (tmp_path / "copy").mkdir()
    copy = DirectoryStore(DirectoryStorage(name="copy", root=str(tmp_path / "copy")))
    ownership.check_owner(copy, "old/", _writer("second"), claim=True)
    for prefix in (PREFIX, PREFIX, "old/"):
        ownership.copy_owner(store, PREFIX, copy, prefix)
    assert _owner(copy) == "second"
