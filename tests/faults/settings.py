"""Faulty things that the caller passes besides the function: inputs, options and executors."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any

from broken import Key, Reduces, hang
from cases import COUNT
from deeds import BAD, children_of

import parallelkit
from parallelkit import ConcurrencyLimit, RateLimit, Retry


def raising_input() -> Iterator[int]:
    yield from range(COUNT)
    raise OSError("the cable was pulled")


def nested_input() -> Iterator[int]:
    """Every item is the result of another run."""
    import parallelkit

    for number in range(COUNT):
        yield parallelkit.run_parallel(int, [number], executor="threads", max_workers=1)[0]


class LongerThanItSays:
    def __len__(self) -> int:
        return COUNT - 5

    def __iter__(self) -> Iterator[int]:
        return iter(range(COUNT))


class ShorterThanItSays(LongerThanItSays):
    def __len__(self) -> int:
        return COUNT + 5


def odd_keys(scene: Any) -> dict[str, Any]:
    return {"key": Key}


def raising_then(scene: Any) -> dict[str, Any]:
    def then(outcome: Any) -> None:
        if outcome.key == BAD:
            raise RuntimeError("no more")

    return {"then": then}


def then_without_tasks(scene: Any) -> dict[str, Any]:
    return {"then": lambda outcome: [42] if outcome.key == BAD else None}


def raising_bar(scene: Any) -> dict[str, Any]:
    class Pulled:
        """A screen that cannot be written to."""

        encoding = "utf-8"

        def write(self, text: str) -> None:
            raise OSError("no screen")

        def flush(self) -> None:
            raise OSError("no screen")

    return {"progress": {"file": Pulled(), "disable": False}}


def raising_log(scene: Any) -> dict[str, Any]:
    """A log handler in the parent that raises once, when the task's record arrives."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.root.removeHandler(self)
            raise RuntimeError("no log")

    logging.root.addHandler(Handler())
    return {}


# What the caller gave raises or blocks


def raising_key(scene: Any) -> dict[str, Any]:
    def key(number: int) -> int:
        if number == BAD:
            raise ValueError("no key")
        return number

    return {"key": key, "items": iter(range(COUNT))}


def key_without(kind: type) -> Callable[[Any], dict[str, Any]]:
    return lambda scene: {"key": kind}


def raising_events(scene: Any) -> dict[str, Any]:
    def listen(event: Any) -> None:
        raise RuntimeError("no ear")

    return {"on_event": listen}


def raising_group(scene: Any) -> dict[str, Any]:
    return {"limits": ConcurrencyLimit(4, by=lambda item: 1 // (item - BAD))}


def raising_priority(scene: Any) -> dict[str, Any]:
    return {"priority": lambda item: 1 // (item - BAD)}


def blocking_events(scene: Any) -> dict[str, Any]:
    """An event listener that blocks once, for longer than the timeout of the tasks."""

    def listen(event: Any, seen: list[Any] = []) -> None:  # noqa: B006  # one list for all calls
        if not seen:
            seen.append(event)
            time.sleep(1.0)

    return {"on_event": listen}


def blocking_then(scene: Any) -> dict[str, Any]:
    return {"then": lambda outcome: time.sleep(1.0) if outcome.key == 0 else None}


def blocking_input(scene: Any) -> dict[str, Any]:
    def items() -> Iterator[int]:
        for number in range(COUNT):
            if number == BAD + 2:
                time.sleep(1.0)
            yield number

    return {"items": items()}


def endless_input(scene: Any) -> dict[str, Any]:
    """An endless input; the first failure stops the run."""
    return {"items": count(), "buffersize": 4, "max_failures": 1}


def stubborn_input(scene: Any) -> dict[str, Any]:
    """A generator that raises when it is closed."""

    def items() -> Iterator[int]:
        try:
            yield from count()
        finally:
            raise RuntimeError("stays open")

    return {"items": items(), "buffersize": 4, "max_failures": 1}


# Where the caller is when it gets a signal


def tell_here(scene: Any) -> None:
    """Make the file without opening it: the signal that this asks for would keep it from being closed."""
    with suppress(FileExistsError):
        os.mknod(scene.path("here"))


def here(scene: Any) -> None:
    tell_here(scene)
    while True:  # short sleeps: a signal that comes just before a sleep does not shorten it
        time.sleep(0.01)


def here_in_input(scene: Any) -> dict[str, Any]:
    def items() -> Iterator[int]:
        yield from range(BAD)
        here(scene)

    return {"items": items()}


def here_in_key(scene: Any) -> dict[str, Any]:
    return {"key": lambda number: here(scene) if number == BAD else number, "items": iter(range(COUNT))}


def here_in_then(scene: Any) -> dict[str, Any]:
    return {"then": lambda outcome: here(scene)}


def here_in_events(scene: Any) -> dict[str, Any]:
    return {"on_event": lambda event: here(scene)}


def here_in_pickling(scene: Any) -> Any:
    return Reduces(here, scene)


def here_in_backoff(scene: Any) -> dict[str, Any]:
    def listen(event: Any) -> None:
        if event.kind == "retrying":
            tell_here(scene)

    return {"on_event": listen, "retries": Retry(9, delay=1e9, max_delay=1e9)}


def here_at_a_rate(scene: Any) -> dict[str, Any]:
    def then(outcome: Any) -> None:
        tell_here(scene)

    return {"then": then, "limits": RateLimit(5, per=1000)}


# Initializers


def raise_at_first() -> None:
    raise ValueError("no start")


def leave_at_first() -> None:
    os._exit(5)


def with_initializer(kind: type, initializer: Callable[[], None]) -> Callable[[Any], Any]:
    return lambda scene: kind(2, initializer=initializer)


def hanging_initializer(scene: Any) -> Any:
    """An initializer that hangs, with a limit of half a second instead of five minutes."""
    from parallelkit._executors._process import _handle

    _handle.LOAD_LIMIT = 0.5
    return parallelkit.ProcessExecutor(2, initializer=hang)


class Weakened(parallelkit.ProcessExecutor):
    """An executor that was used before, and whose idle workers have all been killed since."""

    def __enter__(self) -> Weakened:
        parallelkit.run_parallel(abs, range(COUNT), executor=self)
        for pid in children_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)
        return self


class Thinned(parallelkit.ProcessExecutor):
    """An executor that was used before, and one of whose idle workers has been killed since."""

    def __enter__(self) -> Thinned:
        parallelkit.run_parallel(time.sleep, [0.05] * 2, executor=self)
        os.kill(children_of(os.getpid())[0], signal.SIGKILL)
        return self
