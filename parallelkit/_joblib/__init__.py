"""The parts of the joblib backend."""
