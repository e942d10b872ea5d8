"""The parts of the coroutine engine: ``_coroutines.py`` is the engine itself."""
