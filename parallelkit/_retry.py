"""When a failed task is retried: ``Retry`` and other policies. The scheduler does the waiting."""

import time
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol, TypeAlias

from parallelkit._coroutine_functions import check_called
from parallelkit._errors import TaskExited
from parallelkit._keywords import TRIES, suggests
from parallelkit._numbers import as_whole, check_count, check_number
from parallelkit._public import public
from parallelkit._raised import traceback_of
from parallelkit._world import the_world

On: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]

MAX_DELAY = 30  # seconds; the default


class RetryPolicy(Protocol):
    """Decides, after a failed attempt, whether and when there is another."""

    @property
    def budget(self) -> float | None:
        """How many retries a run may make per started task; None for no cap."""

    @property
    def max_time(self) -> float | None:
        """Seconds from the start of the first attempt after which no other starts; None for no limit."""

    def delay_after(self, number: int, error: BaseException, elapsed: float) -> float | None:
        """Seconds until the next attempt, or None for no further attempt.

        ``number`` attempts have failed, the last with ``error``, ``elapsed`` seconds after the first began.
        """


@public
@suggests(**TRIES, backoff="factor", exceptions="on")
@dataclass(frozen=True, slots=True)
class Retry:
    """Retry a failed task up to ``retries`` times, with exponential backoff and full jitter.

    >>> from parallelkit import run_parallel
    >>> answers = iter([ConnectionError("busy"), "fine"])
    >>> def ask(question):
    ...     if isinstance(answer := next(answers), Exception):
    ...         raise answer
    ...     return answer
    >>> policy = Retry(3, on=ConnectionError, delay=0.01)
    >>> run_parallel(ask, ["?"], retries=policy).outcomes[0].attempts
    2

    Before the n-th retry, the task waits a random time, between 0 and
    ``min(max_delay, delay * factor ** (n - 1))`` seconds (Marc Brooker, *Exponential Backoff and Jitter*, 2015).
    It occupies no worker meanwhile.

    - ``on``: which errors are retried: an exception type, a tuple of types, or a function from error to
      bool. ``TaskTimeout`` and ``WorkerDied`` are ordinary types here. A ``TaskExited`` also counts as
      the type that the task raised.
    - ``max_time``: no retry starts later than this many seconds after the start of the first attempt. If a
      limit or busy workers hold up a retry until then, the task keeps its last failure. With ``max_time`` a
      task costs 0.1 ms more, as with limits.
    - ``budget``: the retries that the whole run may make per task started, so that an outage does not
      multiply the load: 0.1 allows one for ten tasks, 1.5 three for two. The first 10 are always allowed.

    If the error says how long to wait (by a Retry-After header or a ``retry_after`` attribute), the task is
    retried no sooner than that, and not at all if it is more than 300 s.

    Raises TypeError or ValueError for a number below 0 (``factor``: below 1), for an ``on`` that is neither
    types nor a function, and for a ``delay`` above 30 s with a ``max_delay`` of 30.
    """

    retries: int
    _: KW_ONLY
    on: On = Exception
    delay: float = 0.1
    factor: float = 2
    max_delay: float = MAX_DELAY
    max_time: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        plain: dict[str, float] = {"retries": check_count("retries", self.retries, 0)}
        _check_on(self.on)
        for name, least in (("delay", 0.0), ("factor", 1.0), ("max_delay", 0.0)):
            plain[name] = check_number(name, getattr(self, name), least)
        for name in ("max_time", "budget"):
            if getattr(self, name) is not None:
                plain[name] = check_number(name, getattr(self, name), 0.0)
        if plain["delay"] > plain["max_delay"] == MAX_DELAY:  # else asked for
            rule = f"delay must be at most max_delay, which is {MAX_DELAY} s by default, got {self.delay!r}"
            raise ValueError(f"{rule}; set max_delay, too")
        for name, number in plain.items():
            object.__setattr__(self, name, number)  # the dataclass is frozen

    def delay_after(self, number: int, error: BaseException, elapsed: float) -> float | None:
        """Seconds to wait before attempt ``number + 1``, or None if there is none.

        ``elapsed`` is not used: the run checks whether the attempt could start within ``max_time``.

        >>> Retry(3, delay=0, on=(ConnectionError, TimeoutError)).delay_after(1, TimeoutError(), 0.0)
        0.0
        >>> Retry(3, on=ConnectionError).delay_after(1, ValueError(), 0.0) is None
        True
        """
        if number > self.retries or not self._matches(error):
            return None
        try:
            ceiling = min(self.max_delay, self.delay * self.factor ** (number - 1)) if self.delay else 0.0
        except OverflowError:
            ceiling = self.max_delay
        import random  # takes a millisecond

        return ceiling if the_world.get().staged else random.uniform(0.0, ceiling)

    def _matches(self, error: BaseException) -> bool:
        if not isinstance(self.on, (type, tuple)):
            return bool(self.on(error))  # type: ignore[arg-type]  # what is no Exception became a TaskExited
        raised = error.__cause__ if isinstance(error, TaskExited) else error
        return isinstance(error, self.on) or isinstance(raised, self.on)


def is_bounded(policy: object) -> bool:
    """Whether the retries of a policy must start by a certain time (``max_time``)."""
    return isinstance(policy, Retry) and policy.max_time is not None


class Retrying(Protocol):
    """A ``tenacity.Retrying``, for type checkers."""

    retry: Any
    stop: Any
    wait: Any


class TenacityPolicy:
    """A ``tenacity.Retrying`` as a policy: its ``retry``, ``wait`` and ``stop`` are asked; its ``sleep`` is not used."""

    budget = None
    max_time = None

    def __init__(self, retrying: Any) -> None:
        self._retrying = retrying

    def refusal(self, number: int, value: Any) -> Exception | None:
        """The RetryError that replaces a value for which ``retry`` asks for another attempt; None for any other."""
        from tenacity import RetryCallState, RetryError

        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = number
        state.set_result(value)
        assert state.outcome is not None, "just set"
        return RetryError(state.outcome) if self._retrying.retry(state) else None

    def delay_after(self, number: int, error: BaseException, elapsed: float) -> float | None:
        """What tenacity itself would decide after ``number`` failed attempts."""
        from tenacity import RetryCallState, RetryError, TryAgain

        state = RetryCallState(self._retrying, None, (), {})
        state.start_time = time.monotonic() - elapsed
        state.attempt_number = number
        if isinstance(error, RetryError) and not error.last_attempt.failed:
            state.set_result(error.last_attempt.result())
        else:
            state.set_exception((type(error), error, traceback_of(error)))
        # tenacity does not ask ``retry`` about its TryAgain, by which a task itself asks for another attempt.
        if not (isinstance(error, TryAgain) or self._retrying.retry(state)):
            return None
        state.upcoming_sleep = self._retrying.wait(state) if self._retrying.wait else 0.0
        return None if self._retrying.stop(state) else max(0.0, float(state.upcoming_sleep))


def as_policy(retries: Any) -> RetryPolicy | None:
    """The policy that the option ``retries`` stands for; None if it would change nothing."""
    if isinstance(retries, Retry):
        # Even without retries, ``max_time`` bounds the waits of a task that is told to wait.
        return None if retries.retries == 0 and retries.max_time is None else retries
    if as_whole(retries) is not None:
        return as_policy(Retry(retries))
    if all(callable(getattr(retries, name, None)) for name in ("retry", "wait", "stop", "iter")):
        for name in ("retry", "wait", "stop"):  # those of an AsyncRetrying may be coroutine functions
            check_called(f"{name} of retries", getattr(retries, name))
        return TenacityPolicy(retries) if getattr(retries, "enabled", True) else None
    raise TypeError(f"retries must be an int, a Retry or a tenacity.Retrying, got {retries!r}")


def on_text(on: On) -> str:
    """The name of what ``on`` covers, for messages.

    >>> on_text(OSError), on_text((KeyError, ValueError))
    ('OSError', '(KeyError, ValueError)')
    """
    if isinstance(on, tuple):
        return f"({', '.join(map(on_text, on))})"
    return str(getattr(on, "__name__", on))


def _check_on(on: Any) -> None:
    kinds = on if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return
    if not isinstance(on, type) and callable(on):
        check_called("on", on)
        return
    raise TypeError(f"on must be exception types (one, or a tuple) or a function of the error, got {on!r}")
