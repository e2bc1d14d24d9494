"""The four kinds as typed values, and the CRDs generated from them. May import the contract and pydantic, nothing else."""
