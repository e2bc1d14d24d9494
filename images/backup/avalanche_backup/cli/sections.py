"""The sections of ``config/backup.yaml``, as frozen values: what each key may be, and what it is where it is left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from avalanche_backup.cli import schedule
from avalanche_backup.credentials import give
from avalanche_backup.errors import UsageInvalid
from avalanche_contract.base import Credential
from avalanche_contract.expectation import check_expectation
from avalanche_contract.notification import Channel, EmailChannel, Notifications, UrlsChannel
from avalanche_contract.request import Retention
from avalanche_contract.source import RelativePath

PASSWORD, URLS = "SMTP_PASSWORD", "NOTIFICATION_URLS"
SECRET = frozenset(("smtp_password", "urls"))
"""Keys whose values no error repeats."""
_TLS: Mapping[str, Literal["StartTLS", "TLS", "None"]] = {
    "starttls": "StartTLS",
    "tls": "TLS",
    "none": "None",
}
Address = Annotated[str, Field(max_length=320, pattern=r"^[^\s@<>,;:\"]+@[^\s@<>,;:\"]+$")]


def _as_text(value: Any) -> Any:
    """Take a bare number of YAML for its text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Section(BaseModel):
    """A part of the file: frozen, and every key in it is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PreserveSection(Section):
    """What of files a backup holds besides contents, modes and times."""

    ownership: bool = False
    """Held always; with this, the plan of a restore that does not set it says so."""
    extended_attributes: bool = False


class FilesSection(Section):
    """Which files are backed up."""

    base_dir: str = "."
    paths: Annotated[tuple[RelativePath, ...], Field(min_length=1)] = (
        "data/datasets",
        "data/reference",
        "data/results",
        "config",
    )
    exclude: tuple[str, ...] = ()
    preserve: PreserveSection = PreserveSection()


class DatabaseSection(Section):
    """How a PostgreSQL database is dumped; which one, the environment says."""

    format: Literal["plain", "custom", "directory"] = "plain"
    jobs: Annotated[int, Field(ge=1, le=16)] = 1
    """Of a dump of format ``directory``."""
    include_globals: bool = False

    @model_validator(mode="after")
    def _jobs_fit(self) -> DatabaseSection:
        if self.jobs > 1 and self.format != "directory":
            raise ValueError("jobs above 1 need format: directory")
        return self


class QuerySection(Section):
    """A question to the restored database, and what its single value must be."""

    sql: Annotated[str, Field(min_length=1, max_length=4096)]
    expect: Annotated[
        str, BeforeValidator(_as_text), AfterValidator(check_expectation), Field(max_length=1024)
    ]


class DrillSection(Section):
    """What a drill asks the restored database, and as whom the database is restored."""

    queries: tuple[QuerySection, ...] = ()
    query_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    superuser: bool = False
    """Restore as the superuser of the throwaway server: a dump may then run programs as the user of the drill."""


class RetentionSection(Section):
    """How many days, weeks, months and years that have a backup keep one; what `cleanup` goes by."""

    last: Annotated[int, Field(ge=0)] = 0
    daily: Annotated[int, Field(ge=0)] = 7
    weekly: Annotated[int, Field(ge=0)] = 4
    monthly: Annotated[int, Field(ge=0)] = 12
    yearly: Annotated[int, Field(ge=0)] = 0
    time_zone: str = "Etc/UTC"
    max_delete_percent: Annotated[int, Field(ge=0, le=100)] = 50

    @property
    def rules(self) -> Retention:
        """Give them as a request has them."""
        return Retention(
            keep_last=self.last,
            keep_daily=self.daily,
            keep_weekly=self.weekly,
            keep_monthly=self.monthly,
            keep_yearly=self.yearly,
        )


class AnomalySection(Section):
    """When a backup is suspect although nothing failed."""

    max_shrink_percent: Annotated[int, Field(ge=0, le=100)] = 50
    """Less than the median of the last verified backups by more than this; 100 compares no amounts."""


class S3Section(Section):
    """A bucket."""

    bucket: str = "avalanche-backups"
    prefix: str = "production/"
    region: str = "us-east-1"
    endpoint: str | None = None


class AzureSection(Section):
    """A container of Azure Blob Storage. Account and key come from the environment."""

    container: str = "avalanche-backups"
    prefix: str = "production/"


class GcsSection(Section):
    """A bucket of Google Cloud Storage."""

    bucket: str = "avalanche-backups"
    prefix: str = "production/"
    project_id: str | None = None


class CloudSection(Section):
    """Whether backups go to a bucket as well, and to whose."""

    enabled: bool = False
    provider: Literal["s3", "azure", "gcs"] = "s3"
    s3: S3Section = S3Section()
    azure: AzureSection = AzureSection()
    gcs: GcsSection = GcsSection()


class EmailSection(Section):
    """A mail server and who writes to whom; no host is no mail."""

    smtp_host: str | None = None
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    """`SMTP_PASSWORD` in the environment wins."""
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca_file: str | None = None
    from_email: Address | None = None
    to_emails: tuple[Address, ...] = ()


class NotificationsSection(Section):
    """Who is told when a backup fails, works again, is suspect or is found damaged."""

    enabled: bool = True
    urls: tuple[SecretStr, ...] = ()
    """Of apprise. `NOTIFICATION_URLS` in the environment, one a line, wins."""
    email: EmailSection = EmailSection()


class LogsSection(Section):
    """How long the log of a day stays."""

    keep_days: Annotated[int, Field(ge=1)] = 30


class ScheduledSection(Section):
    """One run of `run-scheduled`: every day, or on a weekday, or on a day of the month."""

    run: schedule.Command
    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d)?$")]
    weekday: schedule.Weekday | None = None
    day: Annotated[int, Field(ge=1, le=28)] | None = None


class SchedulerSection(Section):
    """What `run-scheduled` runs, and in which time zone."""

    time_zone: str = "Etc/UTC"
    runs: tuple[ScheduledSection, ...] = (
        ScheduledSection(run="database", at="02:00"),
        ScheduledSection(run="files", at="03:00", weekday="sunday"),
        ScheduledSection(run="full", at="04:00", day=1),
        ScheduledSection(run="cleanup", at="05:00", weekday="sunday"),
        ScheduledSection(run="verify", at="06:00"),
    )

    @property
    def entries(self) -> tuple[schedule.Run, ...]:
        """Give the runs."""
        return tuple(
            schedule.Run(each.run, time.fromisoformat(each.at), each.weekday, each.day) for each in self.runs
        )

    @property
    def zone(self) -> ZoneInfo:
        """Give the time zone.

        :raises UsageInvalid: there is none of this name.
        """
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageInvalid(
                f"backup.scheduler.time_zone {self.time_zone!r} is not known: write one such as Europe/Berlin"
            ) from None


class CompressionSection(Section):
    """How artifacts are compressed."""

    algorithm: Literal["gzip", "zstd", "none"] = "gzip"
    level: Annotated[int, Field(ge=1, le=19)] | None = None


class EncryptionSection(Section):
    """Whom backups are encrypted for, and what opens them again; public keys here, private ones in a file."""

    recipients: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    identity_file: str | None = None


PublicKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]


class SigningSection(Section):
    """What signs backups, a private key in a file, and whose signatures are believed, public keys here."""

    key_file: str | None = None
    trusted_keys: Annotated[tuple[PublicKey, ...], BeforeValidator(_listed)] = ()


def _compression(value: Any) -> Any:
    if value is True:
        return {}
    return {"algorithm": "none"} if value is False else value


class BackupSection(Section):
    """Everything beneath ``backup:``."""

    root_dir: str = "data/backups"
    files: FilesSection = FilesSection()
    database: DatabaseSection = DatabaseSection()
    retention: RetentionSection = RetentionSection()
    compression: Annotated[CompressionSection, BeforeValidator(_compression)] = CompressionSection()
    encryption: EncryptionSection = EncryptionSection()
    anomaly: AnomalySection = AnomalySection()
    signing: SigningSection = SigningSection()
    cloud: CloudSection = CloudSection()
    drill: DrillSection = DrillSection()
    notifications: NotificationsSection = NotificationsSection()
    logs: LogsSection = LogsSection()
    scheduler: SchedulerSection = SchedulerSection()


class Document(Section):
    """The whole file."""

    backup: BackupSection = BackupSection()


def channels_of(section: NotificationsSection, environment: Mapping[str, str]) -> Notifications:
    """Give the channels of the configuration; secrets that stand in the file are named like the variable that wins.

    :raises UsageInvalid: a mail server without sender or recipient, or a password without TLS.
    """
    if not section.enabled:
        return Notifications()
    channels: list[Channel] = []
    if section.urls:
        give(URLS, "\n".join(each.get_secret_value() for each in section.urls))
    if section.urls or environment.get(URLS):
        urls = Credential(described=f"backup.notifications.urls or {URLS}", environment=URLS)
        channels.append(UrlsChannel(name="urls", urls=urls))
    if section.email.smtp_host:
        channels.append(_email(section.email, section.email.smtp_host, environment))
    return Notifications(channels=tuple(channels))


def _email(found: EmailSection, host: str, environment: Mapping[str, str]) -> EmailChannel:
    if found.from_email is None or not found.to_emails:
        missing = "to_emails" if found.from_email else "from_email"
        raise UsageInvalid(
            f"backup.notifications.email.{missing} is missing: smtp_host wants sender and recipients"
        )
    if found.smtp_password is not None:
        give(PASSWORD, found.smtp_password.get_secret_value())
    password = None
    if found.smtp_user is not None:
        described = f"backup.notifications.email.smtp_password or {PASSWORD}"
        password = Credential(described=described, environment=PASSWORD)
    elif found.smtp_password is not None or environment.get(PASSWORD):
        raise UsageInvalid(
            "backup.notifications.email.smtp_user is missing: there is a password without a user"
        )
    if password is not None and found.tls == "none":
        raise UsageInvalid("backup.notifications.email.tls: none sends no password; write starttls or tls")
    return EmailChannel(
        name="email", host=host, port=found.smtp_port, tls=_TLS[found.tls], ca_file=found.ca_file,
        username=found.smtp_user, password=password, sender=found.from_email, to=found.to_emails,
    )  # fmt: skip
