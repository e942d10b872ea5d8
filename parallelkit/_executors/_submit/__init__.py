"""How calls become futures: ``_futures.py`` has the executors whose calls they are."""
