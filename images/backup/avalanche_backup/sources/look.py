"""What a folder is like that is in both trees of a Swap: written down before it changes, so that it can be led back."""

from __future__ import annotations

import os
import stat
from base64 import b64decode, b64encode
from typing import Any, NamedTuple

from avalanche_backup.sources import attributes
from avalanche_backup.sources.owning import Finish, Owner, finish
from avalanche_backup.sources.reaching import FOLDER, Tree
from avalanche_contract.source import Preserve


class Look(NamedTuple):
    """Mode and time; owner and attributes where a restore sets them."""

    mode: int
    moment: int
    """Of its change, in nanoseconds."""
    owner: Owner | None = None
    attributes: dict[str, str] | None = None
    """Those that a restore sets; their values in base64."""

    def give(self, tree: Tree, path: str) -> None:
        """Make a folder like this, through its descriptor where owner or attributes are set.

        :raises RestoreFailed: its file system does not keep them. :raises OSError: nor mode or time.
        """
        if self.owner is None and self.attributes is None:
            tree.set(path, self.mode, self.moment)
            return
        lists = None
        if self.attributes is not None:
            lists = {name: b64decode(value) for name, value in self.attributes.items()}
        folder, name = tree.at(path)
        descriptor = os.open(name, FOLDER, dir_fd=folder)
        try:
            if lists is not None:
                attributes.put(descriptor, lists, path, attributes.is_plain)
            finish(descriptor, Finish(self.mode, self.moment, self.owner, lists), path)
        finally:
            os.close(descriptor)


def look_at(tree: Tree, path: str, status: os.stat_result, preserve: Preserve) -> Look:
    """Say what a folder is like.

    :raises OSError: its attributes cannot be read.
    """
    owner = (status.st_uid, status.st_gid) if preserve.ownership else None
    given = None
    if preserve.extended_attributes:
        folder, name = tree.at(path)
        found = attributes.settable(attributes.read(f"/proc/self/fd/{folder}/{name}"))
        given = {each: b64encode(value).decode() for each, value in found.items()}
    return Look(stat.S_IMODE(status.st_mode), status.st_mtime_ns, owner, given)


def parse_look(found: Any) -> Look:
    """Read what a folder is like from a journal, which lies where others may write.

    :raises ValueError: it is nothing that was written there; so say ``TypeError``, ``IndexError`` and ``AttributeError``.
    """
    mode, moment, *rest = found
    owner, given = rest or (None, None)
    for value in (given or {}).values():
        b64decode(value, validate=True)
    return Look(int(mode), int(moment), (int(owner[0]), int(owner[1])) if owner else None, given)
