"""The job of a run as it arrives in a worker: how to unpickle an item, and the function with its arguments as one of the item."""

from __future__ import annotations

from _pickle import loads

from parallelkit._raised import give_traceback, traceback_of
from parallelkit._worker._brought import unpack_call
from parallelkit._worker._buffers import explaining, load_shared
from parallelkit._worker._call import bind
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import Any, NoReturn

    Job = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def load_job(body: bytes, file: mmap | None, own: mmap | None) -> Job:
    """Unpickle a job; ``own``: the part of its file that it may write to, mapped privately."""
    if file is None or not body:
        job = unpack(file or body)
        call = bind(*job)
    else:
        spans, end = loads(body)
        job = load_shared(file, own, spans)
        call = bind(*job)
        if end < spans[-1][0]:
            call = explaining(call)
    return unpack_call if job[0] is None else unpack, call


def raiser(error: BaseException) -> Callable[[Any], NoReturn]:
    """Stands in for a function that could not be loaded: every attempt fails with the reason."""
    frames = traceback_of(error)

    def fail(item: object) -> NoReturn:
        raise give_traceback(error, frames)

    return fail
