"""Packs jobs and initializers for processes on this machine; large arrays lie in memory that all workers map."""

from __future__ import annotations

import sys
from _pickle import dumps
from _socket import getdefaulttimeout
from collections.abc import Callable
from types import FunctionType
from typing import Any

from parallelkit._executors._contexts import own_decimals
from parallelkit._executors._contract import Job
from parallelkit._executors._process._at_import import refuse_packed
from parallelkit._executors._process._captures import goes_by_value
from parallelkit._executors._process._carried import carry_for_run
from parallelkit._executors._process._culprit import unfit_initializer, unfit_job
from parallelkit._executors._process._generators import refuse_alike
from parallelkit._executors._process._payload import File, payload_of
from parallelkit._raised import is_of_signal
from parallelkit._worker._buffers import layout, new_block
from parallelkit._worker._editions import Editions
from parallelkit._worker._global_generators import may_have_any
from parallelkit._worker._initial import apply_settings
from parallelkit._worker._travel import Apart, pack, pack_by_value

RECURSION = 1000  # Python's default recursion limit


def pack_shared(job: Job) -> bytes | File:
    """Pack a job for ``_serve``; raises TypeError if the function or its arguments cannot be pickled, or AtImportError.

    Buffers of 256 KiB and more are in memory once, for all workers. Those in ``args`` and ``kwargs`` are read-only. Those
    that the function itself brings (its closure, the object whose method it is) are copied in a worker that writes to them.
    """
    apart = _Buffers()
    blob = _pack_job(job, apart)
    refuse_packed(blob)
    if not apart.buffers:
        return payload_of(blob)
    buffers = [*apart.buffers, memoryview(blob)]
    spans, size = layout(buffers)
    fd, size = new_block(buffers, spans, size)
    own = spans[apart.own][0]  # offset of the first buffer that is not the function's
    return File(fd, size, dumps((spans, own), 5))


def _pack_job(job: Job, apart: _Buffers) -> bytes:
    try:
        bare = not (job.args or job.kwargs)
        fn, own = carry_for_run(job.fn, bare=bare)
        # For a function of the script, plain pickle would often be tried in vain: that takes as long as the rest if the arguments are many objects.
        by_value = not (own and bare) and type(job.fn) is FunctionType and goes_by_value(job.fn)
        parts = fn, _Arguments(job.args, apart), dict(job.kwargs), job.star
        blob = (pack_by_value if by_value else pack)(parts, apart, editions=Editions(by_file=True))
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_job(job, error) from error
    refuse_alike(own if may_have_any(own) else blob, job.fn, job.args, job.kwargs, job.star)
    return blob


def pack_initializer(
    initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> bytes | File | None:
    """Pack the initializer for ``_serve``; raises TypeError if it cannot be pickled, or AtImportError.

    Where this process has changed its recursion limit, socket timeout or decimal context, the workers' initializer also
    sets these. None if there is nothing to do.
    """
    settings = sys.getrecursionlimit(), getdefaulttimeout(), own_decimals()
    if settings != (RECURSION, None, None):
        call: Any = apply_settings, (*settings, initializer, *initargs)
    elif initializer is not None:
        call = initializer, initargs
    else:
        return None
    try:
        packed = pack(call, editions=Editions(by_file=True))
    except Exception as error:
        if is_of_signal(error):
            raise
        raise unfit_initializer(initializer, initargs, error) from error
    refuse_packed(packed)
    return payload_of(packed)


class _Buffers(Apart):
    """The large buffers of a job."""

    own = 0
    """How many the function itself brings; they come first."""


class _Arguments:
    """The arguments of a job. A pickler, which goes in order, comes to them after the function: then its buffers are counted."""

    def __init__(self, args: tuple[Any, ...], apart: _Buffers) -> None:
        self._args = args
        self._apart = apart

    def __reduce__(self) -> Any:
        self._apart.own = len(self._apart.buffers)
        return tuple, (self._args,)
