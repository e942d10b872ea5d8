"""The job of a run as it arrives in a worker: how to unpickle an item, and the function with its arguments as one of the item."""

from __future__ import annotations

from _pickle import loads
from mmap import mmap

from parallelkit._raised import add_note, describe_error
from parallelkit._worker._buffers import explaining, load_shared
from parallelkit._worker._call import bind
from parallelkit._worker._call_functions import MOST_CACHED, unpack_call, unpack_definition
from parallelkit._worker._functions import make_function
from parallelkit._worker._travel import unpack

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Job = tuple[Callable[..., Any], Callable[[Any], Any]]


def load_job(body: bytes, file: mmap | None, own: mmap | None) -> Job:
    """Unpickle a job; ``own``: the part of its file that it may write to, mapped privately."""
    job, shares = noting(unpack_job, "the function and the arguments of the run")(body, file, own)
    call = explaining(bind(*job)) if shares else bind(*job)
    if job[0] is None:
        return noting(unpack_call, "the function and its arguments"), call
    return noting(unpack, "the item"), call


def unpack_job(body: bytes, file: mmap | None, own: mmap | None) -> tuple[Any, bool]:
    """The job, and whether it has arrays that all workers share."""
    if file is None or not body:
        return unpack_definition(file or body), False
    spans, end = loads(body)
    return load_shared(file, own, spans), end < spans[-1][0]


_kept: dict[str, tuple[bytes, Any]] = {}
"""The functions of runs that were of the script, by name: each as it was last, since an earlier one may hold a large model."""


def kept_function(name: str, packed: bytes) -> Any:
    """A run's function, whose bytes are reversed (see ``Carried``); with what it has put into its globals if an earlier run brought it."""
    blob, fn = _kept.pop(name, (b"", None))
    if blob != packed:
        fn = unpack_definition(packed[::-1])
        if len(_kept) >= MOST_CACHED:
            del _kept[next(iter(_kept))]
    _kept[name] = packed, fn  # now the most recent
    return fn


def new_function(name: str, packed: bytes) -> Any:
    """A lambda or nested function of a run: as it was made, whatever an earlier run with the same bytes has put into its closure."""
    return unpack_definition(packed[::-1])


_MADE = b"cloudpickle", make_function.__module__.encode(), unpack_call.__module__.encode()
_BY_VALUE = (*_MADE, *(made[::-1] for made in _MADE))
"""What is in a pickle by value, and in a function that is part of another pickle (see ``Carried``)."""


IN_A_MODULE = "; if it is the script's, define it in a module, which workers import"
BY_GETATTR = (
    "; a __getattr__ must raise AttributeError for an attribute that it reads itself, which is not there yet"
)


def noting(load: Callable[..., Any], what: str) -> Callable[..., Any]:
    """Add a note to an error of unpickling, which does not tell by itself that the function was not called."""

    def noting(*packed: Any) -> Any:
        try:
            return load(*packed)
        except Exception as error:
            by_value = any(
                part.rfind(mark) >= 0
                for part in packed
                if isinstance(part, (bytes, mmap))
                for mark in _BY_VALUE
            )
            of_script = by_value or "module '__main__'" in describe_error(error)
            cure = IN_A_MODULE if of_script else ""
            cure = BY_GETATTR if isinstance(error, RecursionError) else cure
            add_note(error, f"this was raised when a worker process unpickled {what}{cure}")
            raise

    return noting


def raiser(error: BaseException) -> Callable[..., NoReturn]:
    """Stands in for a function that could not be loaded: every attempt fails with the reason."""

    def fail(*_: object) -> NoReturn:
        raise error

    return fail
