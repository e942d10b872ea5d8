"""Reads the stack that a worker writes, by ``faulthandler``, when it crashes, is to be killed or is cut off."""

from __future__ import annotations

import re
from itertools import takewhile

STACK_PATIENCE = 0.015
"""Seconds that a worker is given to write down its stack."""

_FRAME = re.compile(r'\s*File "(.*)", line (\d+) in (.*)')
_OURS = "/parallelkit/_worker/"


def as_stack(words: str) -> str | None:
    """What ``faulthandler`` wrote as a traceback: outermost frame first, with source lines, after its words about a crash.

    None if no frame is the task's.
    """
    from traceback import FrameSummary, format_list

    lines = words.splitlines()
    frames = [
        FrameSummary(path, int(line), name)
        for path, line, name in (found.groups() for found in map(_FRAME.fullmatch, lines) if found)
        if _OURS not in path
    ]
    head = [line for line in takewhile(lambda line: "most recent call first" not in line, lines) if line]
    return "\n".join([*head, "".join(format_list(frames[::-1]))]) if frames else None
