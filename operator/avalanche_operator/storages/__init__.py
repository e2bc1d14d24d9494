"""BackupStorage: is it usable, and what lies in it. ``decide`` is pure; ``reconcile`` reads, decides, writes."""
