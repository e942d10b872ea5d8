"""The parts of the dask engine; a run uses them through ``_dask.py``."""
