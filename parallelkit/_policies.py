"""When a failed task is retried: the policies that the option ``retries`` stands for. The scheduler does the waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from parallelkit._coroutine_functions import check_called
from parallelkit._errors import TaskExited
from parallelkit._numbers import as_whole, check_count
from parallelkit._raised import traceback_of
from parallelkit._world import the_world

FREE_RETRIES = 10  # of a run, allowed by any budget

On: TypeAlias = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Exception], bool]


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


class Backoff:
    """Up to ``retries`` retries, with exponential backoff and full jitter; a ``Retry`` is one with numbers of the user's own."""

    __slots__ = ("retries",)

    on: On = Exception
    delay: float = 0.1
    factor: float = 2
    max_delay: float = 30
    max_time: float | None = None
    budget: float | None = None

    def __init__(self, retries: int) -> None:
        self.retries = check_count("retries", retries, 0)

    def delay_after(self, number: int, error: BaseException, elapsed: float) -> float | None:
        """Seconds to wait before attempt ``number + 1``, or None if there is none.

        ``elapsed`` is not used: the run checks whether the attempt could start within ``max_time``.

        >>> from parallelkit import Retry
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
        return ceiling if the_world.get().staged else uniform(ceiling)

    def _matches(self, error: BaseException) -> bool:
        if not isinstance(self.on, (type, tuple)):
            return bool(self.on(error))  # type: ignore[arg-type]  # what is no Exception became a TaskExited
        raised = error.__cause__ if isinstance(error, TaskExited) else error
        return isinstance(error, self.on) or isinstance(raised, self.on)


def uniform(most: float) -> float:
    """A random number from 0 up to ``most``.

    Not by ``random``: the program has its own use for the numbers of that, and where a task that is to be tried again has
    used up all descriptors, it cannot be loaded.
    """
    return most * ((int.from_bytes(os.urandom(7)) >> 3) / 2**53)


def is_bounded(policy: object) -> bool:
    """Whether the retries of a policy must start by a certain time (``max_time``)."""
    return isinstance(policy, Backoff) and policy.max_time is not None


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
    if isinstance(retries, Backoff):
        # Even without retries, ``max_time`` bounds the waits of a task that is told to wait.
        return None if retries.retries == 0 and retries.max_time is None else retries
    if as_whole(retries) is not None:
        return as_policy(Backoff(retries))
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


def check_on(on: Any) -> None:
    """Raise TypeError if ``on`` is neither types of errors nor a function of one."""
    kinds = on if isinstance(on, tuple) else (on,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return
    if not isinstance(on, type) and callable(on):
        check_called("on", on)
        return
    raise TypeError(f"on must be exception types (one, or a tuple) or a function of the error, got {on!r}")
