"""Packs joblib's calls: an array that comes again and again is copied once, into memory that all workers map.

Each batch maps the copy privately, so it may write to it, unseen by all others. The copy is made for the
second batch with that array; later batches do not see what the caller changes after that, as under loky.
An array that *is* a file (``numpy.memmap``) is sent as the name of the file, and maps the same file in the
worker.
"""

from __future__ import annotations

import os
from pickle import PickleBuffer, Pickler
from typing import Any
from weakref import ref

from parallelkit._worker import _channel
from parallelkit._worker._editions import Editions
from parallelkit._worker._travel import Apart, dump, is_plain, pack_by_value

MOST = 256  # arrays that are copied: each takes a descriptor, here and in each worker that maps it

Part = PickleBuffer | tuple[str, int]
"""A large buffer of a batch: itself, or the path and the size of a file that has its bytes."""


class Packer:
    """Packs the batches of one ``Parallel``. Arrays of ``max_nbytes`` or more are shared; None: no array is."""

    def __init__(self, max_nbytes: int | None) -> None:
        self._least = float("inf") if max_nbytes is None else max_nbytes
        self._known: dict[Any, Known] = {}  # any thread in which an array is collected removes it
        self._by_value = False
        self._editions = Editions(by_file=True)

    def pack(self, calls: Any) -> tuple[bytes, list[Part]]:
        """Return the pickled calls, and their large buffers beside them; raises whatever pickling raises."""
        apart = Apart()
        blob = None if self._by_value else self._pack_by_reference(calls, apart)
        if blob is None:
            blob = pack_by_value(calls, apart, self._editions)
        return blob, [self._part_of(raw) for raw in apart.take()]

    def _pack_by_reference(self, calls: Any, apart: Apart) -> bytes | None:
        """Pickle by reference, which is faster; None if that will not do, and then it is not tried for later batches."""
        try:
            blob = dump(Pickler, calls, apart, by_file=True)
        except Exception:
            self._by_value = True
            return None
        self._by_value = not is_plain(apart.bare(blob))
        return None if self._by_value else blob

    def _part_of(self, raw: memoryview[int]) -> Part:
        owner = owner_of(raw.obj)
        if raw.nbytes < self._least or owner is None:
            return PickleBuffer(raw)
        key = (id(owner), raw.obj.__array_interface__["data"][0], raw.nbytes)  # type: ignore[attr-defined]  # an array
        known = self._known.get(key)
        if known is None:
            self._known[key] = Known(ref(owner, lambda _: self._forget(key)))
            return PickleBuffer(raw)
        if known.fd is None:
            if sum(each.fd is not None for each in list(self._known.values())) >= MOST:
                return PickleBuffer(raw)
            known.fd = _channel.new_file("parallelkit-array")
            _channel.write_all(known.fd, raw)
        return f"/proc/{os.getpid()}/fd/{known.fd}", raw.nbytes

    def _forget(self, key: Any) -> None:
        """Close an array's copy: the array is gone, and so are all batches that had it."""
        known = self._known.pop(key, None)
        if known is not None and known.fd is not None:  # workers that have mapped the copy keep it
            os.close(known.fd)

    def close(self) -> None:
        """Forget all arrays, and the editions of the script's classes: for the next call they may have changed."""
        self._editions = Editions(by_file=True)
        for key in list(self._known):
            self._forget(key)


class Known:
    """An array that was sent before, and the descriptor of its copy, once there is one."""

    def __init__(self, owner: ref[Any]) -> None:
        self._owner = owner
        self.fd: int | None = None


def owner_of(exporter: Any) -> Any:
    """Return the array that owns the memory of ``exporter``; None if ``exporter`` is no array."""
    if not hasattr(exporter, "__array_interface__"):
        return None
    while hasattr(base := getattr(exporter, "base", None), "__array_interface__"):
        exporter = base
    return exporter
