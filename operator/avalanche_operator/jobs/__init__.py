"""The Jobs that every kind runs: built from requests (pure), and read back. May import the API models and the contract."""
