"""Jobs and initializers for the processes of this machine: large arguments lie in memory that all map and none may write to."""

from __future__ import annotations

import sys
from _pickle import PickleBuffer, dumps
from _socket import getdefaulttimeout
from collections.abc import Callable
from typing import Any

from parallelkit._executors._alike import refuse_alike
from parallelkit._executors._at_import import refuse_packed
from parallelkit._executors._contexts import own_decimals
from parallelkit._executors._contract import Job
from parallelkit._executors._culprit import pack_job, unfit_initializer, unfit_job
from parallelkit._executors._lane import File, payload_of
from parallelkit._habits import take_on
from parallelkit._raised import is_of_signal
from parallelkit._worker._buffers import layout, new_block
from parallelkit._worker._call import middle
from parallelkit._worker._travel import Apart, Editions, pack

RECURSION = 1000  # the limit with which Python starts


def pack_shared(job: Job) -> bytes | File:
    """The job for ``_serve``; raises TypeError where the function or its arguments cannot be pickled, or AtImportError.

    Only what lies in ``args`` and ``kwargs`` is shared: buffers of arrays from 256 KiB on. What the
    function brings itself (its closure, the object whose method it is) stays each worker's own.
    """
    if not (job.args or job.kwargs):
        blob = pack_job(job.fn, job.args, job.kwargs, job.star)
        refuse_packed(blob)
        return payload_of(blob)
    apart = _Arguments()
    try:
        parts = _ByItself(job.fn, apart), job.args, dict(job.kwargs), job.star
        blob = pack(parts, apart, by_file=True, editions=Editions())
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_job(job.fn, job.args, job.kwargs, error) from error
    refuse_alike(blob, job.fn, job.args, job.kwargs)
    refuse_packed(blob)
    if not apart.buffers:
        return payload_of(blob)
    buffers = [*apart.buffers, memoryview(blob)]
    spans, size = layout(buffers)
    fd, size = new_block(buffers, spans, size)
    return File(fd, size, dumps(spans, 5))


def pack_initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> bytes | File | None:
    """An initializer for ``_serve``, if it needs one; raises TypeError where it cannot be pickled, or AtImportError."""
    habits = sys.getrecursionlimit(), getdefaulttimeout(), own_decimals()
    if habits != (RECURSION, None, None):
        call: Any = take_on, (*habits, initializer, *initargs)
    elif initializer is not None:
        call = initializer, initargs
    else:
        return None
    try:
        packed = pack(call, editions=Editions())
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_initializer(initializer, initargs, error) from error
    refuse_packed(packed)
    return payload_of(packed)


class _Arguments(Apart):
    """Gathers buffers between two turns."""

    listens = True

    def __call__(self, buffer: PickleBuffer) -> bool:
        return super().__call__(buffer) if self.listens else True


class _ByItself:
    """A function that travels without any buffer set apart: pickling goes in order, and meets a turn before and after."""

    def __init__(self, fn: Callable[..., Any] | None, apart: _Arguments) -> None:
        self._parts = _Turn(apart, False), fn, _Turn(apart, True)

    def __reduce__(self) -> Any:
        return middle, self._parts


class _Turn:
    """Turns the gathering on or off when it is pickled."""

    def __init__(self, apart: _Arguments, listens: bool) -> None:
        self._apart = apart
        self._listens = listens

    def __reduce__(self) -> Any:
        self._apart.listens = self._listens
        return bool, ()
