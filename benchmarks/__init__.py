"""Benchmarks against peer libraries: one question per file, each system in a process of its own.

``python -m benchmarks`` asks all questions, ``python benchmarks/overhead_threads.py`` asks one,
``python -m benchmarks --quick`` checks the budget in under two minutes.
"""
