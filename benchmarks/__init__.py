"""How fast, beside whom: one question per file, each system in a process of its own.

``python -m benchmarks`` asks them all, ``python benchmarks/overhead_threads.py`` asks one,
``python -m benchmarks --quick`` judges the budget in under two minutes.
"""
