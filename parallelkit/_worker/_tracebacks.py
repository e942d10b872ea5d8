"""Tracebacks as lists of frames, which can be pickled, and real traceback objects made from these.

They are not made by raising something: those frames would refer back to ours, and keep alive what ours hold,
the items and results of other tasks.
"""

from __future__ import annotations

from types import CodeType, FunctionType, TracebackType

from parallelkit._raised import give_traceback, traceback_of

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterator

Frame = tuple[str, str, int, str]
"""File, function, line, module."""

DEEPEST = 100  # frames of a traceback that are sent; its text, which is sent as well, has them all


def frames_of(traceback: TracebackType | None) -> list[Frame]:
    """The frames, outermost first; of a very long traceback only both ends."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = str(traceback.tb_frame.f_globals.get("__name__", "?"))
        found.append((code.co_filename, code.co_name, traceback.tb_lineno or 0, module))
        traceback = traceback.tb_next
    return found if len(found) <= DEEPEST else found[: DEEPEST // 2] + found[-DEEPEST // 2 :]


def build_traceback(frames: list[Frame]) -> TracebackType | None:
    """A real traceback object that shows these frames."""
    built = None
    for filename, name, line, module in reversed(frames):
        code = _CODE.replace(co_filename=filename, co_name=name, co_qualname=name, co_firstlineno=line)
        # The frame of a generator that was never started has no caller.
        generator = FunctionType(code, {"__name__": module, "__file__": filename})()
        built = TracebackType(built, generator.gi_frame, 0, line)
    return built


def detached(error: BaseException) -> BaseException:
    """The same error, with a traceback that shows the same frames but keeps none of their variables alive."""
    return give_traceback(error, build_traceback(frames_of(traceback_of(error))))


def _generator() -> Iterator[None]:
    yield


def _without_columns(code: CodeType) -> CodeType:
    """The code with a position table that has the first line everywhere, and no columns; an entry covers 8 instructions."""
    units = len(code.co_code) // 2
    lengths = [min(8, units - start) for start in range(0, units, 8)]
    return code.replace(co_linetable=b"".join(bytes([0x80 | 13 << 3 | length - 1, 0]) for length in lengths))


_CODE = _without_columns(_generator.__code__)
