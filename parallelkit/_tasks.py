"""``Task``, a call with options of its own; and the checks of tasks and of their arguments."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeGuard, TypeVar, Unpack, overload

from parallelkit._keywords import did_you_mean
from parallelkit._marks import UNSET
from parallelkit._named_tuple import NamedTuple
from parallelkit._numbers import check_number, check_timeout
from parallelkit._policies import Retrying, RetryPolicy, as_policy
from parallelkit._public import public
from parallelkit._star import starred

if TYPE_CHECKING:
    from parallelkit._retry import Retry

V_co = TypeVar("V_co", covariant=True)


class TaskOptions(TypedDict, total=False):
    """The keywords of a ``Task``, for type checkers."""

    kwargs: Mapping[str, Any] | None
    key: Any
    priority: float | None
    timeout: float | None
    retries: int | Retry | Retrying | None


@public
class Task(Generic[V_co]):
    """A call ``fn(*args, **kwargs)`` for a run to make, with options of its own.

    ``kwargs`` are keyword arguments for ``fn``; they take precedence over the ``kwargs`` of the run. ``key``
    is the key of the outcome (default: the task's position, or its key in the mapping of tasks). ``timeout``
    (in seconds, ``math.inf`` for no limit), ``retries`` and ``priority`` (larger runs first) override those
    of the run, unless they are None.

    >>> Task(pow, 2, 10, key="kibi")
    Task(pow, 2, 10, key='kibi')

    Raises TypeError or ValueError for bad arguments.
    """

    __slots__ = ("args", "fn", "key", "kwargs", "priority", "retries", "timeout")

    @overload
    def __init__(
        self, fn: Callable[..., Coroutine[Any, Any, V_co]], *args: Any, **options: Unpack[TaskOptions]
    ) -> None: ...
    @overload
    def __init__(self, fn: Callable[..., V_co], *args: Any, **options: Unpack[TaskOptions]) -> None: ...
    def __init__(
        self,
        fn: Callable[..., Any],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        key: Any = UNSET,
        priority: float | None = None,
        timeout: float | None = None,
        retries: int | Retry | Retrying | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise TypeError(unknown_keyword(sorted(unknown)))
        if not callable(fn):
            raise TypeError(f"Task: fn must be callable, got {fn!r}")
        if priority is not None:
            priority = check_number("priority", priority)
        self.fn, self.args, self.kwargs = fn, args, check_kwargs("Task: kwargs", kwargs)
        self.key, self.priority = key, priority
        self.timeout = check_timeout("timeout", timeout)
        self.retries = retries
        if retries is not None:
            as_policy(retries)

    def __repr__(self) -> str:
        shown = [str(getattr(self.fn, "__name__", repr(self.fn))), *map(repr, self.args)]
        shown += [f"kwargs={self.kwargs!r}"] if self.kwargs else []
        shown += [f"key={self.key!r}"] if self.key is not UNSET else []
        return f"Task({', '.join(shown)})"


class Own(NamedTuple):
    """A task's own options. ``timeout`` None: the run's applies; so does its policy unless ``has_policy``."""

    timeout: float | None
    policy: RetryPolicy | None
    has_policy: bool


def is_task(thing: Any) -> TypeGuard[Task[Any]]:
    """Whether this is a ``Task``; unlike ``isinstance``, does not ask a proxy for its class, which may raise, or load something."""
    return issubclass(type(thing), Task)


def as_call(task: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A callable or ``Task`` as ``(fn, args, kwargs)``."""
    return (task.fn, task.args, task.kwargs) if is_task(task) else (task, (), {})


def own_options(task: Any) -> Own | None:
    """A task's own timeout and retries; None if it has neither."""
    if not is_task(task) or (task.timeout is None and task.retries is None):
        return None
    policy = None if task.retries is None else as_policy(task.retries)
    return Own(task.timeout, policy, task.retries is not None)


def call_star(fn: Callable[..., Any], item: Iterable[Any], /, *args: Any, **kwargs: Any) -> Any:
    """Unpack an item in the worker, so that one that cannot be unpacked fails its own task only."""
    return starred(fn, args, kwargs)(item)


def function_of(call: Any) -> Any:
    """The user's function in a call ``(fn, args, kwargs)``, which may wrap it in ``call_star``."""
    return call[1][0] if call[0] is call_star else call[0]


def check_tasks(tasks: Iterable[Any]) -> None:
    """Raise TypeError for the first that is neither a callable nor a ``Task``."""
    for position, task in enumerate(tasks):
        check_task(task, position)


def check_task(task: Any, position: int) -> None:
    """Raise TypeError if it is neither a callable nor a ``Task``."""
    if not is_task(task) and not callable(task):
        raise TypeError(
            f"tasks must be callables or Task objects, got {task!r} at position {position}{hint_for(task)}"
        )


def check_keys_agree(tasks: Mapping[Any, Any]) -> None:
    """Raise ValueError for a task whose own key differs from its key in the mapping."""
    for key, task in tasks.items():
        if is_task(task) and task.key is not UNSET and task.key != key:
            raise ValueError(
                f"key must be that of the mapping or not given, got {task.key!r} for the task under {key!r}"
            )


def hint_for(task: Any, otherwise: str = "in place of a call f(x), write Task(f, x)") -> str:
    """What to write instead of something that is no task, such as the tuple that ``joblib.delayed(f)(…)`` makes."""
    match task:
        case (fn, tuple(), dict()) if callable(fn):
            return (
                "; in place of joblib's delayed(f)(x), write Task(f, x), or run_parallel(f, items) for one f"
            )
    return f"; {otherwise}"


def unknown_keyword(names: list[str]) -> str:
    """The error message for keywords that ``Task`` does not have."""
    options = ("kwargs", "key", "priority", "timeout", "retries")
    hint = next(filter(None, (did_you_mean(name, options) for name in names)), "")
    own = "pass the function's own keywords as kwargs={...}"
    return f"Task got an unknown keyword: {', '.join(names)}; {hint}{hint and ' '}{own}"


def check_args(name: str, args: Any) -> tuple[Any, ...]:
    """Positional arguments as a tuple. TypeError for a value that was hardly meant to be unpacked, or has no order."""
    # An array, frame, tensor or sparse matrix: ``args=(x)`` is ``args=x``, whose items are its rows or columns.
    # Tuples and lists are exempt: a NamedTuple may have a field called ``shape``.
    array = not isinstance(args, (tuple, list)) and (hasattr(args, "__array__") or hasattr(args, "shape"))
    if array or isinstance(args, (str, bytes, bytearray, Mapping, Set)) or not isinstance(args, Iterable):
        got = f"the {type(args).__name__} itself" if array else repr(args)
        one = "a single one needs its comma: (x,)"
        raise TypeError(f"{name} must be a tuple or a list of positional arguments, got {got}; {one}")
    return tuple(args)


def check_kwargs(name: str, kwargs: Any) -> dict[str, Any]:
    """Keyword arguments as a dict. TypeError for anything but a mapping with str keys."""
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"{name} must be a mapping, got {kwargs!r}")
    for key in kwargs or ():
        if not isinstance(key, str):
            raise TypeError(f"{name} must have names as keys, got {key!r}")
    return dict(kwargs or {})
