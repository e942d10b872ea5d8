"""The tasks of the benchmarks: functions of a module, so that every system can send them to its workers.

The module imports only what the tasks need: workers of ours, loky's and joblib's are fresh interpreters, and import it too.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

WORD = re.compile(r"[^\W\d]\w*")


def nothing(item: Any) -> None:
    """Do nothing: the shortest possible task."""


def same(item: Any) -> Any:
    return item


def record(item: int) -> dict[str, Any]:
    """A small dict, about 100 bytes pickled."""
    return {"id": item, "name": f"customer {item}", "score": item / 7, "tags": ["new", "eu"]}


def parse(place: int, row: str) -> int:
    """The number in a row of data; fails for a bad row."""
    try:
        return int(row)
    except ValueError:
        raise ValueError(f"row {place}: {row!r} is no number") from None


def parse_or_return_error(numbered_row: tuple[int, str]) -> int | ValueError:
    """The same for a pool that stops at the first error."""
    try:
        return parse(*numbered_row)
    except ValueError as error:
        return error


def count_to(number: int) -> int:
    """Keep the CPU busy for a time proportional to ``number``."""
    total = 0
    for step in range(number):
        total += step & 3
    return total


def numbered(steps: int, tasks: int) -> list[int]:
    """Distinct items, so that each can be its own key, which all take the same number of steps."""
    return [steps << 32 | number for number in range(tasks)]


def count_numbered(item: int) -> int:
    """``count_to`` for an item of ``numbered``."""
    return count_to(item >> 32)


def spin(seconds: float) -> float:
    """Keep the CPU busy until ``seconds`` of wall-clock time have passed."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass
    return seconds


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def nap_or_hang(seconds: float | None) -> float | None:
    """Sleep for ``seconds``; None hangs."""
    time.sleep(3600 if seconds is None else seconds)
    return seconds


def count_or_die(number: int) -> int:
    """``count_to``; a negative number kills the worker, as the OOM killer would."""
    if number < 0:
        from signal import SIGKILL  # for this one alone

        os.kill(os.getpid(), SIGKILL)
    return count_to(number)


def count_tokens(path: str) -> int:
    """Count the tokens of a file, up to the first error: some files of the library are invalid on purpose."""
    from tokenize import TokenError, tokenize  # for this one alone

    count = 0
    with open(path, "rb") as source:
        try:
            for _ in tokenize(source.readline):
                count += 1
        except (SyntaxError, TokenError, UnicodeDecodeError):
            return count
    return count


def count_words(paths: Sequence[str]) -> Counter[str]:
    """The words of some files, and how often each occurs."""
    counts = Counter[str]()
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as source:
            counts.update(WORD.findall(source.read()))
    return counts
