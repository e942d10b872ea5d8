"""Where a thread or a coroutine stands now, as text."""

from __future__ import annotations

import sys
import threading
import traceback
from functools import partial
from types import CoroutineType, FrameType, GeneratorType
from typing import Any

from parallelkit._collector import without_collector
from parallelkit._raised import calls_tasks


def stack_of(thread: threading.Thread, below: str | None = None) -> str:
    """The stack of a thread; from the task on, if the thread runs code of the file ``below``."""
    frames = without_collector(partial(_frames_of, thread))
    ours = [number for number, (frame, _) in enumerate(frames) if frame.f_code.co_filename == below]
    if ours:
        del frames[: ours[0] + 1]
        while len(frames) > 1 and calls_tasks(frames[0][0]):
            del frames[0]
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


def _frames_of(thread: threading.Thread) -> list[tuple[FrameType, int]]:
    """The frames of a thread, outermost first, each with its line. The thread may be running.

    The garbage collector must be off: its finalizers would let the thread go on and leave frames that
    we are following, which crashes Python 3.11.
    """
    frames = []
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        frames.append((frame, frame.f_lineno))
        frame = frame.f_back
    return frames[::-1]


def await_stack(waiting: Any) -> str:
    """The stack of a coroutine that waits, as text: its own frame, and those of what it awaits.

    It ends where something else than Python's coroutines and generators is awaited: that may have any attributes.
    """
    frames = []
    while True:
        if type(waiting) is CoroutineType:
            frame, waiting = waiting.cr_frame, waiting.cr_await
        elif type(waiting) is GeneratorType:
            frame, waiting = waiting.gi_frame, waiting.gi_yieldfrom
        else:
            break
        if frame is not None:
            frames.append((frame, frame.f_lineno))
    return "".join(traceback.StackSummary.extract(iter(frames)).format())
