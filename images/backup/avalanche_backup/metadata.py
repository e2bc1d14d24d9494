"""The metadata of one backup: the document whose existence *is* the backup.

Written last and create-only. Readers ignore fields they do not know and refuse an unknown major version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from avalanche_contract.base import Time
from avalanche_contract.names import BackupType

FORMAT_VERSION = "1.2"
"""1.1 added ``recipients``, 1.2 ``anomalies`` and ``selection``, and ``signature`` where there is one. Readers of one major version read all of it."""
Bytes = Annotated[int, Field(ge=0, lt=2**63)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class ArtifactMetadata(_Document):
    """One stored object: sizes in bytes, SHA-256 as plain hex so that ``sha256sum -c`` reads it."""

    source: str
    kind: Literal["postgresql", "sqlite", "files"]
    file: str
    """The object's name, in the folder of the metadata."""
    role: Literal["data", "index", "globals"] = "data"
    """``globals`` are the roles and tablespaces of a PostgreSQL server: never restored unasked."""
    format: str = ""
    """``Plain``, ``Custom``, ``Directory``; empty where there is one only."""
    compression: Literal["Gzip", "Zstd", "None"]
    size_bytes: Bytes
    sha256: str
    source_bytes: Bytes
    """Length of the uncompressed stream."""
    source_sha256: str
    recipients: list[str] = Field(default_factory=list)
    """The age public keys whose identities open it, each alone; empty where it is not encrypted."""
    target: str = ""
    """What was backed up, for a person."""
    selection: dict[str, Any] | None = None
    """What of it was chosen: paths, schemas, patterns. ``None`` before 1.2."""
    statistics: dict[str, Any] = Field(default_factory=dict)
    recreate: dict[str, Any] = Field(default_factory=dict)
    restore_command: str = ""
    """How to restore it by hand, with plain tools."""


class AnomalyMetadata(_Document):
    """Why a backup is suspect, for one source."""

    source: str
    reason: str
    """CamelCase."""
    message: str


class RunMetadata(_Document):
    """Which run wrote this backup."""

    identity: str
    """``scheduled/<policy UID>/<minutes>``, ``manual/<backup UID>``, ``job/<job UID>``, ``standalone/<UUID>``."""
    cluster_uid: str = ""
    namespace: str = ""
    policy: str = ""
    policy_uid: str = ""


class Signature(_Document):
    """Who signed the document: base64 of an ed25519 public key, and of its signature of everything else in it."""

    key: str
    value: str


class BackupMetadata(_Document):
    """One backup."""

    format_version: str = FORMAT_VERSION
    backup_id: str
    backup_type: BackupType
    timestamp: Time
    """The second that the ID names."""
    start_time: Time
    completion_time: Time
    snapshot_time: Time
    """The moment of the data: of the earliest of its artifacts."""
    status: Literal["succeeded", "suspect"] = "succeeded"
    """``suspect``: whole, and it looks wrong; it counts as none until a person says otherwise."""
    error_message: str | None = None
    """Why it is suspect, in a sentence."""
    anomalies: list[AnomalyMetadata] = Field(default_factory=list)
    """The worst first; empty unless it is suspect."""
    size_bytes: Bytes
    source_bytes: Bytes
    checksum: str
    """``sha256:<hex>`` of the stored bytes; of the sorted ``sha256sum`` list where there are several (indexes and globals aside)."""
    compressed: bool
    encrypted: bool = False
    files_included: list[str] = Field(default_factory=list)
    depends_on: list[str] = Field(default_factory=list)
    run: RunMetadata
    artifacts: list[ArtifactMetadata]
    tools: dict[str, str] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)
    signature: Signature | None = None


class MetadataInvalid(ValueError):
    """The document is no metadata that this version can read; the text says why."""

    reason = "MetadataInvalid"


def combined_checksum(artifacts: list[ArtifactMetadata]) -> str:
    """Give the checksum of a backup from those of its data objects, as ``sha256sum`` would find it."""
    data = [artifact for artifact in artifacts if artifact.role == "data"]
    if len(data) == 1:
        return f"sha256:{data[0].sha256}"
    lines = sorted(f"{artifact.sha256}  {artifact.file}\n" for artifact in data)
    return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


def recipients_of(artifacts: Iterable[ArtifactMetadata]) -> tuple[str, ...]:
    """Give the public keys that artifacts are encrypted for, each once."""
    return tuple(dict.fromkeys(each for artifact in artifacts for each in artifact.recipients))


def write_metadata(metadata: BackupMetadata) -> bytes:
    """Write the document as people read it."""
    document = metadata.model_dump(mode="json")
    if metadata.signature is None:
        del document["signature"]
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def signed_bytes(document: dict[str, Any], kind: Literal["metadata", "tombstone"] = "metadata") -> bytes:
    """Give what a signature signs: all but itself, keys sorted, without spaces; what it is for comes first."""
    rest = {name: value for name, value in document.items() if name != "signature"}
    written = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return f"avalanche-backup {kind}\n{written}".encode()


def read_metadata(data: bytes) -> BackupMetadata:
    """Read a document.

    :raises MetadataInvalid: it is damaged, or from a newer major version.
    """
    try:
        document = json.loads(data)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair could never be shown
    except (ValueError, RecursionError) as error:
        raise MetadataInvalid(f"not JSON: {str(error)[:200]}") from None
    version = str(document.get("format_version", "")) if isinstance(document, dict) else ""
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise MetadataInvalid(f"format version {version or 'missing'}; this release reads {FORMAT_VERSION}")
    try:
        return BackupMetadata.model_validate(document)
    except RecursionError:
        raise MetadataInvalid("nested far too deep") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise MetadataInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
