"""BackupPolicy: its CronJob, its probe, and what its runs came to. ``decide`` is pure; what a policy comes to is in ``applying``."""
