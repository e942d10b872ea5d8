"""Formats figures, keys and errors for all writers."""

from __future__ import annotations

import re
from typing import Any

from parallelkit._raised import describe_error, in_short, repr_of

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x80-\x9f]")  # DEL is not: JSON has it as it is

UNITS = ((1e-6, "µs"), (1e-3, "ms"), (1.0, "s"))


def seconds(value: float) -> str:
    """A duration to three significant figures.

    >>> [seconds(value) for value in (0.0000123, 0.9996, 4.1, 725.2, 5000)]
    ['12.3 µs', '1.00 s', '4.10 s', '12 min 5 s', '1 h 23 min']
    """
    if value < 59.95:
        return _in_units(value, 3)
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(value: float) -> str:
    """An estimated duration, to two significant figures.

    >>> about(4.13), about(0.0317), about(725.2)
    ('4.1 s', '32 ms', '12 min 5 s')
    """
    return _in_units(value, 2) if value < 59.5 else seconds(value)


def _in_units(value: float, figures: int) -> str:
    if value <= 0:
        return "0 s"
    unit, name = next((unit for unit in UNITS if value < 999.5 * unit[0]), UNITS[-1])
    return f"{number(value / unit, figures)} {name}"


def number(value: float, figures: int = 3) -> str:
    """A number to so many significant figures, never in exponential notation.

    >>> number(7.6, 2), number(9.5), number(9.996), number(1234.4)
    ('7.6', '9.50', '10.0', '1,234')
    """
    power = int(f"{value:.{figures - 1}e}".partition("e")[2])  # of the rounded value: 9.996 is 10.0 to three
    decimals = max(0, figures - 1 - power)
    return f"{value:,.{decimals}f}"


def percent(share: float) -> str:
    """A share as a whole percentage.

    >>> percent(0.497), percent(0.003)
    ('50 %', '< 1 %')
    """
    return "< 1 %" if 0 < share < 0.005 else f"{share * 100:.0f} %"


def count(how_many: int, noun: str) -> str:
    """A count with its noun.

    >>> count(1, "task"), count(1200, "retry")
    ('1 task', '1,200 retries')
    """
    if how_many != 1:
        noun = noun[:-1] + "ies" if noun.endswith("ry") else noun + "s"
    return f"{how_many:,} {noun}"


def encodable(text: str) -> str:
    r"""A text that can be printed, and be in a page, whatever is in a message.

    Lone surrogates, such as those of a file name that is not Unicode, are escaped, and so are control characters: a
    terminal would obey them, and HTML has none.

    >>> print(encodable("caf\udce9 \x1b[2J"))
    caf\udce9 \x1b[2J
    """
    escaped = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def clip(text: str, width: int) -> str:
    r"""A text on one line, cut off at ``width`` characters.

    >>> clip("one\n two", 20), clip("a long story", 8)
    ('one two', 'a long …')
    """
    line = " ".join(text[: 4 * width].split())
    return line if len(line) <= width else line[: width - 1] + "…"


def key_text(key: Any, width: int = 60) -> str:
    r"""A key as text: a printable str as it is, anything else by its ``repr``; a long one loses its middle.

    >>> key_text("eu-west"), key_text(("a", 1)), key_text(" "), key_text("https://example.org/item/17", 16)
    ('eu-west', "('a', 1)", "' '", 'https:/…/item/17')
    >>> print(key_text("one\ntwo"))
    'one\ntwo'
    """
    text = key if type(key) is str and key.strip() and key.isprintable() else repr_of(key)
    text = " ".join(text.split()) if len(text) <= 4 * width else text
    return in_short(text, width)


def error_text(error: BaseException | None, width: int) -> str:
    """The type and text of an error; None stands for an attempt that the stop of the run cut off."""
    return "cut off by the stop of the run" if error is None else clip(describe_error(error), width)
