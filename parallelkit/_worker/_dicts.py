"""Small dicts of plain data, so pickled that many are read by one call, and that each key travels once.

Such a pickle has no end, so that results lie in the heap as the entries of one list. It refers to nothing but
itself and the keys that the parent was told before: of protocol 3, it names the places of its memo. Those of the keys are
the last that one byte can name, and a small pickle does not get that far.
"""

from __future__ import annotations

from _pickle import Pickler, loads
from _struct import Struct

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MOST = 512  # bytes of a small one; each entry of its memo takes three
KEYS = 32  # that a worker tells of, of at most so many ...
LONGEST = 100  # ... bytes
_FIRST = 256 - KEYS
"""The place of the first key in the memo; a small one's own go up to KEYS + MOST / 3."""

_LENGTH = Struct("<I")


class Dicts:
    """Those of one worker."""

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self._tell = tell
        self._written: list[bytes] = []
        self._pickler = _PlainPickler(_File(self._written), 3)
        self._places: dict[int, tuple[int, str]] = {}  # of the keys, by their ids, as a memo has it
        self._keys = Pickler(_File([]), 3)  # holds a memo of them, to be copied
        self._memo = self._keys.memo
        self._seen: dict[int, str] = {}
        self.fit = False
        """Whether the next one is likely to be small and plain: the last was."""
        self.looked = False
        """In this batch."""

    def dump(self, value: dict[Any, Any]) -> bytes | None:
        """Its pickle, whose last byte is its end; None where it is not small, or not plain."""
        pickler, written = self._pickler, self._written
        try:
            pickler.memo = self._memo
            pickler.dump(value)
            blob = written.pop()
        except Exception:  # it is not plain; whatever else it is, the general way will meet it and tell
            blob = b""
        if blob and not written and len(blob) <= MOST:
            return blob
        written.clear()
        pickler.clear_memo()  # it keeps alive what was pickled
        return None

    def look(self, value: dict[Any, Any]) -> None:
        """Tell the parent of the keys that are the very objects which they were in the one looked at before."""
        self.looked = True
        texts = {id(key): key for key in value if type(key) is str} if len(value) <= KEYS else {}
        shared = [name for name in texts if name in self._seen and name not in self._places]
        for name in shared[: KEYS - len(self._places)]:
            told = texts[name].encode("utf-8", "surrogatepass")
            if len(told) <= LONGEST:
                self._tell(told)
                self._places[name] = (_FIRST + len(self._places), texts[name])
        if shared:
            self._keys.memo = self._places
            self._memo = self._keys.memo
        self._seen = texts


class _File:
    """Where a pickler writes to: whole pickles, if they are small."""

    __slots__ = ("write",)

    def __init__(self, written: list[bytes]) -> None:
        self.write = written.append


class _PlainPickler(Pickler):
    """Pickles what needs no code to be made of it again: numbers, texts, bytes, None; lists, tuples and dicts of these."""

    def reducer_override(self, value: object) -> NoReturn:
        raise TypeError("it is not plain")


def as_known(number: int, key: bytes) -> bytes:
    """What stands before pickles that refer to this key."""
    return b"X" + _LENGTH.pack(len(key)) + key + b"q" + bytes([_FIRST + number]) + b"0"


def read_one(keys: bytes, pickle: bytes) -> Any:
    """The dict; raises whatever unpickling it raises."""
    return loads(keys + pickle + b".")


def read_all(keys: bytes, pickles: bytes) -> list[Any]:
    """The dicts of as many pickles as there are, one after the other."""
    dicts: list[Any] = loads(keys + b"(" + pickles + b"l.")
    return dicts
