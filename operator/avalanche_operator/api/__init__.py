"""The four kinds as typed values, and the CRDs and their reference generated from them. May import the contract and pydantic, nothing else."""
