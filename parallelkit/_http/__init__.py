"""The parts of ``http.fetch``."""
