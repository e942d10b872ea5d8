"""Parses the values of the options of ``parallelkit run``, or refuses them with a message that states the rule."""

from __future__ import annotations

import builtins
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Mapping
from math import inf
from sys import maxsize
from typing import Any

from parallelkit._command import UsageError
from parallelkit._keywords import did_you_mean

UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
SPAN = re.compile(r"(\d+\.?\d*|\.\d+)?\s*(ms|s|min|m|h|d|)")


def seconds(text: str) -> float:
    """Parse a span of time, in seconds or with a unit.

    >>> seconds("2.5"), seconds("300ms"), seconds("5m"), seconds("1h")
    (2.5, 0.3, 300.0, 3600.0)
    """
    match = SPAN.fullmatch(text.strip())
    if match is None or match[1] is None or float(match[1]) == 0:
        raise ArgumentTypeError(f"must be a time above 0 such as 2.5, 300ms, 30s, 5m or 1h, got {text!r}")
    return float(match[1]) * UNITS[match[2]]


def rate(text: str) -> tuple[int, float]:
    """Parse a rate limit: a number of starts, and the seconds that it is for.

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
    """Return a parser of whole numbers that are at least ``least``."""

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
    """Parse the option ``--max-failures``: a count, or a share.

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


def file(text: str) -> str:
    """Return a path as it is; an empty one, as of a shell variable that is not set, is refused."""
    if not text:
        raise ArgumentTypeError("must be a path, got ''")
    return text


def file_or_stdout(text: str) -> str | None:
    """Return a path; None, for stdout, if it is ``-``."""
    return None if text == "-" else file(text)


def expression(text: str) -> str:
    """Check that a text is one Python expression."""
    try:
        compile(text.strip(), "<expression>", "eval")
    except SyntaxError as error:
        raise ArgumentTypeError(f"must be a Python expression over item, got {text!r}: {error.msg}") from None
    return text.strip()


def function_of(name: str, text: str | None, names: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """Turn the expression of an option into a function of ``item`` that can also use ``names``. It is run as Python code.

    >>> function_of("key", "scale * len(item)", {"scale": 10})("abc")
    30
    """
    if text is None:
        return None
    for unknown in sorted(free_names(text) - {"item", *names, *vars(builtins)}):
        hint = did_you_mean(unknown, ["item", *names]) or "it can use item and the names of the module"
        raise UsageError(f"argument --{name}: name {unknown!r} is not defined; {hint}")
    made: Callable[[Any], Any] = eval(f"lambda item: (\n{text}\n)", dict(names))
    return made


def free_names(text: str) -> set[str]:
    """Return the names that an expression uses, except those that it binds itself.

    >>> sorted(free_names("[part for part in item if part != end]"))
    ['end', 'item']
    """
    import ast  # takes a millisecond to load

    nodes = list(ast.walk(ast.parse(text, mode="eval")))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    return {node.id for node in names} - bound - {node.arg for node in nodes if isinstance(node, ast.arg)}
