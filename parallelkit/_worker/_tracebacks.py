"""Tracebacks as lists of frames, which travel, and made real again."""

from __future__ import annotations

from types import TracebackType

TYPE_CHECKING = False  # importing typing would cost a worker a third of its start
if TYPE_CHECKING:
    from typing import Any

DEEPEST = 100  # frames of a traceback that travel as objects; its text has them all


def frames_of(frames: TracebackType | None) -> list[tuple[str, str, int, str]]:
    """File, function, line and module of each frame; of a very long traceback the two ends."""
    found = []
    while frames is not None:
        code = frames.tb_frame.f_code
        module = str(frames.tb_frame.f_globals.get("__name__", "?"))
        found.append((code.co_filename, code.co_name, frames.tb_lineno, module))
        frames = frames.tb_next
    return found if len(found) <= DEEPEST else found[: DEEPEST // 2] + found[-DEEPEST // 2 :]


def build_traceback(frames: list[tuple[str, str, int, str]]) -> TracebackType | None:
    """A real traceback object that shows these frames."""
    from tblib import Traceback

    built: Any = None
    for filename, name, line, module in reversed(frames):
        entry = {
            "tb_frame": {
                "f_globals": {"__name__": module, "__file__": filename},
                "f_code": {"co_filename": filename, "co_name": name},
                "f_lineno": line,
            },
            "tb_lineno": line,
            "tb_next": None,
        }
        step = Traceback.from_dict(entry)
        step.tb_next, built = built, step
    traceback: TracebackType | None = built.as_traceback() if built else None
    return traceback
