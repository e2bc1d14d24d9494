"""BackupStorage: is it usable. ``decide`` is pure; ``reconcile`` reads, decides, writes."""
