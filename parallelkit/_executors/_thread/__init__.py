"""The parts of the thread engine: ``_threads.py`` is the engine itself."""
