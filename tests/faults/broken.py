"""Values, arguments, keys and exceptions that break whatever handles them."""

from __future__ import annotations

import os
import threading
import time


class TwoArguments(Exception):
    """Cannot be unpickled by default: pickle would call ``__init__`` with one argument, the text."""

    def __init__(self, code, reason):
        super().__init__(f"{reason} ({code})")
        self.code, self.reason = code, reason


class HoldsLock(Exception):
    """Has an attribute that cannot be pickled, and one that can."""

    def __init__(self, text):
        super().__init__(text)
        self.lock, self.code = threading.Lock(), 7


class NoReduce(Exception):
    def __reduce__(self):
        raise RuntimeError("no reduce")


class ReducesToText(Exception):
    """Is unpickled as something that is not an exception."""

    def __reduce__(self):
        return str, ("not an error",)


class ReducesToGarbage(Exception):
    def __reduce__(self):
        return 42


class BreaksOnArrival(Exception):
    """Can be unpickled only in the process that raised it."""

    def __init__(self, text, home=None):
        if home is not None and home != os.getpid():
            raise RuntimeError("far from home")
        super().__init__(text, home or os.getpid())


class NoText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class NoNote(Exception):
    def add_note(self, note):
        raise RuntimeError("no note")


class NoEquality(Exception):
    def __eq__(self, other):
        raise RuntimeError("no equality")

    def __hash__(self):
        raise RuntimeError("no hash")

    def __bool__(self):
        raise RuntimeError("no truth")


class LoudEnd(Exception):
    def __del__(self):
        raise RuntimeError("loud end")


class OwnBase(BaseException):
    """A BaseException that is neither an Exception nor one of Python's own."""


class Mute:
    """A value whose methods all raise, except those that pickle it."""

    def _fail(self, *_):
        raise RuntimeError("mute")

    __repr__ = __str__ = __eq__ = __bool__ = __len__ = __iter__ = __contains__ = __lt__ = __format__ = _fail
    __hash__ = _fail

    def __reduce__(self):
        return Mute, ()


class LoudValue:
    """A value whose ``__del__`` raises."""

    def __del__(self):
        raise RuntimeError("loud value")


class Liar:
    """A value that claims to be an int."""

    @property
    def __class__(self):
        return int


class Rebuilt:
    """An object whose unpickling calls a function."""

    def __init__(self, function, *args):
        self.form = function, args

    def __reduce__(self):
        return self.form


class Reduces:
    """An object whose pickling calls a function."""

    def __init__(self, function, *args):
        self.form = function, args

    def __reduce__(self):
        function, args = self.form
        function(*args)
        raise AssertionError("the function came back")


class Key:
    """A key whose ``repr`` raises; keys with the same number are equal."""

    def __init__(self, number):
        self.number = number

    def __repr__(self):
        raise RuntimeError("no repr")

    def __eq__(self, other):
        return isinstance(other, Key) and self.number == other.number

    def __hash__(self):
        return hash(self.number)


class UnhashableKey(Key):
    def __hash__(self):
        raise RuntimeError("no hash")


class UnequalKey(Key):
    def __eq__(self, other):
        raise RuntimeError("no equality")

    def __hash__(self):
        return 1


def raise_(error):
    raise error


def leave(code):
    os._exit(code)


def hang():
    while True:
        time.sleep(1000)


def nest(depth):
    """Lists nested ``depth`` levels deep."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


def here_in(process, path):
    """In this one process only: create the file ``path``, and hang."""
    if os.getpid() == process:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        while True:
            time.sleep(0.01)
