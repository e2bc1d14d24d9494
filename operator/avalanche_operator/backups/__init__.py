"""Backup: one run, from what is observed of its Job. ``build`` and ``decide`` are pure; ``reconcile`` writes."""
