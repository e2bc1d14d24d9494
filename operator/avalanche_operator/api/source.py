"""What a policy backs up: one model for each kind of source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_operator.api.common import (
    ApiModel,
    ClaimReference,
    KeyReference,
    Name,
    RelativePath,
    SecretKeyName,
    SourceName,
    exactly_one,
    rule,
    rules,
)


class DatabaseCredentials(ApiModel):
    """A Secret with the user and the password of a database."""

    name: Name
    """The name of the Secret, in the same namespace."""
    username_key: SecretKeyName = "username"
    """The key with the user's name."""
    password_key: SecretKeyName = "password"  # noqa: S105 - a key's name
    """The key with the password."""


class Postgresql(ApiModel):
    """One PostgreSQL database."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.jobs) || self.jobs == 1 || (has(self.format) && self.format == 'Directory')",
                "jobs above 1 need format: Directory; Plain and Custom are written by one job",
            )
        )
    )

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._:-]+$")]
    """The server's name or address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 5432
    """The server's port."""
    database: Annotated[str, Field(min_length=1, max_length=63)]
    """The database's name."""
    credentials_secret_ref: DatabaseCredentials
    """The Secret with user and password."""
    ssl_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """As libpq's `sslmode`; `verify-full` wants `caSecretRef`."""
    ca_secret_ref: KeyReference | None = None
    """The certificate authority of the server, as PEM."""
    format: Literal["Plain", "Custom", "Directory"] = "Plain"
    """`Plain` is SQL that psql reads; `Custom` is the archive of pg_restore; `Directory` is its folder, dumped by several jobs in scratch and stored as a tar."""
    jobs: Annotated[int, Field(ge=1, le=16)] = 1
    """How many tables are dumped at a time, with format `Directory`; each needs a connection more."""
    include_globals: bool = False
    """Back up the roles and tablespaces of the server besides, without passwords. They are not restored unasked."""
    schemas: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=128)], ...], Field(max_length=64)
    ] = ()
    """Only these schemas, by their exact names (no patterns); left out, all of them and the large objects. A restore replaces these schemas alone."""
    exclude_tables: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()
    """Tables that are left out whole, with their partitions and sequences, as patterns of pg_dump. A restore leaves them as they are."""


class Sqlite(ApiModel):
    """One SQLite database on a claim. The claim is mounted read-write: a database in WAL mode needs it."""

    claim: ClaimReference
    """The claim that the file lies on."""
    path: RelativePath
    """The database file, relative to the claim's root."""


class Preserve(ApiModel):
    """What of files matters besides contents, modes and times."""

    ownership: bool = False
    """Owner and group, by their numbers. A backup holds them always; with this, the plan of a restore that does not set them says so."""
    extended_attributes: bool = False
    """Extended attributes, and with them ACLs."""


class Files(ApiModel):
    """Folders and files of a claim."""

    claim: ClaimReference
    """The claim that the files lie on."""
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1, max_length=32)] = (".",)
    """Folders and files, relative to the claim's root. Each must be there."""
    exclude: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=256)], ...], Field(max_length=64)
    ] = ()
    """Patterns of names (`*.tmp`) or of paths (`cache/*`) that are left out."""
    one_file_system: bool = False
    """Do not follow into other file systems that are mounted beneath."""
    preserve: Preserve | None = Field(
        default=None,
        description="What a backup holds besides contents, modes and times. A restore sets it where it asks for it too.",
    )


class PolicySource(ApiModel):
    """One thing to back up."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("postgresql", "sqlite", "files"),
                "a source has exactly one kind: postgresql, sqlite or files; use one source for each",
            )
        )
    )

    name: SourceName
    """The name of this source in the backup; a restore may choose by it."""
    postgresql: Postgresql | None = None
    """A PostgreSQL database."""
    sqlite: Sqlite | None = None
    """A SQLite database file on a claim."""
    files: Files | None = None
    """Folders and files of a claim."""
