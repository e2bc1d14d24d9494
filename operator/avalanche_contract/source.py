"""What can be backed up, and be the target of a restore, as a container reaches it: paths and addresses, no secret."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from avalanche_contract.base import Credential, Strict


class PostgresqlSource(Strict):
    """One PostgreSQL database, reached over TCP (or a socket folder as ``host``)."""

    kind: Literal["postgresql"] = "postgresql"
    name: str
    host: str
    port: int = 5432
    database: str
    username: Credential | str
    password: Credential | None = None
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    ca_file: str | None = None
    format: Literal["Plain", "Custom", "Directory"] = "Plain"
    jobs: int = Field(default=1, ge=1, le=16)
    """Of a Directory dump; of its restore, which above 1 is not one transaction."""
    include_globals: bool = False
    """Roles and tablespaces of the server besides, without passwords."""
    schemas: tuple[str, ...] = ()
    exclude_tables: tuple[str, ...] = ()


class SqliteSource(Strict):
    """One SQLite database file. Its folder must be writable when the database is in WAL mode."""

    kind: Literal["sqlite"] = "sqlite"
    name: str
    path: str
    described: str | None = None
    """How to name it to a person, and to an approval: ``claim data, path app.sqlite``; absent, it is the path."""


def _relative(path: str) -> str:
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise ValueError(f"the path {path!r} is not relative to the root, or has '..'")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]


class Preserve(Strict):
    """What of files comes along besides contents, modes and times: into a backup, or back."""

    ownership: bool = False
    """Numbers of owner and group. An archive has them always; only root can give files away."""
    extended_attributes: bool = False
    """ACLs as well; never what makes programs run with rights."""


class FilesSource(Strict):
    """Folders and files beneath ``root``."""

    kind: Literal["files"] = "files"
    name: str
    root: str
    described: str | None = None
    """How to name it to a person, and to an approval: ``claim data``; absent, it is the root."""
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1)] = (".",)
    """Relative to ``root``, without ``..``."""
    exclude: tuple[str, ...] = ()
    """Patterns of :mod:`fnmatch` on the path relative to ``root``, or on the last name where they hold no ``/``."""
    one_file_system: bool = False
    preserve: Preserve | None = None
    """Of a source: what a backup holds, and is told of. Of a target: what is set."""


Source = Annotated[PostgresqlSource | SqliteSource | FilesSource, Field(discriminator="kind")]
