"""``config/backup.yaml`` and the environment, parsed once: the sources, places and people that a run is about."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from avalanche_backup.cli import schedule
from avalanche_backup.cli.parsing import load, parse, refuse_misspelt
from avalanche_backup.cli.sections import (
    BackupSection,
    CompressionSection,
    DrillSection,
    FilesSection,
    RetentionSection,
    channels_of,
)
from avalanche_backup.errors import CredentialsMissing, UsageInvalid
from avalanche_contract.base import Credential
from avalanche_contract.names import BackupType
from avalanche_contract.notification import Notifications
from avalanche_contract.request import Anomaly, Compression, Encryption
from avalanche_contract.source import FilesSource, PostgresqlSource, Preserve, Source, SqliteSource
from avalanche_contract.storage import AzureStorage, DirectoryStorage, GcsStorage, Place, S3Storage, Storage

DATABASE, FILES = "database", "files"
_ALGORITHMS = {"gzip": "Gzip", "zstd": "Zstd", "none": "None"}
_LEVELS = {"gzip": 9, "zstd": 19, "none": 0}
_FORMATS: dict[str, Literal["Plain", "Custom", "Directory"]] = {
    "plain": "Plain",
    "custom": "Custom",
    "directory": "Directory",
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


class Configuration:
    """What the command line works with: the file, and the environment that wins over it."""

    def __init__(self, section: BackupSection, environment: Mapping[str, str]) -> None:
        self._section, self._environment = section, environment
        self.compression = _chosen(section.compression)

    @property
    def encryption(self) -> Encryption | None:
        """Give whom backups are encrypted for; ``None`` where they are not."""
        recipients = self._section.encryption.recipients
        return Encryption(recipients=recipients) if recipients else None

    @property
    def identity(self) -> Credential | None:
        """Give where the identity is read that opens encrypted backups."""
        path = self._section.encryption.identity_file
        if path is None:
            return None
        if path.upper().startswith("AGE-SECRET-KEY-"):  # it is not repeated
            raise UsageInvalid(
                "backup.encryption.identity_file names a file: it never holds the identity itself"
            )
        return Credential(described=f"identity file {path}", file=path)

    @property
    def signing_key(self) -> Credential | None:
        """Give where the key is read that signs backups."""
        path = self._section.signing.key_file
        return Credential(described=f"signing key file {path}", file=path) if path else None

    def _place(self, storage: Storage) -> Place:
        trusted = self._section.signing.trusted_keys or None
        return Place(storage=storage.model_copy(update={"trusted_keys": trusted}))

    def sources(self, backup_type: BackupType) -> tuple[Source, ...]:
        """Give the sources of one type of backup.

        :raises UsageInvalid: the environment does not name a database.
        """
        wanted = {"database": (DATABASE,), "files": (FILES,), "full": (DATABASE, FILES)}[backup_type]
        return tuple(self.source(name) for name in wanted)

    def source(self, name: str) -> Source:
        """Give one source by its name."""
        if name == FILES:
            files = self._section.files
            self._refuse_own_backups(files)
            held = Preserve.model_validate(files.preserve.model_dump())
            return FilesSource(
                name=FILES, root=files.base_dir, paths=files.paths, exclude=files.exclude, preserve=held
            )
        return self._database()

    def _refuse_own_backups(self, files: FilesSection) -> None:
        """Refuse files that hold the folder of the backups: each would hold all those before it."""
        root = Path(os.path.abspath(self._section.root_dir))  # noqa: PTH100 - links are not followed, as in the walk
        base = Path(os.path.abspath(files.base_dir))  # noqa: PTH100
        for path in files.paths:
            within = root.is_relative_to(Path(os.path.normpath(base / path)))
            if within and not any(
                fnmatch.fnmatch(str(root.relative_to(base)), each) for each in files.exclude
            ):
                raise UsageInvalid(
                    f"backup.files.paths: {path} holds backup.root_dir ({self._section.root_dir}), so each backup would "
                    f"hold those before it: put {root.relative_to(base)} into backup.files.exclude, or backups elsewhere"
                )

    @property
    def places(self) -> tuple[Place, ...]:
        """Give where backups go: the folder, and the bucket where ``cloud.enabled``."""
        both = self._cloud_enabled(self._section.cloud.enabled)
        return (self.local, self.cloud) if both else (self.local,)

    @property
    def local(self) -> Place:
        """Give the folder."""
        return self._place(DirectoryStorage(name="local", root=self._section.root_dir))

    @property
    def root_dir(self) -> Path:
        """Give the folder of backups, logs and the lock."""
        return Path(self._section.root_dir)

    @property
    def keep_days(self) -> int:
        """Give how many days of the log stay."""
        return self._section.logs.keep_days

    @property
    def notifications(self) -> Notifications:
        """Give who is told of what."""
        return channels_of(self._section.notifications, self._environment)

    @property
    def scheduled(self) -> tuple[schedule.Run, ...]:
        """Give the runs of `run-scheduled`."""
        return self._section.scheduler.entries

    @property
    def schedule_zone(self) -> ZoneInfo:
        """Give the time zone of `run-scheduled`."""
        return self._section.scheduler.zone

    @property
    def anomaly(self) -> Anomaly:
        """Give when a backup is suspect."""
        return Anomaly(max_shrink_percent=self._section.anomaly.max_shrink_percent)

    @property
    def cloud(self) -> Place:
        """Give the bucket, whether backups go there or not."""
        storages = {"s3": self._s3, "azure": self._azure, "gcs": self._gcs}
        return self._place(storages[self._section.cloud.provider]())

    def _s3(self) -> Storage:
        s3 = self._section.cloud.s3
        return S3Storage(
            name="s3", bucket=s3.bucket, prefix=_folder(s3.prefix), region=s3.region, endpoint=s3.endpoint,
            force_path_style=s3.endpoint is not None,
            access_key_id=self._credential("AWS_ACCESS_KEY_ID"),
            secret_access_key=self._credential("AWS_SECRET_ACCESS_KEY"),
            session_token=self._credential("AWS_SESSION_TOKEN"),
        )  # fmt: skip

    def _azure(self) -> Storage:
        azure = self._section.cloud.azure
        return AzureStorage(
            name="azure",
            container=azure.container,
            prefix=_folder(azure.prefix),
            account_name=self._environment.get("AZURE_STORAGE_ACCOUNT") or None,
            connection_string=self._credential("AZURE_STORAGE_CONNECTION_STRING"),
            account_key=self._credential("AZURE_STORAGE_KEY"),
        )

    def _gcs(self) -> Storage:
        """Give the bucket; GOOGLE_APPLICATION_CREDENTIALS is read by the SDK's own chain."""
        gcs = self._section.cloud.gcs
        return GcsStorage(
            name="gcs", bucket=gcs.bucket, prefix=_folder(gcs.prefix), project_id=gcs.project_id
        )

    def _credential(self, name: str) -> Credential | None:
        """Name a variable that is set."""
        if not self._environment.get(name):
            return None
        return Credential(described=f"environment variable {name}", environment=name)

    @property
    def drill(self) -> DrillSection:
        """Give what a drill asks."""
        return self._section.drill

    @property
    def retention(self) -> RetentionSection:
        """Give what `cleanup` goes by."""
        return self._section.retention

    def _cloud_enabled(self, from_file: bool) -> bool:
        value = self._environment.get("BACKUP_CLOUD_ENABLED")
        if value is None:
            return from_file
        if value.lower() not in (*_TRUE, *_FALSE):
            raise UsageInvalid("environment variable BACKUP_CLOUD_ENABLED: write true or false")
        return value.lower() in _TRUE

    def _database(self) -> Source:
        kind = self._environment.get("DB_TYPE", "postgresql")
        if kind == "sqlite":
            return SqliteSource(name=DATABASE, path=self._needed("DB_PATH", "the SQLite database file"))
        if kind != "postgresql":
            raise UsageInvalid(f"environment variable DB_TYPE is {kind!r}: write postgresql or sqlite")
        dumped = self._section.database
        password = Credential(described="environment variable DB_PASSWORD", environment="DB_PASSWORD")
        return PostgresqlSource(
            name=DATABASE,
            host=self._environment.get("DB_HOST", "localhost"),
            port=self._port(),
            database=self._needed("DB_NAME", "the database to back up"),
            username=self._needed("DB_USER", "the database's user"),
            password=password if self._environment.get("DB_PASSWORD") else None,
            format=_FORMATS[dumped.format],
            jobs=dumped.jobs,
            include_globals=dumped.include_globals,
        )

    def _port(self) -> int:
        text = self._environment.get("DB_PORT", "5432")
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise UsageInvalid(f"environment variable DB_PORT is {text!r}: write a number from 1 to 65535")
        return int(text)

    def _needed(self, name: str, what: str) -> str:
        value = self._environment.get(name)
        if not value:
            raise CredentialsMissing(f"environment variable {name} is not set: it names {what}")
        return value


def _chosen(section: CompressionSection) -> Compression:
    level, most = section.level, _LEVELS[section.algorithm]
    if level is not None and level > most:
        known = f"{section.algorithm} has levels 1 to {most}" if most else "none has no level"
        raise UsageInvalid(f"backup.compression.level is {level}: {known}")
    return Compression.model_validate({"algorithm": _ALGORITHMS[section.algorithm], "level": level})


def _folder(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else f"{prefix}/"


def read_configuration(path: Path | None, environment: Mapping[str, str]) -> Configuration:
    """Read the file (the default one may be absent) and the environment.

    :raises UsageInvalid: the file is missing or wrong; the message names the key and the remedy.
    """
    refuse_misspelt(environment)
    return Configuration(parse(load(path)), environment)
