"""The parts of the process engine: ``_processes.py`` is what a run sees of it."""
