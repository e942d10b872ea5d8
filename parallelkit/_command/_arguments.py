"""What the options of ``parallelkit run`` may be: each is read here, once, or refused with its name and the rule."""

from __future__ import annotations

import ast
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from math import inf
from sys import maxsize
from typing import Any

UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SPAN = re.compile(r"(\d+\.?\d*|\.\d+)?\s*(ms|s|min|m|h|d|)")


def seconds(text: str) -> float:
    """A span of time, in seconds or with a unit.

    >>> seconds("2.5"), seconds("300ms"), seconds("5m"), seconds("1h")
    (2.5, 0.3, 300.0, 3600.0)
    """
    match = SPAN.fullmatch(text.strip())
    if match is None or match[1] is None or float(match[1]) == 0:
        raise ArgumentTypeError(f"must be a time above 0 such as 2.5, 300ms, 30s, 5m or 1h, got {text!r}")
    return float(match[1]) * UNITS[match[2]]


def rate(text: str) -> tuple[int, float]:
    """So many starts in so many seconds.

    >>> rate("10/1s"), rate("100/min"), rate("3/500ms")
    ((10, 1.0), (100, 60.0), (3, 0.5))
    """
    calls, _, per = text.partition("/")
    match = SPAN.fullmatch(per.strip())
    span = 0.0 if match is None else float(match[1] or 1) * UNITS[match[2]]
    if (
        not calls.strip().isdecimal()
        or not 1 <= int(calls) <= maxsize
        or not per.strip()
        or not 0 < span < inf
    ):
        raise ArgumentTypeError(f"must be STARTS/TIME such as 10/1s, 100/min or 5/0.5s, got {text!r}")
    return int(calls), span


def at_least(least: int) -> Callable[[str], int]:
    """A whole number that is not too small."""

    def whole(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise ArgumentTypeError(f"must be a whole number, at least {least}, got {text!r}")
        return number

    return whole


def failures(text: str) -> float:
    """How many failures are too many: a count, or a share.

    >>> failures("10"), failures("0.2"), failures("20%")
    (10, 0.2, 0.2)
    """
    number: float = -1
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text) if "." in text else int(text)
    except ValueError:
        pass
    if not (0 < number < 1 or (number >= 1 and isinstance(number, int))):
        raise ArgumentTypeError(f"must be a count of at least 1, or a share such as 0.2 or 20%, got {text!r}")
    return number


def file_or_stdout(text: str) -> str | None:
    """A path; None, which is stdout, for ``-``."""
    return None if text == "-" else text


def expression(text: str) -> str:
    """One Python expression over ``item``."""
    try:
        ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ArgumentTypeError(f"must be a Python expression over item, got {text!r}: {error.msg}") from None
    return text.strip()


def function_of(text: str | None, names: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """An expression as a function of ``item`` that also knows ``names``. It is code, and is run as such.

    >>> function_of("scale * len(item)", {"scale": 10})("abc")
    30
    """
    if text is None:
        return None
    made: Callable[[Any], Any] = eval(f"lambda item: (\n{text}\n)", dict(names))
    return made
