"""Tracebacks as lists of frames, which can be pickled, and real traceback objects made from these.

They are not made by raising something: those frames would refer back to ours, and keep alive what ours hold,
the items and results of other tasks.
"""

from __future__ import annotations

from types import FunctionType, TracebackType

from parallelkit._raised import give_traceback, traceback_of

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from collections.abc import Iterator

Frame = tuple[str, str, int, str, int]
"""File, function, line, module, first line of the function."""

DEEPEST = 100  # frames of a traceback that are sent; its text, which is sent as well, has them all


def frames_of(traceback: TracebackType | None) -> list[Frame]:
    """The frames, outermost first; of a very long traceback only both ends."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = str(traceback.tb_frame.f_globals.get("__name__", "?"))
        line = traceback.tb_lineno or 0
        found.append((code.co_filename, code.co_name, line, module, code.co_firstlineno))
        traceback = traceback.tb_next
    return found if len(found) <= DEEPEST else found[: DEEPEST // 2] + found[-DEEPEST // 2 :]


def build_traceback(frames: list[Frame]) -> TracebackType | None:
    """A real traceback object that shows these frames."""
    built = None
    for filename, name, line, module, first in reversed(frames):
        code = _CODE.replace(
            co_filename=filename,
            co_name=name,
            co_qualname=name,
            co_firstlineno=first,  # from which IPython counts where it shows the code of a notebook's cell
            co_linetable=_positions(line - first),
        )
        # The frame of a generator that was never started has no caller.
        generator = FunctionType(code, {"__name__": module, "__file__": filename})()
        built = TracebackType(built, generator.gi_frame, 0, line)
    return built


def detached(error: BaseException) -> BaseException:
    """The same error, with a traceback that shows the same frames but keeps none of their variables alive."""
    return give_traceback(error, build_traceback(frames_of(traceback_of(error))))


def _generator() -> Iterator[None]:
    yield


def _positions(offset: int) -> bytes:
    """A position table of ``_CODE`` in which all is that many lines after the first, and has no columns."""
    table = bytearray(_ENTRIES[:1])
    change = abs(offset) << 1 | (offset < 0)
    while change > 63:
        table.append(0x40 | change & 63)
        change >>= 6
    table.append(change)
    for entry in _ENTRIES[1:]:
        table += bytes([entry, 0])
    return bytes(table)


_CODE = _generator.__code__
_UNITS = len(_CODE.co_code) // 2
_ENTRIES = bytes(0x80 | 13 << 3 | min(8, _UNITS - start) - 1 for start in range(0, _UNITS, 8))
"""The first bytes of the entries of its position table, for 8 instructions each; the change of the line follows."""
