"""Everything together on a real cluster: the operator installed by Helm, PostgreSQL and S3 beside it, kubectl as a person uses it."""
