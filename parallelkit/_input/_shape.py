"""``Shape``: how an item of the input becomes a task, with its key, priority and groups."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from parallelkit._coroutine_functions import check_function
from parallelkit._errors import InputError
from parallelkit._marks import UNSET
from parallelkit._named_tuple import NamedTuple
from parallelkit._numbers import check_number
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._tasks import as_call, call_star, check_task, is_task

TASKS_AMONG_ITEMS = (
    "items must not be Task objects, which have functions of their own; pass them alone, as tasks"
)

Trait = tuple[float, tuple[Hashable, ...]]
"""What decides when a ready task may start: its priority, and its group under each limit."""


class Shape(NamedTuple):
    """How an item becomes a task.

    ``tasks``: items are callables or ``Task`` objects. ``gated``: tasks need a priority and groups, which
    ``priority`` and ``bys`` give. ``bounded``: a retry may have to start by a certain instant (``max_time``).
    ``tentative``: ``gated`` and ``bounded`` are so only because a ``Task`` that has yet to be read may ask for it.
    ``fn``: set in a run with ``then``, where each item becomes a call of its own. ``executor``: that of the run;
    only threads run coroutine functions. ``check_key``: called with a key (or UNSET) and its position, raises if
    the key is not acceptable. ``grows``: the run has a ``then``. ``ranked``: there are priorities, so any item of
    the input may have to run first.
    """

    tasks: bool = False
    key: Callable[[Any], Any] | None = None
    gated: bool = False
    bounded: bool = False
    tentative: bool = False
    priority: Callable[[Any], float] | None = None
    bys: tuple[Callable[[Any], Hashable] | None, ...] = ()
    fn: Callable[..., Any] | None = None
    star: bool = False
    executor: Any = "threads"
    check_key: Callable[[Any, int], None] | None = None
    grows: bool = False
    ranked: bool = False

    @property
    def plain(self) -> bool:
        """Whether executors get items as they are."""
        return not (self.tasks or self.gated or self.fn is not None)

    def key_of(self, item: Any, position: int) -> Any:
        """The task's key, or UNSET if its index will be its key."""
        if self.tasks:
            key = item.key if is_task(item) else UNSET
        else:
            key = UNSET if self.key is None else asked("key", self.key, item, position)
        return self.checked(key, position)

    def keys_of(self, items: Sequence[Any]) -> list[Any]:
        """The keys of all items of the input."""
        if self.key is None or self.check_key is not None:
            return [self.key_of(item, position) for position, item in enumerate(items)]
        key, keys = self.key, list[Any]()
        try:
            for item in items:
                keys.append(key(item))
        except Exception as error:
            raise raised("key", error, len(keys)) from error
        return keys

    def checked(self, key: Any, position: int) -> Any:
        """The key itself; raises if it is not acceptable."""
        if self.check_key is not None:
            self.check_key(key, position)
        return key

    def call_of(self, item: Any, position: int) -> Any:
        """What the executor gets for an item; raises if it is no task that would run."""
        if self.tasks:
            check_task(item, position)
            call = as_call(item)
            check_function("tasks", call[0], self.executor)
            return call
        if self.fn is None:
            return item
        return (call_star, (self.fn, item), {}) if self.star else (self.fn, (item,), {})

    def trait_of(self, item: Any, position: int) -> Trait:
        """The item's priority and groups. For a ``Task`` among plain items, its first argument is asked about."""
        subject = item.args[0] if is_task(item) and self.fn is not None and item.args else item
        return self._priority_of(item, subject, position), tuple(
            None if by is None else hashable(asked("by", by, subject, position), position) for by in self.bys
        )

    def _priority_of(self, item: Any, subject: Any, position: int) -> float:
        if is_task(item) and item.priority is not None:
            return item.priority
        if self.priority is None:
            return 0.0
        return comparable(asked("priority", self.priority, subject, position), position)


def all_of(source: Iterable[Any]) -> list[Any]:
    """All items of an input; if it raises, an InputError that says so."""
    items = list[Any]()
    try:
        items.extend(source)
    except Exception as error:
        if is_of_signal(error):
            raise
        raise InputError(broken_after(len(items), error)) from error
    return items


def broken_after(items: int, error: Exception) -> str:
    """What to say of an input that raised after so many items."""
    return f"the input raised {describe_error(error, f'after {items} item' + 's' * (items != 1))}"


def asked(name: str, question: Callable[[Any], Any], item: Any, position: int) -> Any:
    """The answer of a user's callable for an item; if it raises, an InputError that ends the input."""
    try:
        return question(item)
    except Exception as error:
        raise raised(name, error, position, IS_WHOLE if is_task(item) else "") from error


IS_WHOLE = ", a Task, whose arguments are in its .args"


def raised(name: str, error: Exception, position: int, what: str = "") -> InputError:
    """The InputError for a user's callable that raised; ``what`` describes an item that may surprise the user."""
    if is_of_signal(error):
        raise error
    return InputError(f"{name} raised {describe_error(error, f'for the item at position {position}{what}')}")


def hashable(group: Any, position: int) -> Hashable:
    """The group itself; TypeError if it is not hashable, ValueError if its ``__hash__`` raises another error."""
    try:
        hash(group)
    except TypeError:
        raise TypeError(f"by must return a hashable group, got {group!r} at position {position}") from None
    except Exception as error:
        if is_of_signal(error):
            raise
        what = f"{group!r} at position {position}, which raised {describe_error(error)}"
        raise ValueError(f"by must return a hashable group, got {what}") from error
    return group  # type: ignore[no-any-return]  # hashed just above


def comparable(priority: Any, position: int) -> float:
    """The priority as a number; TypeError or ValueError if it is none."""
    try:
        return check_number("priority", priority)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} at position {position}") from None
