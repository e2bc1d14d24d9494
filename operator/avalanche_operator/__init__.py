"""The control plane: reconciles the custom resources into CronJobs and Jobs, and their results into status.

It sees the Kubernetes API alone: never data, never the content of a Secret, never a tenant's endpoint.
"""
