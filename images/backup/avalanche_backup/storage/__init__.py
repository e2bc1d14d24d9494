"""Stores: keys and bytes, each behind :class:`base.Store`. May import the SDKs, errors and the contract; nothing of backups."""
