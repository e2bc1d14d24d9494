"""Differences are found, named, and laid out for a person."""

from demo.comparison import Comparison, compare, compare_folders, durations, table
from demo.restoring import shown
from demo.steps import Steps, minutes

HASH = "0123456789abcdef" * 4


def test_the_same_on_both_sides_is_equal() -> None:
    assert all(each.equal for each in compare("database", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}))


def test_what_only_one_side_has_differs() -> None:
    lost, gained = compare("database", {"lost": "1"}, {"new": "2"})
    assert (lost.what, lost.after, lost.equal) == ("database: lost", "absent", False)
    assert (gained.what, gained.before, gained.equal) == ("database: new", "absent", False)


def test_files_are_compared_folder_by_folder() -> None:
    before = {"config/a": "1", "results": "folder", "results/b": "2"}
    config, results = compare_folders("files", before, {**before, "results/b": "3"})
    assert config.equal
    assert results.differences == ("results/b: 2 → 3",)


def test_the_table_shortens_hashes_and_counts_what_is_equal() -> None:
    text = table(
        [Comparison("a", f"3 rows {HASH}", f"3 rows {HASH}"), Comparison("b", "1", "2", ("b/c: 1 → 2",))]
    )
    assert "3 rows 0123456789ab " in text
    assert "DIFFERS: 2" in text
    assert text.endswith("differs: b/c: 1 → 2\n1 of 2 are equal")


def test_durations_are_added_up() -> None:
    assert durations([("one", 1.25), ("two", 2.5)]).splitlines()[-1].split() == ["together", "3.8", "s"]


def test_a_step_says_when_it_began_and_how_long_it_took() -> None:
    times, said = iter([0.0, 65.0, 67.5]), list[str]()
    steps = Steps(said.append, clock=lambda: next(times))
    with steps.step("Disaster"):
        steps.detail("one\ntwo")
    assert said == ["\n[ 1:05] Disaster", "        one", "        two", "        done in 2.5 s"]
    assert steps.taken == [("Disaster", 2.5)]


def test_minutes_are_aligned() -> None:
    assert [minutes(5), minutes(600)] == [" 0:05", "10:00"]


def test_a_plan_is_shown_with_what_is_there_and_what_will_be_done() -> None:
    target = {
        "artifact": "edna",
        "target": "postgresql://h/d",
        "state": "HoldsData",
        "found": "3 tables",
        "action": "replaced",
    }
    text = shown(
        {"backupID": "database_20241122_020000", "storage": "s3", "digest": "sha256:1", "targets": [target]}
    )
    assert text.startswith("plan: database_20241122_020000 from s3")
    assert text.splitlines()[-1].split() == [word for value in target.values() for word in value.split()]
