"""How submitted calls become futures; the executors themselves are in ``_futures.py``."""
