"""Owners and attributes of files by the command line, as different users: root with the few rights of the operator's Job, and anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.integration.sources.test_attributes import acl, attributes, owners
from tests.integration.sources.test_files import oracle
from tests.integration.test_command_line import PROGRAM, Project, project

__all__ = ["project"]
BOTH = ("--preserve", "ownership,extended-attributes")
AS_THE_JOB = (
    "setpriv",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+fsetid",
)
AS_ANYBODY = (
    "setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override",
)  # fmt: skip
"""A user who reaches the folder of a test, which is root's."""


def run(project: Project, user: tuple[str, ...], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*user, PROGRAM, *words],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(project: Project) -> Path:
    """Give a tree with owners, ACLs and attributes, which backups of the project hold."""
    section = "files: {paths: [data/in], preserve: {ownership: true, extended_attributes: true}}"
    (project.folder / "config" / "backup.yaml").write_text(f"backup: {{{section}}}\n")
    tree = project.folder / "data" / "in"
    (tree / "shared").mkdir()
    (tree / "shared" / "link").symlink_to("../file")
    os.setxattr(tree / "file", "user.origin", b"\xff\x00 sequencer 7")
    os.setxattr(tree / "file", "system.posix_acl_access", acl((1010, 6)))
    os.chown(tree / "file", 1000, 1001)
    os.chown(tree / "shared", 1002, 5678)
    (tree / "shared").chmod(0o2770)
    os.chown(tree / "shared" / "link", 1003, 1004, follow_symlinks=False)
    return tree


@pytest.mark.parametrize("strategy", ["swap", "in-place"])
def test_the_few_rights_of_the_operators_job_are_enough(project: Project, tree: Path, strategy: str) -> None:
    """Also for the setgid bit of a folder whose group is not root's, and an undo."""
    made = project.json("files")["backup_id"]
    wanted = oracle(tree), owners(tree), attributes(tree)
    shutil.rmtree(tree / "shared")
    (tree / "shared").mkdir(0o2700)
    os.chown(tree / "shared", 4, 4)
    (tree / "file").write_text("changed")
    os.chown(tree / "file", 5, 5)
    before = oracle(tree), owners(tree), attributes(tree)
    kept = ("--keep-previous",) if strategy == "swap" else ()
    words = ("restore", "files", "--backup-id", made, "--force", "--strategy", strategy, *kept, *BOTH)
    done = run(project, AS_THE_JOB, *words)
    assert done.returncode == 0, done.stderr
    assert (
        "owner and group and ACLs and extended attributes are set as the backup has them, by root"
        in done.stdout
    )
    assert (oracle(tree), owners(tree), attributes(tree)) == wanted
    if kept:
        assert run(project, AS_THE_JOB, "undo", "files", "--force").returncode == 0
        assert (oracle(tree), owners(tree), attributes(tree)) == before


def test_anybody_else_is_refused_owners_by_the_plan_and_may_have_attributes(
    project: Project, tree: Path
) -> None:
    made = project.json("files")["backup_id"]
    before = oracle(tree), owners(tree)
    words = ("restore", "files", "--backup-id", made, "--force", "--strategy", "in-place", "--preserve")
    refused = run(project, AS_ANYBODY, *words, "ownership")
    assert refused.returncode == 17, refused.stdout
    assert "only root can give files to their owners, and this is user 65532" in refused.stderr
    assert (oracle(tree), owners(tree)) == before
    shutil.rmtree(tree)
    os.chown(tree.parent, 65532, 65532)  # its mode is part of the backup, and set by its owner
    done = run(project, AS_ANYBODY, *words, "extended-attributes")
    assert done.returncode == 0, done.stderr
    assert "Warning: the source preserves owners, and this restore does not set them" in done.stdout
    assert set(owners(tree).values()) == {(65532, 65532)}
    assert os.getxattr(tree / "file", "user.origin") == b"\xff\x00 sequencer 7"
    assert os.getxattr(tree / "file", "system.posix_acl_access") == acl((1010, 6))


@pytest.mark.parametrize(
    ("what", "asked", "sentence"),
    [
        ("files", "owners", "--preserve knows no 'owners': write ownership or extended-attributes"),
        ("database", "ownership", "--preserve is about files"),
        (
            "full",
            "ownership",
            "`restore files --preserve ownership` as root, and `restore database` as the user whose it is",
        ),
    ],
)
def test_what_cannot_be_preserved_is_named(project: Project, what: str, asked: str, sentence: str) -> None:
    ended = project.run("restore", what, "--backup-id", "files_20260101_000000", "--preserve", asked)
    assert ended.returncode == 2 and sentence in ended.stderr


def test_what_root_writes_into_a_folder_of_backups_belongs_to_whose_folder_it_is(project: Project) -> None:
    """Or his next backup could not write beside it, nor read the lock of a restore."""
    backups = project.folder / "data" / "backups"
    backups.mkdir(parents=True)
    os.chown(backups, 65532, 65532)
    project.json("files")
    stored = {path: owner for path, owner in owners(backups).items() if path.startswith("files")}
    assert len(stored) > 2 and set(stored.values()) == {(65532, 65532)}
