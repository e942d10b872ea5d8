"""Executors: several implementations of one interface."""
