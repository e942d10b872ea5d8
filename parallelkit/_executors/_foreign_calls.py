"""What a foreign pool runs: one attempt, and the form in which its value or error comes back; what else the pool may answer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from parallelkit._errors import ParallelKitError
from parallelkit._executors._contract import Job, call_with
from parallelkit._executors._process._culprit import pack_job
from parallelkit._raised import describe_error, drop_frames
from parallelkit._system import monotonic
from parallelkit._worker._faults import capture, capture_unsendable, restore
from parallelkit._worker._travel import describe, pack, unpack

Report = tuple[float, float, bool, Any]
"""What an attempt returns, whatever happens in it: start, end, whether it succeeded, value or error."""


def timed(call: Callable[[Any], Any], item: Any, claim: list[float]) -> list[Any]:
    """In a worker thread: run one attempt, noting its start in ``claim``; return a ``Report`` as a list, to be emptied once read."""
    started = monotonic()
    claim.append(started)
    try:
        value = call(item)
    except BaseException as error:
        return [started, monotonic(), False, drop_frames(error)]
    return [started, monotonic(), True, value]


def sealed(job: Job) -> bytes:
    """Return the job as bytes: any pool can carry these, whatever its own pickling can do."""
    with job.guard():
        return pack_job(job)


def run_sealed(job: bytes, item: bytes, serial: int) -> Report:
    """In a worker process: run one attempt; its value or error comes back as bytes that any pool can carry.

    ``serial`` makes every call different, because some pools (dask's) run equal calls only once.
    """
    started = monotonic()
    try:
        value = call_with(Job(*unpack(job)))(unpack(item))
    except BaseException as error:
        return started, monotonic(), False, capture(error)
    ended = monotonic()
    try:
        return started, ended, True, pack(value)
    except BaseException as error:
        return started, ended, False, capture_unsendable(value, error)


def as_future(given: Any, pool: str) -> Any:
    """What ``submit`` has returned; TypeError if that can tell nothing of its call, as a future of asyncio, whose loop does not run."""
    if not hasattr(given, "add_done_callback") or hasattr(type(given), "_asyncio_future_blocking"):
        raise TypeError(f"submit of {pool} must return a concurrent.futures.Future, got {describe(given)}")
    return given


def as_report(given: Any) -> Any:
    """What a pool has returned for a call; TypeError if that is no ``Report``, but something of the pool's own."""
    if isinstance(given, list | tuple) and [float, float, bool] == [type(part) for part in given[:-1]]:
        return given
    raise TypeError(f"it gave {describe(given)} in place of what its call returned")


def our_time(started: float, ended: float, handed: float, now: float) -> tuple[float, float]:
    """The start and end of a call that ran between ``handed`` and ``now``, though perhaps on a host with another clock."""
    if handed <= started and ended <= now:
        return started, ended
    return max(handed, now - (ended - started)), now


def opened(ok: bool, blob: bytes, label: Callable[[], str]) -> tuple[Any, str, bool]:
    """Return the value or error, the error's traceback as text, and whether another try cannot help."""
    return (unpack(blob), "", False) if ok else restore(blob, label)


def broken_value(label: str, error: BaseException) -> Exception:
    """The error of a task whose value cannot be unpickled."""
    broken = TypeError(f"{label} returned a value that cannot be unpickled: {describe_error(error)}")
    broken.__cause__ = error
    return broken


def dropped(error: BaseException, pool: str) -> Exception:
    """Why a run fails whose pool has dropped a call that had not begun."""
    if isinstance(error, Exception) and not isinstance(error, CancelledError):
        return error
    return ParallelKitError(f"the {pool} cancelled a call that had not begun; was it shut down?")
