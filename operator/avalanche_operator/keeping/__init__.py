"""What stays and what goes: cleanups of a policy, and what is said of one Backup. ``build`` and ``decide`` are pure; the rest reads, then writes."""
