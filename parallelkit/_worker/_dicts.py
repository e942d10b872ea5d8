"""Small dicts of plain data, pickled so that the parent reads many by one ``loads`` and each key is sent once.

These pickles lie in the heap without their last byte (STOP), so that together they are the entries of one list. Each
refers only to itself and to keys that the parent was told before. It may do so because protocol 3 names the places of
the memo explicitly: the keys have the last places that one byte can name, which a small pickle itself never reaches.
"""

from __future__ import annotations

from _pickle import Pickler, loads
from _struct import Struct
from io import BytesIO
from types import SimpleNamespace

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

MOST = 512  # bytes of a small pickle; each entry in its memo takes three of them
KEYS = 32  # that a worker tells the parent of, each of at most ...
LONGEST = 100  # ... so many bytes
_FIRST = 256 - KEYS
"""The place of the first key in the memo. A small pickle's own entries reach KEYS + MOST / 3 at most."""

_LENGTH = Struct("<I")


class Dicts:
    """Pickles the dicts of one worker.

    ``tell`` sends the caller a key, and the number by which dicts refer to it from then on. If the handler of a signal
    raises just after that, the number is for the next key.
    """

    def __init__(self, tell: Callable[[int, bytes], None]) -> None:
        self._tell = tell
        self._written: list[bytes] = []  # a pickler writes a small pickle whole
        self._pickler = _PlainPickler(SimpleNamespace(write=self._written.append), 3)
        self._places: dict[int, tuple[int, str]] = {}  # of the keys, by id, in the form of a pickler's memo
        self._keys = Pickler(BytesIO(), 3)  # its memo has the keys, and is copied for each dict
        self._memo = self._keys.memo
        self._seen: dict[int, str] = {}
        self.fit = False
        """Whether the next dict is likely to be small and plain, because the last one was."""
        self.looked = False
        """Whether ``look`` was called in this batch."""

    def dump(self, value: dict[Any, Any]) -> bytes | None:
        """Its pickle, whose last byte is STOP; None if it is not small, or not plain."""
        pickler, written = self._pickler, self._written
        try:
            pickler.memo = self._memo
            pickler.dump(value)
            blob = written.pop()
        except Exception:  # it is not plain; any other error recurs, and is reported, in ``Slots.put_object``
            blob = b""
        if blob and not written and len(blob) <= MOST:
            return blob
        written.clear()
        pickler.clear_memo()  # which keeps alive what was pickled
        return None

    def look(self, value: dict[Any, Any]) -> None:
        """Tell the parent of the keys that are the same objects as in the dict looked at before."""
        self.looked = True
        texts = {id(key): key for key in value if type(key) is str} if len(value) <= KEYS else {}
        shared = [name for name in texts if name in self._seen and name not in self._places]
        for name in shared[: KEYS - len(self._places)]:
            told = texts[name].encode("utf-8", "surrogatepass")
            if len(told) <= LONGEST:
                number = len(self._places)
                self._tell(number, told)
                self._places[name] = (_FIRST + number, texts[name])
        if shared:
            self._keys.memo = self._places
            self._memo = self._keys.memo
        self._seen = texts


class _PlainPickler(Pickler):
    """Pickles only what is unpickled without running code: numbers, str, bytes, None; lists, tuples and dicts of these."""

    def reducer_override(self, value: object) -> NoReturn:
        raise TypeError("it is not plain")


def as_known(number: int, key: bytes) -> bytes:
    """The opcodes, to precede pickles that refer to this key, which put it into its place in the memo."""
    return b"X" + _LENGTH.pack(len(key)) + key + b"q" + bytes([_FIRST + number]) + b"0"


def read_one(keys: bytes, pickle: bytes) -> Any:
    """Unpickle a dict; raises whatever unpickling it raises."""
    return loads(keys + pickle + b".")


def read_all(keys: bytes, pickles: bytes) -> list[Any]:
    """Unpickle all dicts whose pickles follow one another here."""
    dicts: list[Any] = loads(keys + b"(" + pickles + b"l.")
    return dicts
