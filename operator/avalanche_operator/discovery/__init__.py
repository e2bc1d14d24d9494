"""What lies in a storage, mirrored into Backups. ``build`` and ``decide`` are pure; ``storage`` reads a page and writes."""
