"""Settling the futures of an executor: one, all that wait, or all there are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures._base import PENDING, RUNNING
from functools import partial
from typing import Any

from parallelkit._executors._submit._future import Flight, PoolFuture, Request
from parallelkit._executors._submit._refusals import copy_of
from parallelkit._logger import logger
from parallelkit._raised import name_of


def tell(settle: Callable[[Any], object], ending: Any) -> None:
    """Settle a future. Log an error of a callback that is no ``Exception``, such as SystemExit: it would end the dispatcher's thread."""
    try:
        settle(ending)
    except BaseException:
        logger.exception("a callback of a future raised an error that is no Exception; the executor goes on")


def log_break(failure: BaseException, is_news: bool) -> None:
    """Log that an executor is broken, and by what, as the standard pools do: nobody may ask for the calls that fail with it."""
    if is_news:
        logger.critical("an executor is broken, and makes no more calls", exc_info=failure)


def labels(flying: dict[int, Flight]) -> Callable[[int], str]:
    """How messages name the calls, by index. A method of the dispatcher would make a cycle: dispatcher, port, job, method."""

    def label(index: int) -> str:
        return f"the call of {name_of(flying[index][1])}"

    return label


def cancel_waiting(
    flying: dict[int, Flight],
    inbox: deque[Request],
    slots: int,
    cancel: Callable[[PoolFuture[Any]], object] = PoolFuture.cancel,
) -> None:
    """Cancel the calls that have not begun."""
    for future in to_cancel(flying, inbox, slots):
        cancel(future)


def turn_away(inbox: deque[Request], failure: BaseException, ended: bool) -> None:
    """Fail the calls for which there is no port; if the engine was ``ended``, cancel them, as what no worker was to make."""
    if ended:
        cancel_waiting({}, inbox, 0, partial(tell, PoolFuture.cancel))
    fail({}, inbox, failure)


def to_cancel(flying: dict[int, Flight], inbox: deque[Request], slots: int) -> Iterator[PoolFuture[Any]]:
    """The calls that have not begun, but for as many as there are free slots: a standard pool would have begun those."""
    # Lists, for another thread may change the two meanwhile.
    futures = [future for future, _ in list(flying.values())]
    futures += [future for future, _, _ in list(inbox)]
    # Without taking each one's lock, and then from the back: the threads make short calls about as fast.
    states = [future._state for future in futures]
    waiting = [future for future, state in zip(futures, states, strict=True) if state == PENDING]
    return reversed(waiting[max(0, slots - states.count(RUNNING)) :])


def fail(flying: dict[int, Flight], inbox: deque[Request], failure: BaseException) -> None:
    """Fail all calls, whether handed over or not, each with a copy: raised again and again, one would collect all the tracebacks."""
    futures = [*(future for future, _ in flying.values()), *(future for future, _, _ in inbox)]
    flying.clear()
    inbox.clear()
    for future in futures:
        if future._begin() or future.running():
            tell(future.set_exception, copy_of(failure))
