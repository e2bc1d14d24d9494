"""BackupStorage: is it usable, and what is in it (``discovery``). ``decide`` is pure; ``reconcile`` reads, decides, writes."""
