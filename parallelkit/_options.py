"""The options of a run: their types, and their validation, which happens only here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from parallelkit._coroutine_functions import check_called
from parallelkit._executors._choice import timeout_of
from parallelkit._keywords import TRIES, WORKERS, did_you_mean, field_hint
from parallelkit._limits import Limit, Limits, as_limits
from parallelkit._named_tuple import NamedTuple
from parallelkit._numbers import as_whole, check_count, check_number, check_timeout
from parallelkit._policies import as_policy
from parallelkit._progress import check_progress
from parallelkit._tasks import Task, check_args, check_kwargs

if TYPE_CHECKING:  # what a run without them does not load
    from concurrent.futures import Executor

    from parallelkit._checkpoint import Checkpoint
    from parallelkit._events import Event
    from parallelkit._outcomes import Outcome
    from parallelkit._policies import Retrying, RetryPolicy
    from parallelkit._retry import Retry

EXECUTORS = ("threads", "processes", "inline")
ELSEWHERE = {
    **WORKERS,
    **TRIES,
    **dict.fromkeys(("concurrency", "max_concurrency", "max_concurrent", "semaphore"), "max_workers"),
    **dict.fromkeys(("backend", "mode", "pool", "prefer", "require", "scheduler"), "executor"),
    **dict.fromkeys(("progress_bar", "verbose"), "progress"),
    "argument_type": "star",
    "exception_behaviour": "on_error",
    "pre_dispatch": "buffersize",
    "fail_fast": "on_error='raise'",
    "max_errors": "max_failures",
    **dict.fromkeys(("shared", "shared_objects"), "args"),
    **dict.fromkeys(("cache", "journal", "resume"), "checkpoint"),
    **dict.fromkeys(("deadline", "global_timeout", "total_timeout"), "run_timeout"),
}
"""What options are called in other libraries."""

BACKENDS = {"loky": "processes", "multiprocessing": "processes", "sequential": "inline"}
"""What joblib calls the executors."""

_BATCHES = "batches are sized automatically, and every task is reported separately"
_UNCHOSEN = "a worker process is always a fresh interpreter"
_UNFILED = "large arrays in args are shared in memory, and no file is written"
_LISTENED = "iter_parallel yields each outcome as it comes; on_event gets every event, but no values"
_BAR = "pass options of the bar in a dict: progress={{{0!r}: ...}}"
_OF_EXECUTORS = (
    "pass it to an executor of your own: executor=ProcessExecutor(..., {0}=...), or ThreadExecutor(...)"
)
_OF_RETRY = "pass it to a Retry: retries=Retry(..., {0}=...)"
_OF_ONE = "pass it to an executor of your own: executor={0}(..., {1}=...)"
_RECYCLED = _OF_ONE.format("ProcessExecutor", "max_tasks_per_child")
ANSWERED = {
    **dict.fromkeys(("batch_size", "batchsize", "chunk_size", "chunksize"), _BATCHES),
    **dict.fromkeys(("mp_context", "start_method"), _UNCHOSEN),
    **dict.fromkeys(("max_nbytes", "mmap_mode", "temp_folder"), _UNFILED),
    **dict.fromkeys(("callback", "done_callback", "error_callback"), _LISTENED),
    **dict.fromkeys(("on_complete", "on_done", "on_failure", "on_result", "on_success"), _LISTENED),
    **dict.fromkeys(("on_retry", "on_start", "on_timeout"), _LISTENED),
    **dict.fromkeys(("desc", "disable", "leave", "ncols", "total", "unit"), _BAR),
    **dict.fromkeys(("max_tasks", "max_tasks_per_child", "maxtasksperchild", "worker_lifespan"), _RECYCLED),
    **dict.fromkeys(("initializer", "initargs"), _OF_EXECUTORS),
    **dict.fromkeys(("on", "delay", "factor", "max_delay", "max_time", "budget"), _OF_RETRY),
    "backoff": _OF_RETRY.format("factor"),
    "exceptions": _OF_RETRY.format("on"),
    "thread_name_prefix": _OF_ONE.format("ThreadExecutor", "thread_name_prefix"),
    "worker_init": _OF_EXECUTORS.format("initializer"),
    **dict.fromkeys(
        ("as_completed", "return_as", "stream"), "iter_parallel yields the outcomes as they come"
    ),
    "return_exceptions": "every outcome is kept, errors too: see outcomes and failures of Results",
}
"""What to use in place of options that belong elsewhere, or that have no counterpart here."""


class Submits(Protocol):
    """A dask ``Client``, or anything else that has the ``submit`` of an ``Executor`` without being a subclass."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Schedule the call and return its future."""


class RunOptions(TypedDict, total=False):
    """The keywords that every form of a run takes; ``run_parallel`` documents them."""

    executor: Literal["threads", "processes", "inline"] | Executor | Submits
    max_workers: int | None
    args: Iterable[Any]
    kwargs: Mapping[str, Any] | None
    star: bool
    timeout: float | None
    run_timeout: float | None
    retries: int | Retry | Retrying
    limits: Limits | None
    priority: Callable[[Any], float] | None
    then: Callable[[Outcome[Any, Any]], Iterable[Callable[..., Any] | Task[Any]] | None] | None
    on_error: Literal["collect", "raise"]
    max_failures: float | None
    order: Literal["input", "key", "completion"]
    buffersize: int | None
    progress: bool | dict[str, Any]
    on_event: Callable[[Event[Any]], object] | None
    checkpoint: str | os.PathLike[str] | Checkpoint | None


class Checked(NamedTuple):
    """Validated options; nothing validates them again."""

    executor: Any = "threads"
    max_workers: int | None = None
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = MappingProxyType({})
    star: bool = False
    key: Callable[[Any], Any] | None = None
    timeout: float | None = None
    run_timeout: float | None = None
    policy: RetryPolicy | None = None
    limits: tuple[Limit, ...] = ()
    priority: Callable[[Any], float] | None = None
    then: Callable[[Outcome[Any, Any]], Iterable[Callable[..., Any] | Task[Any]] | None] | None = None
    on_error: str = "collect"
    max_failures: float | None = None
    order: str = "input"
    buffersize: int | None = None
    progress: bool | dict[str, Any] = False
    on_event: Callable[[Event[Any]], object] | None = None
    checkpoint: Checkpoint | None = None

    @property
    def wary(self) -> bool:
        """Whether a failure may stop the run."""
        return self.on_error == "raise" or self.max_failures is not None


_NAMES = {*Checked._fields, "retries"} - {"policy"}
"""What the options are called."""


def check_options(options: Mapping[str, Any], *, order: str = "input") -> Checked:
    """Validate the options; raise TypeError or ValueError naming the argument, the rule and the value."""
    given = dict(options)
    _check_names(given)
    given.setdefault("order", order)
    _check_choice("on_error", given.get("on_error", "collect"), ("collect", "raise"))
    _check_choice("order", given["order"], ("input", "key", "completion"))
    _check_executor(given.get("executor", "threads"))
    for name in ("max_workers", "buffersize"):
        if given.get(name) is not None:
            given[name] = check_count(name, given[name])
    for name in ("timeout", "run_timeout"):
        given[name] = check_timeout(name, given.get(name))
    if given["timeout"] is None:
        given["timeout"] = timeout_of(given.get("executor"))
    given["max_failures"] = _check_max_failures(given.get("max_failures"))
    for name in ("key", "priority", "then", "on_event"):
        if given.get(name) is not None:
            if not callable(given[name]):
                raise TypeError(f"{name} must be callable, got {given[name]!r}{_hint(name, given[name])}")
            check_called(name, given[name])
    if not isinstance(given.get("star", False), bool):
        raise TypeError(f"star must be a bool, got {given['star']!r}")
    check_progress(given.get("progress", False))
    given["args"] = check_args("args", given.get("args", ()))
    given["kwargs"] = check_kwargs("kwargs", given.get("kwargs"))
    given["limits"] = as_limits(given.get("limits"))
    given["policy"] = as_policy(given.pop("retries", 0))
    if given.get("checkpoint") is not None:
        from parallelkit._checkpoint import as_checkpoint

        given["checkpoint"] = as_checkpoint(given["checkpoint"])
    return Checked(**given)


def _hint(name: str, given: Any) -> str:
    """What to write in place of something that is not callable."""
    if name == "key" and isinstance(given, (list, tuple)):
        return "; for a list of keys pass dict(zip(keys, items)) as items"
    return field_hint(given) if name in ("key", "priority") else ""


def _check_names(given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in _NAMES:
            known = sorted(_NAMES)
            near = ANSWERED.get(name, "").format(name) or did_you_mean(name, known, ELSEWHERE)
            hint = near or (
                f"the options are {', '.join(known)}; an argument of the function goes into kwargs={{{name!r}: ...}}"
            )
            raise TypeError(f"unknown option {name!r}; {hint}")


def _check_choice(name: str, value: Any, choices: tuple[str, ...], others: str = "", hint: str = "") -> None:
    """Raise ValueError for a str that is none of the choices, TypeError for anything that is no str."""
    if isinstance(value, str) and value in choices:
        return
    near = did_you_mean(value, choices, BACKENDS) if isinstance(value, str) else ""
    hint = f"; {near or hint}" if near or hint else ""
    message = f"{name} must be one of {', '.join(map(repr, choices))}{others}, got {value!r}{hint}"
    raise (ValueError if isinstance(value, str) else TypeError)(message)


def _check_executor(executor: Any) -> None:
    if isinstance(executor, str) and executor in EXECUTORS:
        return
    from concurrent.futures import Executor

    hint = ""
    if executor in ("async", "asyncio", "coroutines"):
        hint = "executor='threads' runs coroutine functions, too"
    elif isinstance(executor, type):
        hint = "pass an object of it, not the class"
    elif type(executor).__module__ == "multiprocessing.pool":
        hint = "pass a ThreadExecutor or a ProcessExecutor in place of it"
    elif callable(getattr(executor, "submit", None)):
        hint = "" if isinstance(executor, Executor) else _asked_besides(executor.submit)
        if not hint:
            return
    others = ", a concurrent.futures.Executor or a dask Client"
    _check_choice("executor", executor, EXECUTORS, others, hint)


def _asked_besides(submit: Callable[..., Any]) -> str:
    """Say what ``submit`` requires besides the function, if anything, as that of pebble's ``ProcessPool`` does."""
    from inspect import signature

    try:
        signature(submit).bind(None)
    except TypeError as error:
        return f"its submit needs more than a function: {error}"
    except ValueError:  # it has no signature
        return ""
    return ""


def _check_max_failures(value: Any) -> float | None:
    if value is None:
        return None
    if as_whole(value) is not None:
        return check_count("max_failures", value)
    share = check_number("max_failures", value)
    if not 0 < share < 1:
        raise ValueError(f"max_failures must be an int, or a share between 0 and 1, got {value!r}")
    return share
