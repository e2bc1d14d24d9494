"""BackupPolicy: its CronJob, its probe, and what its runs came to. ``schedule``, ``build`` and ``decide`` are pure."""
