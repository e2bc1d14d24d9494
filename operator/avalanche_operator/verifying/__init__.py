"""Reading back what lies in storage, by a CronJob per policy. ``build`` and ``decide`` are pure; ``policy`` reads, then writes."""
