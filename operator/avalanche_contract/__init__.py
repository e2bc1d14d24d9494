"""What the two planes share: requests, results, exit codes, names, labels and paths.

A leaf: it imports pydantic and the standard library, and neither plane. The control plane writes a
:mod:`request`, the data plane answers with a :mod:`result` and the lines of :mod:`log`.
"""
