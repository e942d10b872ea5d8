"""``RateLimit`` and ``ConcurrencyLimit``: what the option ``limits`` takes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeAlias
from weakref import WeakSet, WeakValueDictionary

from parallelkit._coroutine_functions import check_called
from parallelkit._keywords import field_hint, suggests
from parallelkit._locks import careful
from parallelkit._numbers import as_whole, check_count, check_seconds
from parallelkit._public import public
from parallelkit._scheduling._meters import Cap, RateLog

By = Callable[[Any], Hashable] | None


@public
@suggests()
class RateLimit:
    """Never more than ``calls`` starts in any ``per`` seconds.

    A start counts from the instant at which its worker reports it, and retries count like first attempts. A
    waiting task occupies no worker. The object has memory: runs that share it, one after another or at once,
    share the limit.

    - ``by``: a function from item to group; each group is limited separately, and the group None is not
      limited.
    - ``smooth``: spread the starts evenly, ``per / calls`` seconds apart, instead of allowing bursts.

    An error that says how long to wait (Retry-After or ``retry_after``, up to 300 s) pauses the group of its
    task for that long, whether or not the task is tried again.

    >>> from parallelkit import run_parallel
    >>> ten_a_second = RateLimit(10, per=1)
    >>> run_parallel(len, ["a", "bb"], limits=ten_a_second).values()
    [1, 2]

    Raises TypeError or ValueError for ``calls`` below 1, or ``per`` not above 0 or infinite.
    """

    def __init__(self, calls: int, per: float, *, by: By = None, smooth: bool = False) -> None:
        self.calls, self.per = check_count("calls", calls), check_seconds("per", per)
        if self.per == float("inf"):
            raise ValueError(f"per must be finite, got {per!r}")
        check_by(by)
        if not isinstance(smooth, bool):
            raise TypeError(f"smooth must be a bool, got {smooth!r}")
        self.by, self.smooth = by, smooth
        self._forget_all()
        _made.add(self)

    def _forget_all(self) -> None:
        self._lock = careful(threading.Lock)
        self._logs: OrderedDict[Hashable, RateLog] = OrderedDict()
        self._held: WeakValueDictionary[Hashable, RateLog] = WeakValueDictionary()

    def __repr__(self) -> str:
        shown = f"{self.calls}, per={self.per:g}"
        smooth = ", smooth=True" if self.smooth else ""
        return f"RateLimit({shown}{by_text(self.by)}{smooth})"

    def _log(self, group: Hashable, now: float) -> RateLog:
        """Return the log of a group, which all runs share; forget groups that are at rest."""
        with self._lock:
            while self._logs and self._forget(next(iter(self._logs)), now):
                pass
            log = self._logs.get(group)
            if log is None:
                log = RateLog(self.calls, self.per, self.smooth, self._lock)
            self._logs[group] = self._held[group] = log
            return log

    def _forget(self, group: Hashable, now: float) -> bool:
        """Forget a group that is at rest, unless a run holds its log and so will still start tasks by it."""
        self._logs.move_to_end(group)  # so that those behind it can be forgotten
        if not self._logs[group].at_rest(now):
            return False
        del self._logs[group]
        held = self._held.get(group)
        if held is not None:
            self._logs[group] = held
        return held is None


_made: WeakSet[RateLimit] = WeakSet()


def _forget_in_child() -> None:
    """In a forked process: its parent's runs will report no start here, and one of them may hold a lock."""
    for limit in _made:
        limit._forget_all()


os.register_at_fork(after_in_child=_forget_in_child)


@public
@suggests(max="n", limit="n", max_workers="n")
class ConcurrencyLimit:
    """Never more than ``n`` attempts of a run at a time; with ``by``, a function from item to group, ``n`` in each group.

    Each run counts separately; to limit several runs together, give them one executor of that width. An
    attempt past its ``timeout`` no longer counts. A process has been killed by then, but a thread, or a
    coroutine that could not be cancelled, may still be running.

    >>> from parallelkit import run_parallel
    >>> one_of_each_length = ConcurrencyLimit(1, by=len)
    >>> run_parallel(str.upper, ["a", "b", "cc"], limits=one_of_each_length).values()
    ['A', 'B', 'CC']

    Raises TypeError or ValueError for ``n`` below 1.
    """

    def __init__(self, n: int, *, by: By = None) -> None:
        self.n = check_count("n", n)
        check_by(by)
        self.by = by

    def __repr__(self) -> str:
        return f"ConcurrencyLimit({self.n}{by_text(self.by)})"


Limit: TypeAlias = RateLimit | ConcurrencyLimit
# What type checkers know of a ``ratelimit.limits`` object.
Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]
Limits: TypeAlias = Limit | Decorator | Iterable[Limit | Decorator]


def meter_for(limit: Limit, group: Hashable, now: float) -> RateLog | Cap:
    """The meter of a group under a limit: that of all runs for a ``RateLimit``, else a new one."""
    return limit._log(group, now) if isinstance(limit, RateLimit) else Cap(limit.n)


def as_limits(limits: Any) -> tuple[Limit, ...]:
    """The option ``limits`` as a tuple without duplicates; a ``ratelimit.limits`` object becomes a ``RateLimit``."""
    if limits is None:
        return ()
    many = limits if isinstance(limits, Iterable) and not isinstance(limits, str) else (limits,)
    return tuple(dict.fromkeys(map(_as_limit, many)))


def _as_limit(limit: Any) -> Limit:
    if isinstance(limit, (RateLimit, ConcurrencyLimit)):
        return limit
    calls, period = as_whole(getattr(limit, "clamped_calls", None)), getattr(limit, "period", None)
    if calls is not None and period is not None:
        # The decorator object keeps its RateLimit, so that runs that share the decorator share the limit.
        shared = limit.__dict__.setdefault("_parallelkit_limit", RateLimit(calls, period))
        assert isinstance(shared, RateLimit), "only this function sets the attribute"
        return shared
    raise TypeError(f"limits must be RateLimit or ConcurrencyLimit objects, got {limit!r}")


def by_text(by: By) -> str:
    """The argument ``by`` in a repr: the function's name, where it has one."""
    return "" if by is None else f", by={getattr(by, '__name__', by)}"


def check_by(by: Any) -> None:
    """Raise TypeError unless ``by`` is None or callable."""
    if by is not None and not callable(by):
        raise TypeError(f"by must be callable, got {by!r}{field_hint(by)}")
    check_called("by", by)
