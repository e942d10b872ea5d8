"""Which edition of a class of the script is being sent: the sender's side of ``_classes.py``.

A worker that stays for several runs must have each class as the script has it by now, and must keep what tasks have
stored in it since. So a class is sent with its *edition*: a digest of each attribute, by which the worker sees what has
changed, and the instant since which the attributes have been so, by which it sees what is newer.
"""

from __future__ import annotations

from functools import cached_property
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from parallelkit._system import monotonic
from parallelkit._worker import _classes
from parallelkit._worker._travel import Apart, pack

METHODS = FunctionType, classmethod, staticmethod, property, cached_property
"""The usual types of attributes that have functions in them; in those of other types, functions are searched for."""

SHORT = 8
"""Bytes of a digest."""

_latest: WeakKeyDictionary[type, _classes.Edition] = WeakKeyDictionary()
"""The edition of each class when it was last looked at."""


class Editions:
    """Adds its edition to each class in pickles that belong together. A class is looked at once, when it is first met."""

    def __init__(self, by_file: bool = False) -> None:
        self.by_file = by_file  # then a digest is made of the file's name, too
        self.known: dict[int, Any] = {}
        self._states: dict[type, tuple[dict[str, Any], Any, _classes.Edition]] = {}

    def reduce(self, cls: type, reduced: Any) -> Any:
        """The class with its edition, and with its attributes as they were when that was determined."""
        make, spec, state, *_ = reduced
        if cls not in self._states:
            attributes, own = state
            self._states[cls] = attributes, own, _edition_of(cls, attributes, _Names(self.by_file))
        return make, spec, self._states[cls], None, None, _classes.fill_edition


class _Names:
    """Within a digest, has classes of the script stand for themselves by their ids: they have editions of their own."""

    def __init__(self, by_file: bool) -> None:
        self.by_file = by_file
        self.known: dict[int, Any] = {}

    def reduce(self, cls: type, reduced: Any) -> Any:
        """The id by which cloudpickle knows the class, in place of the class."""
        _, spec, *_ = reduced
        return str, (spec[_classes.TRACKER],)


def _edition_of(cls: type, attributes: dict[str, Any], names: _Names) -> _classes.Edition:
    """The edition that this class has, which is the last one again if nothing has changed since."""
    now = monotonic()  # before the look: of two threads, the one that looks later then has the later edition
    digests = _digests_of(attributes, names)
    known = _latest.get(cls)
    if known is not None and known[1] == digests:
        # With the new digests, though they are equal: their names are the very objects in ``attributes``, and so the
        # pickle has the same bytes each time.
        return known[0], digests
    if known is None or known[0] <= now:
        _latest[cls] = now, digests
    return now, digests


def _digests_of(attributes: dict[str, Any], names: _Names) -> dict[str, bytes]:
    """A digest of all that travels with each attribute.

    Attributes with functions have one in common: as they are set together, their functions share their globals.
    """
    methods = {name: value for name, value in attributes.items() if isinstance(value, METHODS)}
    others = {name: _digest(attributes[name], names) for name in attributes if name not in methods}
    also = [name for name, (_, has_functions) in others.items() if has_functions]
    common, _ = _digest([methods, [attributes[name] for name in also]], names)
    return {name: digest for name, (digest, _) in others.items()} | dict.fromkeys([*methods, *also], common)


def _digest(value: object, names: _Names) -> tuple[bytes, bool]:
    """The digest of what travels with a value, and whether there are functions in it."""
    from hashlib import sha1  # late, as few need it; processors have instructions for this one

    apart = Apart()
    blob = pack(value, apart, editions=names)
    digest = sha1(blob, usedforsecurity=False)
    for buffer in apart.buffers:
        digest.update(buffer)
    return digest.digest()[:SHORT], blob.find(b"_make_function") >= 0
