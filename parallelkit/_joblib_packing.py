"""joblib's calls as bytes: an array that comes again and again is copied once, into memory that all workers map.

Each batch maps it anew and privately, so it may write what it got; nobody else sees that. What the
caller changes after the first two batches with an array they do not see either, as under loky. An array that
*is* a file (``numpy.memmap``) travels as the name of the file, and is that file in the worker too.
"""

from __future__ import annotations

import os
from pickle import PickleBuffer, Pickler
from typing import Any
from weakref import ref

from parallelkit._joblib_worker import MAPPED
from parallelkit._worker import _channel
from parallelkit._worker._travel import Apart, Editions, by_value_pickler, dump, is_plain

Part = PickleBuffer | tuple[Any, ...]
"""A large buffer of a batch: itself, or where in what file it is to be found."""


class Packer:
    """Packs the batches of one ``Parallel``. Arrays from ``max_nbytes`` on are shared; None: none is."""

    def __init__(self, max_nbytes: int | None) -> None:
        self._least = float("inf") if max_nbytes is None else max_nbytes
        self._known: dict[Any, Known] = {}
        self._by_value = False
        self._editions = Editions()

    def pack(self, calls: Any) -> tuple[bytes, list[Part]]:
        """The calls without their large buffers, and these; raises whatever pickling raises."""
        apart = Apart()
        blob = None if self._by_value else self._pack_by_reference(calls, apart)
        if blob is None:
            apart.buffers.clear()
            blob = dump(by_value_pickler(), calls, apart, True, self._editions)
        return blob, [self._part_of(raw) for raw in apart.take()]

    def _pack_by_reference(self, calls: Any, apart: Apart) -> bytes | None:
        """By the faster way, or None where it is none; then it is not tried again, for one batch is like another."""
        try:
            blob = dump(Pickler, calls, apart, by_file=True)
        except Exception:
            self._by_value = True
            return None
        self._by_value = not is_plain(blob)
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
            known.fd = _channel.new_file("parallelkit-array")
            _channel.write_all(known.fd, raw)
        return MAPPED, f"/proc/{os.getpid()}/fd/{known.fd}", raw.nbytes

    def _forget(self, key: Any) -> None:
        """The array is gone, and so are all batches that had it."""
        known = self._known.pop(key, None)
        if known is not None:
            known.close()

    def close(self) -> None:
        """Forget all arrays, and what the classes of the script were: in the next call they may be others."""
        self._editions = Editions()
        for key in list(self._known):
            self._forget(key)


class Known:
    """An array that was sent before, and its copy, once there is one."""

    def __init__(self, owner: ref[Any]) -> None:
        self._owner = owner
        self.fd: int | None = None

    def close(self) -> None:
        """Give the copy up; who has mapped it still has it."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


def owner_of(exporter: Any) -> Any:
    """The array whose memory it is; None where it is none."""
    if not hasattr(exporter, "__array_interface__"):
        return None
    while hasattr(exporter.base, "__array_interface__"):
        exporter = exporter.base
    return exporter
