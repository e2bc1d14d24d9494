"""What a restore sets of files besides contents, modes and times: refused before it begins, told in its plan. Pure, but for who we are."""

from __future__ import annotations

import os
from collections.abc import Iterator

from avalanche_backup.errors import RestoreRefused
from avalanche_backup.metadata import ArtifactMetadata
from avalanche_contract.source import Preserve, Source

NOTHING = Preserve()


def asked_of(target: Source) -> Preserve:
    """Give what is asked to be set at a target."""
    return (target.preserve or NOTHING) if target.kind == "files" else NOTHING


def check(preserve: Preserve, artifact: ArtifactMetadata) -> None:
    """Refuse what cannot be done.

    :raises RestoreRefused: owners, and we are not root (``OwnershipNeedsRoot``); attributes, and the backup holds none
        (``AttributesNotHeld``).
    """
    if preserve.ownership and os.geteuid() != 0:  # of files alone: Windows has no such call
        raise RestoreRefused(
            f"only root can give files to their owners, and this is user {os.geteuid()}: run the restore as root, or without "
            "preserve.ownership",
            reason="OwnershipNeedsRoot",
        )
    if preserve.extended_attributes and not _held(artifact).extended_attributes:
        raise RestoreRefused(
            f"the backup of {artifact.source} holds no extended attributes: its source did not preserve them; restore without "
            "preserve.extendedAttributes",
            reason="AttributesNotHeld",
        )


def action(preserve: Preserve) -> str:
    """Say what is set, and as whom: the end of a sentence."""
    parts = ["owner and group"] * preserve.ownership + [
        "ACLs and extended attributes"
    ] * preserve.extended_attributes
    if not parts:
        return ""
    return f"; {' and '.join(parts)} are set as the backup has them, by {'root' if os.geteuid() == 0 else f'user {os.geteuid()}'}"


def warnings(preserve: Preserve, artifact: ArtifactMetadata) -> Iterator[str]:
    """Say what the source preserves and this restore does not set."""
    held = _held(artifact)
    if held.ownership and not preserve.ownership:
        yield (
            "the source preserves owners, and this restore does not set them: what comes back belongs to the user of the restore "
            "(preserve.ownership sets them)"
        )
    if held.extended_attributes and not preserve.extended_attributes:
        yield (
            "the backup holds ACLs and extended attributes, and this restore does not set them (preserve.extendedAttributes sets them)"
        )


def _held(artifact: ArtifactMetadata) -> Preserve:
    """Read what a source preserved; metadata may be anybody's."""
    found = artifact.recreate.get("preserve")
    known = found if isinstance(found, dict) else {}
    return Preserve(
        ownership=known.get("ownership") is True, extended_attributes=known.get("extendedAttributes") is True
    )
