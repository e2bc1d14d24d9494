"""Speed and memory, measured beside the tools that people would use instead: ``make bench``.

``data`` makes what is backed up, the same bytes each time; ``measure`` runs one command and says what it took; ``ours`` and
``peers`` are what is measured; ``scenes`` puts them side by side; ``report`` and ``plot`` write ``docs/benchmarks.md``.
"""
