"""Sources: PostgreSQL, SQLite and files, each behind :class:`base.Source`. May run client tools; knows nothing of storage."""
