"""Proving by a CronJob per policy that its newest good backup can be restored. ``build`` and ``decide`` are pure; ``policy`` reads, then writes."""
