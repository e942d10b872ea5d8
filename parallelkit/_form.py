"""The two forms of a call, a function with items or tasks alone: checks them, and gives the shape of their tasks."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from reprlib import repr as shorten
from typing import Any

from parallelkit._coroutine_functions import check_function, is_coroutine_function
from parallelkit._input._keys import check_lasting
from parallelkit._input._shape import TASKS_AMONG_ITEMS, Shape, all_of
from parallelkit._marks import UNSET
from parallelkit._numbers import length_of
from parallelkit._options import Checked
from parallelkit._policies import is_bounded
from parallelkit._tasks import Task, is_task

ROWS = {
    "itertuples()": "itertuples",
    "to_dict('records')": "itertuples",
    "iter_rows(named=True)": "iter_rows",
    "groupby(...) with star=True": "groupby",
}
"""How to get the rows of a DataFrame, and a method that frames have for which this works; pandas and polars differ."""

NOT_CALLED = "pass the function itself, and not its name or what it returns"
FUNCTION_FIRST = "the function comes first, its items second"
FUNCTIONS_ALONE = "several functions are given alone; what each of them gets goes into args=(...)"
CALL_IT = "; pass what it returns, and not the function itself"
UNTIL_NONE = "; of a queue pass iter(queue.get, None), which ends when None is put into it"
READ_BEFORE = "; what is read by 'async for' is read beforehand: [item async for item in ...]"


def check_form(fn: Any, items: Any, options: Checked) -> Iterable[Any]:
    """Return the input; raise TypeError unless it is a function with items, or tasks alone, and the options fit it.

    Tasks with a length are looked at more than once, but some can be iterated over only once, such as
    ``tqdm(generator, total=3)``: these are returned in a list.
    """
    if items is UNSET:
        if callable(fn):
            raise TypeError(f"items must be given together with a function, got only {fn!r}")
        if isinstance(fn, Coroutine):
            raise TypeError(f"tasks must be iterable, got {fn!r}; {NOT_CALLED}")
    elif isinstance(fn, Mapping):
        hint = FUNCTION_FIRST if callable(items) else FUNCTIONS_ALONE
        raise TypeError(f"items must not be given together with a mapping of tasks; {hint}")
    elif not callable(fn):
        several = FUNCTIONS_ALONE if isinstance(fn, (list, tuple)) else NOT_CALLED
        hint = FUNCTION_FIRST if callable(items) else several
        raise TypeError(f"fn must be callable, got {fn!r}; {hint}")
    name, source = ("tasks", fn) if items is UNSET else ("items", items)
    if not is_iterable(source):
        raise TypeError(f"{name} must be iterable, got {source!r}{way_to_iterate(source)}")
    check_whole(name, source)
    if items is not UNSET:
        check_no_tasks(items)
    elif length_of(source) is not None and not isinstance(source, Mapping):
        fn = source = all_of(source)
    check_fit(fn, items, source, options)
    return source  # type: ignore[no-any-return]  # checked above


def is_iterable(things: Any) -> bool:
    """Whether ``iter`` takes it, as it does a sequence that has only ``__getitem__`` (a data set of PyTorch, say)."""
    if isinstance(things, Iterable):
        return True  # ``iter`` is not called: it may start something
    try:
        iter(things)
    except TypeError:
        return False
    return True


def way_to_iterate(thing: Any) -> str:
    """What to write in place of a thing that is not iterable."""
    if isinstance(thing, AsyncIterable):
        return READ_BEFORE
    if callable(thing):
        return CALL_IT
    is_queue = hasattr(thing, "get") and hasattr(thing, "empty")
    return UNTIL_NONE if is_queue and not is_coroutine_function(thing.get) else ""


def check_whole(name: str, source: Iterable[Any]) -> None:
    """Raise TypeError for what is iterable but hardly meant so: a text, or a DataFrame, which gives its columns."""
    if isinstance(source, (str, bytes, bytearray)):
        parts = "characters" if isinstance(source, str) else "numbers"
        raise TypeError(
            f"{name} must not be the {type(source).__name__} {shorten(source)}, which would be taken apart into its "
            f"{parts}; pass it in a list, or list(...) of it if that is what you mean"
        )
    if any(kind.__name__ == "DataFrame" for kind in type(source).__mro__):
        ways = [f"df.{way}" for way, method in ROWS.items() if hasattr(source, method)]
        raise TypeError(
            f"{name} must not be a DataFrame, which gives its columns when it is iterated over; "
            f"pass {', '.join(ways) or 'its rows'}"
        )


def check_no_tasks(items: Iterable[Any]) -> None:
    """Raise TypeError if the first item is a ``Task``; the intake checks that of other kinds of input."""
    if type(items) in (list, tuple, dict):
        values = items.values() if isinstance(items, dict) else items
        if is_task(next(iter(values), None)):
            raise TypeError(TASKS_AMONG_ITEMS)


def check_fit(fn: Any, items: Any, source: Iterable[Any], options: Checked) -> None:
    """Raise TypeError or ValueError for options that do not fit this form, or these functions."""
    for option in ("key", "star"):
        if items is UNSET and getattr(options, option):
            raise TypeError(
                f"{option} must not be given together with tasks; it is for a function with items"
            )
    if options.key is not None and isinstance(source, Mapping):
        raise TypeError("key must not be given together with a mapping, whose keys are the keys")
    has_keys = items is UNSET or options.key is not None or isinstance(source, Mapping)
    if options.checkpoint is not None and not has_keys:
        check_lasting(UNSET, 0)
    check_functions(fn, items, options.executor)


def check_functions(fn: Any, items: Any, executor: Any) -> None:
    """Raise TypeError for functions that would not run; those of lazily read tasks are checked as they are read."""
    if items is not UNSET:
        check_function("fn", fn, executor)
    elif length_of(fn) is not None:
        tasks = fn.values() if isinstance(fn, Mapping) else fn
        functions = (task.fn if is_task(task) else task for task in tasks)
        for one in {id(one): one for one in functions}.values():  # most often, one for all
            check_function("tasks", one, executor)


def shape_of(options: Checked, fn: Callable[..., Any] | None, source: Iterable[Any]) -> Shape:
    """How the items of this run become tasks; ``fn`` is None if they are tasks already."""
    tasks = source if fn is None else ()
    grows, bounded = options.then is not None, is_bounded(options.policy)
    gated = bool(options.limits) or options.priority is not None or grows  # whatever the tasks ask for
    ranked = options.priority is not None or any_task(tasks, lambda task: task.priority is not None)
    return Shape(
        tasks=fn is None,
        key=options.key,
        gated=gated or ranked,
        bounded=bounded or any_task(tasks, lambda task: is_bounded(task.retries)),
        tentative=length_of(tasks) is None and not (gated or bounded),
        ranked=ranked,
        priority=options.priority,
        bys=tuple(limit.by for limit in options.limits),
        fn=fn if grows else None,
        star=options.star,
        executor=options.executor,
        check_key=None if options.checkpoint is None else check_lasting,
        grows=grows,
    )


def any_task(tasks: Iterable[Any], claim: Callable[[Task[Any]], bool]) -> bool:
    """Whether the claim holds for a ``Task`` among these; True if they have yet to be read."""
    if isinstance(tasks, Mapping):
        tasks = tasks.values()
    elif length_of(tasks) is None:
        return True
    return any(is_task(task) and claim(task) for task in tasks)
