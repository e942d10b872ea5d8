"""``Task``; and the intake, where the caller's input becomes tasks.

Input is read lazily, in the caller's thread, in small portions: ``Intake.read`` stops after a
millisecond, so that a slow input never keeps results waiting for longer than its own next item.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

from parallelkit._errors import InputError
from parallelkit._retry import RetryPolicy, as_policy, check_number

V = TypeVar("V")
UNSET: Any = type("UNSET", (), {"__repr__": lambda self: "UNSET"})()
PORTION = 0.001  # seconds that one portion of reading may take


class Task(Generic[V]):
    """One call to be made: ``fn(*args, **kwargs)``, with options of its own.

    ``kwargs`` are the function's own keywords. ``key`` names the outcome (default: the position, or
    the key in the mapping of tasks). ``timeout`` (seconds) and ``retries`` override those of the
    run; ``priority``: larger runs first.

    >>> Task(pow, 2, 10, key="kibi")
    Task(pow, 2, 10, key='kibi')

    Raises TypeError for what is not callable and for an unknown keyword, ValueError for a bad timeout.
    """

    __slots__ = ("args", "fn", "key", "kwargs", "priority", "retries", "timeout")

    def __init__(
        self,
        fn: Callable[..., V],
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        key: Any = UNSET,
        priority: float | None = None,
        timeout: float | None = None,
        retries: Any = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            names = ", ".join(sorted(unknown))
            raise TypeError(
                f"Task got an unknown keyword: {names}; pass the function's own keywords as kwargs={{...}}"
            )
        if not callable(fn):
            raise TypeError(f"Task: fn must be callable, got {fn!r}")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise TypeError(f"Task: kwargs must be a mapping, got {kwargs!r}")
        if priority is not None:
            check_number("priority", priority, float("-inf"))
        self.fn, self.args, self.kwargs = fn, args, dict(kwargs or {})
        self.key, self.priority = key, priority
        self.timeout = check_timeout("timeout", timeout)
        self.retries = retries
        if retries is not None:
            as_policy(retries)

    def __repr__(self) -> str:
        shown = [getattr(self.fn, "__name__", repr(self.fn)), *map(repr, self.args)]
        shown += [f"kwargs={self.kwargs!r}"] if self.kwargs else []
        shown += [f"key={self.key!r}"] if self.key is not UNSET else []
        return f"Task({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Own:
    """The options that a task brings itself; None where the run's apply."""

    timeout: float | None
    policy: RetryPolicy | None
    has_policy: bool


@dataclass(slots=True)
class Portion:
    """Tasks just read: their items, their keys (None: positions) and, by offset, options of their own."""

    items: list[Any]
    keys: list[Any] | None
    own: dict[int, Own]


class Intake:
    """Reads the caller's input. ``size`` is its length where known, ``error`` what ended it early.

    Sized input that has a ``key`` is keyed and checked here, at the door; all else as it is read.
    """

    def __init__(
        self, source: Iterable[Any], *, key: Callable[[Any], Any] | None, tasks: bool, unique: bool = True
    ) -> None:
        self.error: InputError | None = None
        self.exhausted = False
        self.read_so_far = 0
        self._tasks = tasks
        self._key = key
        self._unique = unique
        self._seen: dict[Any, int] = {}
        self._keys: list[Any] | None = None
        self.size: int | None = len(source) if isinstance(source, Sized) else None
        if isinstance(source, Mapping):
            self._keys = list(source)
            if tasks:
                check_tasks(source.values())
            source = map(source.__getitem__, self._keys)
        elif self.size is not None and (key is not None or tasks):
            source = self._key_at_the_door(source)
        self._iterator = iter(source)
        self._bulk = isinstance(source, (list, tuple, range))

    @property
    def keyed(self) -> bool:
        """Whether tasks have keys other than their positions."""
        return self._keys is not None or self._key is not None or self._tasks

    @property
    def sized_keys(self) -> Sequence[Any] | None:
        """All keys, where they are known before the run."""
        return self._keys

    def _key_at_the_door(self, source: Iterable[Any]) -> list[Any]:
        items = list(source)
        if self._tasks:
            check_tasks(items)
        keys = [self._key_of(item, position) for position, item in enumerate(items)]
        check_unique(keys)
        self._keys = keys
        return items

    def _key_of(self, item: Any, position: int) -> Any:
        if self._tasks:
            return position if not isinstance(item, Task) or item.key is UNSET else item.key
        if self._key is None:
            return position
        try:
            return self._key(item)
        except Exception as error:
            raise InputError(
                f"key raised {type(error).__name__} for the item at position {position}"
            ) from error

    def read(self, limit: int) -> Portion | None:
        """Up to ``limit`` tasks, or what can be read in a millisecond; None at the end of the input.

        An input, or a key, that raises ends the input; ``error`` is set then.
        """
        if self.exhausted:
            return None
        items = self._take(limit)
        first = self.read_so_far
        self.read_so_far += len(items)
        keys = self._keys_for(items, first)
        if keys is not None and len(keys) < len(items):  # a key failed: what lies before it still counts
            del items[len(keys) :]
            self.read_so_far = first + len(items)
        own: dict[int, Own] = {}
        if self._tasks:
            items = self._as_calls(items, own)
            keys = None if keys is None else keys[: len(items)]
        return Portion(items, keys, own) if items else None

    def _take(self, limit: int) -> list[Any]:
        if self._bulk:
            items = list(islice(self._iterator, limit))
            self.exhausted = len(items) < limit
            return items
        items = []
        end = time.monotonic() + PORTION
        try:
            for item in islice(self._iterator, limit):
                items.append(item)
                if time.monotonic() >= end:
                    return items
            self.exhausted = len(items) < limit
        except Exception as error:
            self._fail(
                f"the input raised {type(error).__name__} after {self.read_so_far + len(items)} items", error
            )
        return items

    def _keys_for(self, items: list[Any], first: int) -> list[Any] | None:
        if self._keys is not None:
            return self._keys[first : first + len(items)]
        if self._key is None and not self._tasks:
            return None
        keys: list[Any] = []
        try:
            for position, item in enumerate(items, first):
                key = self._key_of(item, position)
                self._note(key, position)
                keys.append(key)
        except InputError as error:
            self.error, self.exhausted = error, True
        except (ValueError, TypeError) as error:
            self._fail(str(error), error)
        return keys

    def _note(self, key: Any, position: int) -> None:
        if self._unique:
            earlier = self._seen.setdefault(key, position)
            if earlier != position:
                raise ValueError(duplicate(key, earlier, position))

    def forget(self, keys: Iterable[Any]) -> None:
        """Keys of yielded tasks may come again (streams)."""
        for key in keys:
            self._seen.pop(key, None)

    def _as_calls(self, items: list[Any], own: dict[int, Own]) -> list[Any]:
        calls = []
        try:
            for offset, item in enumerate(items):
                calls.append(as_call(item, offset, own))
        except TypeError as error:
            self._fail(str(error), error)
        return calls

    def _fail(self, message: str, error: Exception) -> None:
        self.exhausted = True
        self.error = InputError(message)
        self.error.__cause__ = error

    def close(self) -> None:
        """Close a generator given as input, so that its ``finally`` runs now."""
        self.exhausted = True
        closing = getattr(self._iterator, "close", None)
        if callable(closing) and isinstance(self._iterator, Iterator):
            closing()


def as_call(item: Any, offset: int, own: dict[int, Own]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A task of the tasks form as ``(fn, args, kwargs)``; its own options go into ``own``."""
    if isinstance(item, Task):
        if item.timeout is not None or item.retries is not None:
            policy = None if item.retries is None else as_policy(item.retries)
            own[offset] = Own(item.timeout, policy, item.retries is not None)
        return item.fn, item.args, item.kwargs
    if callable(item):
        return item, (), {}
    raise TypeError(f"tasks must be callables or Task objects, got {item!r}")


def check_tasks(tasks: Iterable[Any]) -> None:
    """Raise TypeError where something is neither a callable nor a ``Task``."""
    for position, task in enumerate(tasks):
        if not isinstance(task, Task) and not callable(task):
            raise TypeError(f"tasks must be callables or Task objects, got {task!r} at position {position}")


def check_timeout(name: str, timeout: Any) -> float | None:
    """A timeout in seconds, or None for no limit."""
    if timeout is not None:
        check_number(name, timeout, 0.0)
    return timeout  # type: ignore[no-any-return]  # checked to be a number just above


def check_unique(keys: Sequence[Any]) -> None:
    """Raise ValueError naming both positions where a key comes twice, TypeError where one is unhashable."""
    seen: dict[Any, int] = {}
    for position, key in enumerate(keys):
        try:
            earlier = seen.setdefault(key, position)
        except TypeError:
            raise TypeError(f"key must be hashable, got {key!r} at position {position}") from None
        if earlier != position:
            raise ValueError(duplicate(key, earlier, position))


def duplicate(key: Any, earlier: int, position: int) -> str:
    """The message for a key that comes twice."""
    return f"key must be unique, got {key!r} at positions {earlier} and {position}"
