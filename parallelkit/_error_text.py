"""The text of an error with its traceback, as Python prints it.

To format the frames takes most of the time, and tasks that fail often fail at the same place. So their text is kept.
"""

from __future__ import annotations

from types import CodeType, TracebackType

from parallelkit._raised import describe_error, tolerated

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from traceback import StackSummary, TracebackException
    from typing import Any

KEPT, DEEPEST = 256, 100
"""How many tracebacks are kept as text, and how many frames each has, at most: those of deep recursions differ each time."""

_known: dict[tuple[int, ...], tuple[StackSummary, list[CodeType]]] = {}
"""Formatted tracebacks, by the ids of the code that they lead through and the places there; with that code, lest another get its id."""


def format_error(error: BaseException, frames: TracebackType | None) -> str:
    """The same text as that of ``traceback.format_exception``; raises what the error's class may raise."""
    from traceback import TracebackException  # late: workers do not need it to start

    whole = TracebackException(type(error), error, frames, limit=0, compact=True)
    shown: list[tuple[TracebackException, Any, TracebackType | None]] = [(whole, error, frames)]
    for text, one, its_frames in shown:  # which grows
        if its_frames is not None:
            text.stack = _formatted(its_frames)
        others = [(text.__cause__, one.__cause__), (text.__context__, one.__context__)]
        if text.exceptions is not None:
            others += zip(text.exceptions, one.exceptions, strict=True)
        shown += [(part, other, other.__traceback__) for part, other in others if part is not None]
    return "".join(whole.format())


def format_alone(error: BaseException, frames: TracebackType | None) -> str:
    """The error and its own frames, for where ``format_error`` raises: it looks for names like that of a NameError among variables.

    What stands for these in code run by ``eval``, as the formulas of statsmodels are, may not bear that.
    """
    lines: list[str] = []
    with tolerated():
        if frames is not None:
            lines = ["Traceback (most recent call last):\n", *_formatted(frames).format()]
    return f"{''.join(lines)}{describe_error(error)}\n"


def _formatted(frames: TracebackType) -> StackSummary:
    """The frames, which give the same lines whenever they are formatted."""
    from traceback import extract_tb

    codes, places = [], []
    each: TracebackType | None = frames
    while each is not None:
        code = each.tb_frame.f_code
        codes.append(code)
        places += [id(code), each.tb_lasti, each.tb_lineno or 0]
        each = each.tb_next
    if (known := _known.get(key := tuple(places))) is not None:
        return known[0]
    stack = extract_tb(frames)
    lines = stack.format()
    stack.format = lambda **_: lines  # type: ignore[method-assign]  # for this one
    if len(codes) <= DEEPEST:
        if len(_known) >= KEPT:
            _known.clear()
        _known[key] = stack, codes
    return stack
