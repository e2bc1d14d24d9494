"""A restore that can be taken back: the database changes places with the backup, and what was kept aside takes its place again."""

from __future__ import annotations

from demo import application, bucket, examples, restoring
from demo.comparison import compare
from demo.steps import DemoFailed
from demo.telling import Demo

WORK = "CREATE TABLE work (day) AS SELECT current_date; DELETE FROM samples WHERE id % 10 = 0"
"""What was done since the backup."""


def swap_and_undo(demo: Demo) -> None:
    """Work in the database, restore the backup beside it and switch, compare; that was wrong: take it back, and compare."""
    kubectl, steps = demo.kubectl, demo.steps
    with steps.step("Swap: the backup is restored beside the database, and changes places with it"):
        kubectl.run(*bucket.TOOLBOX_PSQL, f"--command={WORK}")
        steps.detail(f"$ psql --command='{WORK}'")
        worked = application.fingerprint(kubectl, "database")
        if worked == demo.before["database"]:
            raise DemoFailed("nothing was worked in the database: there is nothing to bring back")
        examples.apply_example(kubectl, "61-swap.yaml", demo.values, steps)
        _carry_out(demo, "swap")
        swapped = application.fingerprint(kubectl, "database")
        demo.comparisons += compare("swapped", demo.before["database"], swapped)
    with steps.step("Undo: that was wrong, and the work takes its place again"):
        examples.apply_example(kubectl, "62-undo.yaml", demo.values, steps)
        _carry_out(demo, "undo")
        demo.comparisons += compare("undone", worked, application.fingerprint(kubectl, "database"))


def _carry_out(demo: Demo, what: str) -> None:
    request = restoring.approve_and_wait(demo.kubectl, demo.object_name(what), demo.steps)
    demo.taken.append((f"{what} of the database", request["status"].get("durationSeconds", 0)))
    demo.steps.detail(request["status"].get("message", ""))
