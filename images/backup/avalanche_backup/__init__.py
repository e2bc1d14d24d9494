"""The data plane: reads databases and files, writes and verifies backups, restores them.

It sees data and storage, and nothing of Kubernetes beyond the request that it is handed.
"""
