"""The parts of the dask engine: ``_dask.py`` is what a run sees of it."""
