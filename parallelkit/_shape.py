"""How an item of the caller's input becomes a task: ``Shape``, and what is asked about it on the way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from parallelkit._coroutine_functions import check_function
from parallelkit._errors import InputError
from parallelkit._marks import UNSET
from parallelkit._numbers import check_number
from parallelkit._raised import describe_error, is_of_signal
from parallelkit._tasks import Task, as_call, call_star

TASKS_AMONG_ITEMS = (
    "items must not be Task objects, which have functions of their own; pass them alone, as tasks"
)

Trait = tuple[float, tuple[Hashable, ...]]
"""What decides when a ready task may start: its priority, and its group under each limit."""


class Shape(NamedTuple):
    """How an item becomes a task.

    ``tasks``: items are callables or ``Task`` objects. ``gated``: priority and groups are wanted, by
    ``priority`` and ``bys``. ``bounded``: what is tried again must start in time. ``fn``: every item becomes
    a call of its own (a run with ``then``). ``executor``: of the run; not every one can run coroutine
    functions. ``check_key`` raises for a key (or UNSET) that will not do, given its position. ``grows``: the
    run has a ``then``. ``ranked``: priorities decide, so that any item of the input may come first.
    """

    tasks: bool = False
    key: Callable[[Any], Any] | None = None
    gated: bool = False
    bounded: bool = False
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
        """Whether an item is a task just as it is."""
        return not (self.tasks or self.gated or self.fn is not None)

    def key_of(self, item: Any, position: int) -> Any:
        """The task's key, or UNSET where its index will do."""
        if isinstance(item, Task) and (self.tasks or self.fn is not None):
            return self.checked(item.key, position)
        if self.tasks or self.key is None:
            return self.checked(UNSET, position)
        return self.checked(asked("key", self.key, item, position), position)

    def keys_of(self, items: Sequence[Any]) -> list[Any]:
        """The keys of all the input."""
        if self.key is None or self.check_key is not None or not self.plain:
            return [self.key_of(item, position) for position, item in enumerate(items)]
        key, keys = self.key, list[Any]()
        try:
            for item in items:
                keys.append(key(item))
        except Exception as error:
            raise raised("key", error, len(keys)) from error
        return keys

    def checked(self, key: Any, position: int) -> Any:
        """The key itself; raises where it will not do."""
        if self.check_key is not None:
            self.check_key(key, position)
        return key

    def call_of(self, item: Any) -> Any:
        """What the executor is given."""
        if self.tasks:
            call = as_call(item)
            check_function("tasks", call[0], self.executor)
            return call
        if self.fn is None:
            return item
        return (call_star, (self.fn, item), {}) if self.star else (self.fn, (item,), {})

    def trait_of(self, item: Any, position: int) -> Trait:
        """Priority and groups; a ``Task`` among plain items is looked at by its first argument."""
        subject = item.args[0] if isinstance(item, Task) and self.fn is not None and item.args else item
        return self._priority_of(item, subject, position), tuple(
            None if by is None else hashable(asked("by", by, subject, position), position) for by in self.bys
        )

    def _priority_of(self, item: Any, subject: Any, position: int) -> float:
        if isinstance(item, Task) and item.priority is not None:
            return item.priority
        if self.priority is None:
            return 0.0
        return comparable(asked("priority", self.priority, subject, position), position)


def replace_form(shape: Shape) -> Shape:
    """The shape of tasks that come in among items of the map form."""
    return shape._replace(tasks=True, key=None, gated=True, star=False)


def asked(name: str, question: Callable[[Any], Any], item: Any, position: int) -> Any:
    """What the caller's callable says of an item; if it raises, that is the end of the input."""
    try:
        return question(item)
    except Exception as error:
        raise raised(name, error, position, IS_WHOLE if isinstance(item, Task) else "") from error


IS_WHOLE = ", a Task, whose arguments are in its .args"


def raised(name: str, error: Exception, position: int, what: str = "") -> InputError:
    """What the input ends in when the caller's callable fails; ``what`` it was given, if that may surprise."""
    if is_of_signal(error):
        raise error
    return InputError(f"{name} raised {describe_error(error, f'for the item at position {position}{what}')}")


def hashable(group: Any, position: int) -> Hashable:
    """A group, which must be hashable."""
    try:
        hash(group)
    except TypeError:
        raise TypeError(f"by must give a hashable group, got {group!r} at position {position}") from None
    return group  # type: ignore[no-any-return]  # hashed just above


def comparable(priority: Any, position: int) -> float:
    """A priority, which must be a number."""
    try:
        return check_number("priority", priority, exact=True)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} at position {position}") from None
