"""``Retry``, the policy whose numbers the user chooses.

A run with ``retries=3`` does without this module, and so without ``dataclasses``, which takes 10 ms to load.
"""

from dataclasses import KW_ONLY, dataclass

from parallelkit._keywords import TRIES, suggests
from parallelkit._numbers import check_count, check_number
from parallelkit._policies import Backoff, On, check_on
from parallelkit._public import public


@public
@suggests(**TRIES, backoff="factor", exceptions="on")
@dataclass(frozen=True, slots=True)
class Retry(Backoff):
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
      task costs more, as with limits: 0.1 ms in processes, 0.03 ms in threads.
    - ``budget``: the retries that the whole run may make per task started, so that an outage does not
      multiply the load: 0.1 allows one for ten tasks, 1.5 three for two. The first 10 are always allowed.

    If the error says how long to wait (by a Retry-After header or a ``retry_after`` attribute), the task is
    retried no sooner than that, and not at all if it is more than 300 s.

    Raises TypeError or ValueError for a number below 0 (``factor``: below 1), for an ``on`` that is neither
    types nor a function, and for a ``delay`` above 30 s with a ``max_delay`` of 30.
    """

    retries: int
    _: KW_ONLY
    on: On = Backoff.on
    delay: float = Backoff.delay
    factor: float = Backoff.factor
    max_delay: float = Backoff.max_delay
    max_time: float | None = Backoff.max_time
    budget: float | None = Backoff.budget

    def __post_init__(self) -> None:
        plain: dict[str, float] = {"retries": check_count("retries", self.retries, 0)}
        check_on(self.on)
        for name, least in (("delay", 0.0), ("factor", 1.0), ("max_delay", 0.0)):
            plain[name] = check_number(name, getattr(self, name), least)
        for name in ("max_time", "budget"):
            if getattr(self, name) is not None:
                plain[name] = check_number(name, getattr(self, name), 0.0)
        if plain["delay"] > plain["max_delay"] == Backoff.max_delay:  # else asked for
            rule = f"delay must be at most max_delay, which is {Backoff.max_delay} s by default, got {self.delay!r}"
            raise ValueError(f"{rule}; set max_delay, too")
        for name, number in plain.items():
            object.__setattr__(self, name, number)  # the dataclass is frozen
