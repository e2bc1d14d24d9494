"""BackupPolicy: what is backed up, when and where to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from avalanche_contract.names import BackupType
from avalanche_operator.api.common import (
    ApiModel,
    Conditions,
    IdentityReference,
    LocalReference,
    Moment,
    Name,
    ProbeStatus,
    RecipientsReference,
    SigningKeyReference,
    exactly_one,
    rule,
    rules,
)
from avalanche_operator.api.drill import DrillRun, DrillsStatus
from avalanche_operator.api.notification import Notifications, NotificationStatus
from avalanche_operator.api.objectives import ObjectivesStatus, PolicyObjectives
from avalanche_operator.api.pod import Group, PodTemplate
from avalanche_operator.api.retention import CleanupStatus, PolicyRetention
from avalanche_operator.api.schedule import Schedule
from avalanche_operator.api.source import PolicySource
from avalanche_operator.api.verification import PolicyVerification, VerificationRun


class Destination(ApiModel):
    """Where a copy goes."""

    storage_ref: LocalReference
    """The BackupStorage, in the same namespace."""


class PolicyCompression(ApiModel):
    """How artifacts are compressed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.level) || self.algorithm == 'Zstd' || (self.algorithm == 'Gzip' && self.level <= 9)",
                "level is 1 to 9 for Gzip and 1 to 19 for Zstd; None has no level",
            )
        )
    )

    algorithm: Literal["Gzip", "Zstd", "None"] = "Gzip"
    """Files are read by `gzip`, by `zstd`, or as they are."""
    level: Annotated[int, Field(ge=1, le=19)] | None = None
    """1 is fast, 9 (gzip, in three steps: 1, 4, 7) or 19 (zstd, slow above 12) is small; left out, a fast default."""


Recipient = Annotated[
    str,
    Field(
        max_length=62,
        json_schema_extra=rules(
            rule(
                "self.matches('^age1[02-9ac-hj-np-z]{58}$')",
                "a recipient is the public key of an age identity: age1 and 58 more characters, as `age-keygen -y` prints it",
            )
        ),
    ),
]


class PolicyEncryption(ApiModel):
    """Whom backups are encrypted for, by age. The pods that back up see public keys alone."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                exactly_one("recipients", "recipientsSecretRef"),
                "encryption names its recipients once: by recipients or by recipientsSecretRef",
            )
        )
    )

    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1, max_length=16)] = Field(
        default=(), description="Public keys (`age1…`); the identity of any one of them opens a backup."
    )
    recipients_secret_ref: RecipientsReference | None = None
    """A Secret with the public keys, in place of `recipients`."""
    identity_secret_ref: IdentityReference | None = None
    """A Secret with what opens backups again: mounted into the pods of restores, never into those of backups. It need not exist before there is one."""


class PolicyAnomaly(ApiModel):
    """When a backup is `Suspect` although nothing failed: it stays, and counts as none until it is accepted."""

    max_shrink_percent: Annotated[int, Field(ge=0, le=100)] = 50
    """How much less than the median of the last five verified backups is normal, in tables, rows, files and bytes, for each source by itself; 100 compares no amounts. What was emptied is Suspect whatever this says."""


TrustedKey = Annotated[
    str,
    Field(
        max_length=44,
        json_schema_extra=rules(
            rule(
                "self.matches('^[A-Za-z0-9+/]{43}=$')",
                "a trusted key is an ed25519 public key: the 44 characters that `openssl pkey -in signing.pem -pubout -outform DER | tail -c 32 | base64` prints",
            )
        ),
    ),
]


class PolicySigning(ApiModel):
    """Who signs backups, and whose signatures are believed."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.keySecretRef) || has(self.trustedKeys)",
                "signing names the key that signs, by keySecretRef, or the keys that are trusted, by trustedKeys, or both",
            )
        )
    )

    key_secret_ref: SigningKeyReference | None = None
    """A Secret with the private key that signs the metadata: mounted into the pods of backups alone."""
    trusted_keys: Annotated[tuple[TrustedKey, ...], Field(min_length=1, max_length=16)] | None = None
    """Public keys. Where they are given, a backup that none of them has signed is not restored, not copied and counted as none by retention; left out, signatures are not looked at."""


_NO_DRILL = "!has(self.verification) || !has(self.verification.drill)"


class BackupPolicySpec(ApiModel):
    """What a person declares."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.jitterSeconds) || self.jitterSeconds == 0 || self.schedule.matches('^ *(@|H |[0-9]+ )')",
                "jitterSeconds needs a schedule whose minute is one number: the others are spread already",
            ),
            rule(
                "!has(self.podTemplate) || !has(self.podTemplate.scratch) || !has(self.podTemplate.scratch.ephemeral)"
                " || self.sources.all(each, has(each.postgresql))",
                "podTemplate.scratch.ephemeral is for policies whose sources are all postgresql: use sizeLimit",
            ),
            rule(
                "!has(self.minCopies) || self.minCopies <= self.destinations.size()",
                "minCopies is at most the number of destinations",
            ),
            rule(
                f"{_NO_DRILL} || !has(self.encryption) || has(self.encryption.identitySecretRef)",
                "verification.drill opens what is encrypted: name the Secret that does, by encryption.identitySecretRef",
            ),
            rule(
                f"{_NO_DRILL} || !has(self.verification.drill.queries) || self.verification.drill.queries.all(query,"
                " has(query.source) ? self.sources.exists(each, each.name == query.source && !has(each.files))"
                " : self.sources.filter(each, !has(each.files)).size() == 1)",
                "each of verification.drill.queries names a postgresql or sqlite source of this policy, by source; it may be"
                " left out where there is just one",
            ),
        )
    )

    sources: Annotated[
        tuple[PolicySource, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """What is backed up, together and in this order, as one backup."""
    schedule: Schedule = Field(
        description="Cron: five fields. H in the place of minute or hour picks a stable one for this policy."
    )
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        default="Etc/UTC", description="A name of the time zone database, such as Europe/Berlin."
    )
    jitter_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Spread policies of one schedule: each has a later minute of its own, at most this much later, in the same hour.
    What it comes to stands in `status.schedule`."""
    take_over: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The UID of another cluster whose policy of this namespace and name owns the folder in storage: the next backup makes it this
    cluster's. Only the present owner counts, as `OwnedByAnother` names it: once adopted, the field says nothing more."""
    suspend: bool = False
    """Start no scheduled runs, no cleanups, no verifications and no drills; Backups made by hand run all the same."""
    starting_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 3600
    """How late a run may still start, after the cluster was away."""
    concurrency_policy: Literal["Forbid", "Allow"] = "Forbid"
    """`Forbid` leaves a run out while the one before is under way."""
    active_deadline_seconds: Annotated[int, Field(ge=60, le=604800)] = 21600
    """A run that takes longer is ended and Failed."""
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a run is tried again after a failure that may pass."""
    successful_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    """How many Jobs of good runs stay, with their logs, once their Backups tell what they came to."""
    failed_jobs_history_limit: Annotated[int, Field(ge=1, le=100)] = 5
    """How many Jobs of failed and skipped runs stay, with their logs, once their Backups tell what they came to."""
    failed_backups_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many Backups of failed scheduled runs stay, and how many of skipped ones."""
    destinations: Annotated[
        tuple[Destination, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra=rules(
                rule(
                    "self.all(a, self.exists_one(b, b.storageRef.name == a.storageRef.name))",
                    "each storage is a destination once: two copies in one place are lost together",
                )
            ),
        ),
    ]
    """Where the backup goes: one pass over the sources feeds all of them. A restore reads from the first that is Ready."""
    min_copies: Annotated[int, Field(ge=1, le=8)] | None = None
    """How many destinations must hold the backup for a run to succeed; left out, all of them."""
    retention: PolicyRetention | None = None
    """Which backups stay. Left out, everything is kept and nothing is cleaned up."""
    verification: PolicyVerification = PolicyVerification()
    """When and how much of what lies in storage is read back again, and whether it is restored to prove it."""
    objectives: PolicyObjectives | None = None
    """What a recovery must keep to; left out, nothing is judged."""
    compression: PolicyCompression = PolicyCompression()
    """How it is compressed."""
    encryption: PolicyEncryption | None = None
    """Whom it is encrypted for; left out, it is not encrypted."""
    anomaly: PolicyAnomaly = PolicyAnomaly()
    """When a backup looks wrong although nothing failed."""
    signing: PolicySigning | None = None
    """Who signs its metadata, and whose signatures are believed; left out, neither."""
    notifications: Notifications = Field(default=(), description="Who is told how runs went.")
    pod_template: PodTemplate = PodTemplate()
    """What the pods of this policy need."""

    @property
    def backup_type(self) -> BackupType:
        """One family of source gives a database or a files backup, both give a full one."""
        families = {"files" if source.files else "database" for source in self.sources}
        if len(families) > 1:
            return "full"
        return "files" if "files" in families else "database"


class Identity(ApiModel):
    """As whom the pods that use the claims ran when they were last seen."""

    claims: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """The claims that this was seen of."""
    run_as_user: Group
    """The user."""
    run_as_group: Group | None = None
    """The group."""
    supplemental_groups: Annotated[tuple[Group, ...], Field(max_length=64)] = ()
    """Groups besides, `fsGroup` among them."""


class CountedSlots(ApiModel):
    """Since when slots are counted that no run started for."""

    mark: Annotated[str, Field(max_length=256)] = ""
    """The schedule and time zone that they were counted by; another one begins anew."""
    since: Moment
    """Slots before are none of ours."""
    last: Moment | None = None
    """The newest slot that a run was seen of."""
    missed: Annotated[int, Field(ge=0)] = 0
    """How many were missed before that run, in all; also those that passed while nobody looked."""


class BackupPolicyStatus(ApiModel):
    """What the operator found."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The generation of the spec that this status is about."""
    conditions: Conditions = ()
    """`Ready`: sources and storage can be used. `CopiesComplete`: of several destinations, all can be used. `LastRunSucceeded`: what the last run came to. `RetentionApplied`: what the last cleanup came to. `BackupsVerified`: what verifications found; False as long as one of its backups is damaged. `Drilled`: whether the last drill restored a backup. `ObjectivesMet`: whether the objectives are met, and since when. `Paused`: a restore works on the sources."""
    schedule: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="The schedule with every H and jitterSeconds resolved."
    )
    probe: ProbeStatus | None = None
    """The last probe of the sources."""
    identity: Identity | None = Field(
        default=None,
        description="The user of the pods that use the claims; remembered, for runs while none of them is there.",
    )
    last_schedule_time: Moment | None = None
    """When the CronJob last started a run."""
    next_schedule_time: Moment | None = None
    """When it will start the next one."""
    last_successful_time: Moment | None = None
    """When the last good backup was complete."""
    slots: CountedSlots | None = None
    """How slots are counted."""
    missed_runs: Annotated[int, Field(ge=0, le=100)] = 0
    """Slots since the last run that no run started for, within `startingDeadlineSeconds`; 100 is that many or more."""
    notification: NotificationStatus | None = None
    """What became of telling that slots were missed."""
    consecutive_failures: Annotated[int, Field(ge=0)] = 0
    """Failed runs since the last good one."""
    last_failed_time: Moment | None = None
    """When the last of those ended."""
    backup_count: Annotated[int, Field(ge=0)] = 0
    """How many of its Backups in this cluster are good, not found damaged, and still in storage."""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """What those hold in storage, together."""
    last_cleanup: CleanupStatus | None = None
    """The last cleanup that was recorded."""
    last_verification: VerificationRun | None = None
    """The last verification that was recorded."""
    last_verified_time: Moment | None = None
    """When a verification last found everything whole that it read."""
    last_drill: DrillRun | None = None
    """The last drill that was recorded."""
    drills: DrillsStatus | None = None
    """What the last good drill measured, and what people were told of drills."""
    objectives: ObjectivesStatus | None = None
    """What the objectives were judged by."""
