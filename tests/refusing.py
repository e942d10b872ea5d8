"""Errors that refuse what Python does to every error: have attributes set and read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class HiddenTraceback(Exception):
    @property
    def __traceback__(self):
        raise KeyError("traceback")


class NothingSet(Exception):
    def __setattr__(self, name, value):
        raise KeyError(name)


class NothingRead(Exception):
    def __getattribute__(self, name):
        raise KeyError(name)


KINDS = ["Frozen", "HiddenTraceback", "NothingSet", "NothingRead"]


def fail_at_one(item, kind):
    """Raise an error of this kind for the item 1."""
    if item == 1:
        raise globals()[kind](5)
    return item
