"""Where a worker stood when it crashed, was killed or was cut off: it writes that down itself, by ``faulthandler``."""

from __future__ import annotations

import re
from itertools import takewhile
from traceback import FrameSummary, format_list

LAST_WORDS = 0.015
"""Seconds that a worker has at most to write down its stack."""

_FRAME = re.compile(r'\s*File "(.*)", line (\d+) in (.*)')
_OURS = "/parallelkit/_worker/"


def as_stack(words: str) -> str | None:
    """What ``faulthandler`` wrote, in the form of a traceback: outermost first, with the lines of the source.

    What it says of a crash comes before. None where no frame is the task's.
    """
    lines = words.splitlines()
    frames = [
        FrameSummary(path, int(line), name)
        for path, line, name in (found.groups() for found in map(_FRAME.fullmatch, lines) if found)
        if _OURS not in path.replace("\\", "/")
    ]
    head = [line for line in takewhile(lambda line: "most recent call first" not in line, lines) if line]
    return "\n".join([*head, "".join(format_list(frames[::-1]))]) if frames else None
