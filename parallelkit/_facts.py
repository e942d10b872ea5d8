"""``Facts``: what the report needs to know of a run, besides its outcomes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class Facts(SimpleNamespace):
    """Instants are those of the run's clock.

    ``cpu_seconds``: processor time of this process during the run, without the caller's thread;
    ``worker_cpu_seconds``: that of the worker threads alone, or None if it was not measured. The difference is that
    of threads which the tasks started, if the run was ``alone``: no other was under way in threads meanwhile.
    ``input_seconds``: for reading the input. ``travel_seconds``: for pickling arguments and unpickling results, in
    the parent. ``job_seconds``: for pickling the function and what is passed to all tasks, together ``job_bytes``
    long. ``limits``: the run's limits as text. ``blocked_seconds``: how long coroutines held their event loop in long
    steps; the longest one took ``longest_step``, in the task with the index ``longest_step_of``. ``outer``: by what
    the default width of a run in threads was divided; 1 for any other width. ``one_at_a_time``: whether threads run
    Python code one at a time, as they do where there is a global interpreter lock.
    """

    executor: str = "threads"
    max_workers: int = 1
    began_at: float = 0.0
    ended_at: float = 0.0
    cpus: int = 1
    cpu_seconds: float = 0.0
    worker_cpu_seconds: float | None = None
    alone: bool = True
    input_seconds: float = 0.0
    travel_seconds: float = 0.0
    job_seconds: float = 0.0
    job_bytes: int = 0
    timeout: float | None = None
    timeouts_enforced: bool = True
    limits: tuple[str, ...] = ()
    coroutines: bool = False
    blocked_seconds: float = 0.0
    longest_step: float = 0.0
    longest_step_of: int = -1
    outer: int = 1
    one_at_a_time: bool = True

    def replaced(self, **changes: Any) -> Facts:
        """A copy with these changes."""
        return Facts(**(vars(self) | changes))
