"""Exceptions that refuse what Python does with every exception, such as setting and reading attributes."""

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


class NothingAsked(Exception):
    def __getattr__(self, name):
        raise RuntimeError(name)


class NoClass(Exception):
    @property
    def __class__(self):
        raise KeyError("class")


class Untrue(Exception):
    """False in a boolean context, like an empty collection of details."""

    def __len__(self):
        return 0


class NoTruth(Exception):
    def __bool__(self):
        raise KeyError("truth")


class Interrupts(Exception):
    def __str__(self):
        raise KeyboardInterrupt


class Exits(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


KINDS = ["Frozen", "HiddenTraceback", "NothingSet", "NothingRead"]
HARD_TO_SHOW = [*KINDS, "NothingAsked", "NoClass", "Untrue", "NoTruth", "Interrupts", "Exits"]


def fail_at_one(item, kind):
    """Raise an error of this kind for item 1; return any other item."""
    if item == 1:
        raise globals()[kind](5)
    return item


def fail_to_begin(kind):
    """An initializer that raises an error of this kind."""
    fail_at_one(1, kind)
