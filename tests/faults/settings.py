"""What the caller of a run gives beside the function, and what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from broken import Key
from cases import COUNT
from deeds import BAD


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
    """A handler in the parent that raises once, when the task's record comes."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logging.root.removeHandler(self)
            raise RuntimeError("no log")

    logging.root.addHandler(Handler())
    return {}
